"""Count models without any net, for a net's loss to be held against."""

from dataclasses import dataclass

import torch
from torch import Tensor

from charlm.corpus import Windows

TITLES = {"uniform": "Uniform", "unigram": "Unigram", "bigram": "Bigram"}
"""What a figure calls each of the count models."""


@dataclass(frozen=True)
class CountModel:
    """A table of the next token's probabilities.

    Attributes:
        log_probs: (V, V) natural logarithms, a row for each previous token.
        parameters: how many numbers of the table come from counting.
    """

    log_probs: Tensor
    parameters: int

    def score(self, windows: Windows) -> tuple[Tensor, Tensor]:
        """(W,) losses in nats, and (W,) the chance that the likeliest token is the target.

        That chance is 0 or 1, but for tokens that are equally likely.
        """
        previous, targets = windows.previous().long(), windows.targets().long()
        losses = -self.log_probs[previous, targets]
        likeliest = (self.log_probs == self.log_probs.amax(1, keepdim=True)).double()  # (V, V)
        return losses, (likeliest / likeliest.sum(1, keepdim=True))[previous, targets]


def count_models(train: Windows, vocab_size: int) -> dict[str, CountModel]:
    """Uniform, unigram and bigram, counted on the training windows.

    Every count starts at one (Laplace), so that a pair first seen in the test set
    has a finite loss.
    """
    pairs = train.previous().long() * vocab_size + train.targets().long()
    counts = torch.bincount(pairs, minlength=vocab_size**2)
    bigram = counts.reshape(vocab_size, vocab_size).double()  # (V, V): previous, next
    unigram = bigram.sum(0, keepdim=True).expand(vocab_size, vocab_size)
    uniform = torch.zeros_like(bigram)
    return {
        "uniform": CountModel(_smoothed(uniform), 0),
        "unigram": CountModel(_smoothed(unigram), vocab_size),
        "bigram": CountModel(_smoothed(bigram), vocab_size**2),
    }


def _smoothed(counts: Tensor) -> Tensor:
    counts = counts + 1
    return (counts / counts.sum(1, keepdim=True)).log()
