"""N-gram baselines: uniform, unigram and bigram."""

from dataclasses import dataclass

import torch
from torch import Tensor

from charlm.data.corpus import CHUNK
from charlm.data.windows import Windows


@dataclass(frozen=True)
class CountModel:
    """A unigram or bigram model with add-one (Laplace) smoothing.

    Only pairs that occur are stored, because a dense table for 10,000 characters would take a
    gigabyte.

    Attributes:
        vocab_size: V.
        order: number of previous tokens used, 0 or 1.
        pairs: (P,) the distinct pairs, ascending, as previous * V + next; previous is 0 if `order`
            is 0.
        counts: (P,) the count of each pair.
        parameters: number of counts in a dense table.
    """

    vocab_size: int
    order: int
    pairs: Tensor
    counts: Tensor

    @property
    def parameters(self) -> int:
        return self.vocab_size ** (self.order + 1) if len(self.pairs) else 0

    def log_probs(self, previous: Tensor, tokens: Tensor) -> Tensor:
        """Return the log-probability (N,), float64, of each of `tokens` after `previous`."""
        context = self._context(previous)
        seen = torch.zeros(self.vocab_size, dtype=torch.int64)
        seen.index_add_(0, self.pairs // self.vocab_size, self.counts)
        total = seen[context] + self.vocab_size
        return (self._count(context, tokens) + 1).double().log() - total.double().log()

    def score(self, windows: Windows) -> tuple[Tensor, Tensor]:
        """Return the losses (W,) in nats and the top-1 accuracy (W,).

        The accuracy is 0 or 1, or 1/k if the target is one of k equally likely tokens.
        """
        previous, targets = windows.previous().long(), windows.targets().long()
        context = self._context(previous)
        rows = self.pairs // self.vocab_size
        most = torch.zeros(self.vocab_size, dtype=torch.int64)
        most.scatter_reduce_(0, rows, self.counts, "amax")
        ties = torch.bincount(rows[self.counts == most[rows]], minlength=self.vocab_size)
        ties[most == 0] = self.vocab_size  # unseen context: all tokens are equally likely
        hit = self._count(context, targets) == most[context]
        return -self.log_probs(previous, targets), hit.double() / ties[context]

    def _context(self, previous: Tensor) -> Tensor:
        return previous.long() if self.order else torch.zeros_like(previous, dtype=torch.int64)

    def _count(self, context: Tensor, tokens: Tensor) -> Tensor:
        """Return how often each token follows its context, (N,)."""
        if len(self.pairs) == 0:
            return torch.zeros_like(context)
        wanted = context * self.vocab_size + tokens
        position = torch.searchsorted(self.pairs, wanted).clamp_max(len(self.pairs) - 1)
        return torch.where(self.pairs[position] == wanted, self.counts[position], 0)


def count_models(train: Windows, vocab_size: int) -> dict[str, CountModel]:
    """Fit the uniform, unigram and bigram models to the training windows.

    They use add-one (Laplace) smoothing, so pairs that do not occur in training have a finite loss.
    """
    nothing = torch.zeros(0, dtype=torch.int64)
    pairs, counts = nothing, nothing
    previous, targets = train.previous(), train.targets()
    for before, here in zip(torch.split(previous, CHUNK), torch.split(targets, CHUNK), strict=True):
        more = torch.unique(before.long() * vocab_size + here, return_counts=True)
        pairs, counts = _added((pairs, counts), more)
    tokens = _added((nothing, nothing), (pairs % vocab_size, counts))
    return {
        "uniform": CountModel(vocab_size, 0, nothing, nothing),
        "unigram": CountModel(vocab_size, 0, *tokens),
        "bigram": CountModel(vocab_size, 1, pairs, counts),
    }


def _added(one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Merge two (values, counts) pairs: distinct values (P,), ascending, and counts (P,)."""
    values, inverse = torch.unique(torch.cat([one[0], other[0]]), return_inverse=True)
    counts = torch.zeros_like(values).index_add_(0, inverse, torch.cat([one[1], other[1]]))
    return values, counts
