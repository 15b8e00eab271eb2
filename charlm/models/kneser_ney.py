"""N-gram counts: interpolated modified Kneser-Ney smoothing.

Chen and Goodman (1999), section 3, give the probability of a token w after a context c as

    P(w | c) = (n(c, w) - D) / n(c) + left(c) P(w | c without its first token),

down to the empty context, which backs off to 1 / V. A discount D is subtracted from every count:
one value for a count of 1, another for 2, and a third for 3 or more. left(c) is the discounted
fraction of n(c), so that the probabilities sum to one. For the longest contexts, n counts windows.
For shorter ones, it counts the distinct tokens that precede them (continuation counts).

The padding before a name only marks its start, so it is treated as a single start symbol. A context
never extends past its first padding token, and for contexts that begin with padding, n counts
windows, as in SRILM and KenLM at the start of a sentence.

N batch, T context length, V vocabulary, L order, C distinct contexts of 0 to L tokens, G entries
(distinct pairs of a context and the token after it).
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.overrides import wrap_torch_function

from charlm.models.base import LanguageModel

LEVELS = 8
"""Number of confidence levels for each context length."""


class Tables(NamedTuple):
    """A trie of contexts and their counts.

    The parent of a context is the same context without its first token. Contexts are sorted by
    length, then by parent, then by first token.

    Attributes:
        children: (C + 1,) the index of the first child of each context, then C.
        front: (C,) the first token of each context; 0 for the empty one.
        begins: (C + 1,) the index of the first entry of each context, then G.
        tokens: (G,) the token after the context, ascending for each context.
        counts: (G,) n(c, w).
        totals: (C,) n(c), the sum of the counts.
        taken: (C,) n(c) left(c), the sum of the discounts.
        discounts: (L + 1, 3) by context length, for counts of 1, 2, and 3 or more.
    """

    children: Tensor
    front: Tensor
    begins: Tensor
    tokens: Tensor
    counts: Tensor
    totals: Tensor
    taken: Tensor
    discounts: Tensor


NOTHING = Tables(
    children=torch.ones(2, dtype=torch.int32),
    front=torch.zeros(1, dtype=torch.int32),
    begins=torch.zeros(2, dtype=torch.int32),
    tokens=torch.zeros(0, dtype=torch.int32),
    counts=torch.zeros(0, dtype=torch.int32),
    totals=torch.zeros(1, dtype=torch.int32),
    taken=torch.zeros(1, dtype=torch.float64),
    discounts=torch.full((1, 3), 0.5, dtype=torch.float64),
)
"""The tables before counting: all tokens are equally likely."""


class KneserNey(LanguageModel):
    """Log-probabilities from n-gram counts, without gradient descent.

    The counts come from `charlm.training.counting`.

    Args:
        vocab_size: V.
        block_size: T.
        order: maximum number of context tokens; None to choose it by validation loss.

    Attributes:
        highest: the highest order to consider.
        tables: the counts, saved with the model.
    """

    title = "Kneser-Ney"

    def __init__(self, vocab_size: int, block_size: int, order: int | None = None) -> None:
        super().__init__()
        self.vocab_size = vocab_size
        self.highest = block_size if order is None else min(order, block_size)
        self.tables = NOTHING

    @property
    def order(self) -> int:
        """The maximum number of context tokens."""
        return len(self.tables.discounts) - 1

    @property
    def counted(self) -> int:
        """The number of counts: one per distinct pair of a context and its next token."""
        return len(self.tables.counts)

    def forward(self, contexts: Tensor, targets: Tensor | None = None) -> Tensor:
        """Return the log-probabilities (N, V) of the token after contexts (N, T).

        If targets (N,) are given, each window is left out of the counts.
        """
        log_probs, _ = self.look_up(contexts, [self.order], targets)
        return log_probs[:, 0]

    def look_up(
        self, contexts: Tensor, orders: Sequence[int], targets: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return log-probabilities (N, K, V) for each of K orders, and a confidence (N,).

        The confidence is an integer below `LEVELS` * (T + 1). It combines the length of the longest
        context that was counted with the logarithm of its count. Targets as in `forward`.
        """
        found: tuple[Tensor, Tensor] = look_up(
            contexts, targets, list(orders), self.tables, self.vocab_size, LEVELS
        )
        return found

    # The tables are not buffers, because buffers would be copied at every step.

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        destination.update(
            {prefix + name: tensor for name, tensor in self.tables._asdict().items()}
        )

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *arguments: Any) -> None:
        self.tables = Tables(*(state_dict[prefix + name].cpu() for name in Tables._fields))


@wrap_torch_function(lambda contexts, *others: (contexts,))
def look_up(
    contexts: Tensor,
    targets: Tensor | None,
    orders: list[int],
    tables: Tables,
    vocab_size: int,
    levels: int,
) -> tuple[Tensor, Tensor]:
    """Return log-probabilities (N, K, V) and confidence (N,), as in `KneserNey.look_up`."""
    begins, totals, device = tables.begins, tables.totals, contexts.device
    V, N = vocab_size, len(contexts)
    contexts = contexts.cpu()
    targets = targets.cpu() if targets is not None and len(tables.counts) else None
    probs = torch.full((N, V), 1 / V, dtype=torch.float64)
    confidence = torch.zeros(N, dtype=torch.int64)
    chosen = [probs] * len(orders)
    nodes = _nodes(contexts, V, tables)
    own, lowered = _left_out(nodes, targets, V, tables)
    for length, discounts in enumerate(tables.discounts):
        n = torch.nonzero(nodes[length] >= 0).squeeze(1)
        context, less = nodes[length, n], lowered[length, n]
        # Leaving out a window changes one count, its discount, and the sums of both.
        before = tables.counts[own[length, n]] if targets is not None else less
        after = before - less
        change = torch.where(less > 0, _discounts_of(before, discounts), 0)
        change -= torch.where(less > 0, _discounts_of(after, discounts), 0)
        total, taken = totals[context] - less, tables.taken[context] - change
        seen = total > 0
        n, context, total, taken = n[seen], context[seen], total[seen], taken[seen]
        sizes = (begins[context + 1] - begins[context]).long()
        row = torch.repeat_interleave(sizes)  # the row of each entry
        entry = torch.arange(len(row)) + (begins[context] - sizes.cumsum(0) + sizes)[row]
        count = tables.counts[entry] - torch.where(
            entry == own[length, n][row], lowered[length, n][row], 0
        )
        part = torch.zeros(len(n), V, dtype=torch.float64)
        part[row, tables.tokens[entry].long()] = count - _discounts_of(count, discounts)
        probs[n] = (part + taken[:, None] * probs[n]) / total[:, None]
        level = torch.frexp(total.double()).exponent.long() - 1  # the logarithm, rounded down
        confidence[n] = levels * length + level.clamp_max(levels - 1)
        if length in orders:
            chosen = [
                probs.clone() if order == length else previous
                for order, previous in zip(orders, chosen, strict=True)
            ]
    return torch.stack(chosen, dim=1).log().float().to(device), confidence.to(device)


def _discounts_of(counts: Tensor, discounts: Tensor) -> Tensor:
    """Return the discount of each count; 0 for a count of 0."""
    return torch.where(counts > 0, discounts[(counts.clamp(1, 3) - 1).long()], 0)


def _nodes(contexts: Tensor, vocab_size: int, tables: Tables) -> Tensor:
    """Return the index of each context in the tables, by length (L + 1, N), or -1 if unseen."""
    children, front = tables.children, tables.front
    parents = torch.repeat_interleave(children.diff())
    keys = parents * vocab_size + front[1:]  # ascending
    nodes = torch.zeros(len(tables.discounts), len(contexts), dtype=torch.int64)
    for length in range(1, len(nodes)):
        wanted = nodes[length - 1] * vocab_size + contexts[:, -length]
        nodes[length] = _find(keys, torch.where(nodes[length - 1] < 0, -1, wanted), offset=1)
    return nodes


def _left_out(
    nodes: Tensor, targets: Tensor | None, vocab_size: int, tables: Tables
) -> tuple[Tensor, Tensor]:
    """Return each window's own entries, and by how much leaving it out lowers them, (L + 1, N).

    The count of its longest context drops by one. If it drops to zero, one token fewer precedes the
    next shorter context, and so on.
    """
    own, lowered = torch.zeros((2, *nodes.shape), dtype=torch.int64)
    if targets is None:
        return own - 1, lowered
    keys = torch.repeat_interleave(tables.begins.diff()) * vocab_size + tables.tokens  # ascending
    lowers = torch.ones(nodes.shape[1], dtype=torch.bool)
    for length in reversed(range(len(nodes))):
        known = nodes[length] >= 0
        own[length] = _find(keys, torch.where(known, nodes[length] * vocab_size + targets, -1))
        lowers = torch.where(known, lowers & (own[length] >= 0), lowers)
        lowered[length] = lowers & known
        lowers = torch.where(known, lowers & (tables.counts[own[length]] == 1), lowers)
    return own, lowered


def _find(ascending: Tensor, wanted: Tensor, offset: int = 0) -> Tensor:
    """Return the index of each of `wanted` (N,) plus `offset`, or -1 if it is missing."""
    place = torch.searchsorted(ascending, wanted).clamp_max(max(len(ascending) - 1, 0))
    found = ascending[place] == wanted if len(ascending) else torch.zeros_like(wanted).bool()
    return torch.where(found, place + offset, -1)
