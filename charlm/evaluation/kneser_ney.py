"""An n-gram baseline: interpolated modified Kneser-Ney smoothing.

Chen and Goodman (1999), section 3, give the probability of a token w after a context c as

    P(w | c) = (n(c, w) - D) / n(c) + left(c) P(w | c without its first token),

down to the empty context, which backs off to 1 / V. A discount D is subtracted from every count:
one value for a count of 1, another for 2, a third for 3 or more. left(c) is the discounted
fraction of n(c), so the probabilities sum to one. For the longest contexts n counts windows; for
shorter ones it counts the distinct tokens that precede them (continuation counts).

The padding before a name only marks its start, so it counts as a single start symbol: a context
never extends past its first padding token, and for contexts that begin with it n counts windows,
as in SRILM and KenLM after the start of a sentence. Treating every padding token as context
raises the loss for long contexts and short names (EXPERIMENTS.md, 2026-11-25).

Existing libraries (NLTK, KenLM) count whole sentences. Here windows are split into training and
test sets, so some characters of a name may be counted and others not.

Sizes: U distinct windows, each a context and its target; C distinct contexts of one length; G
entries, the distinct pairs of such a context and a token that followed it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from charlm.data.corpus import CHUNK, END
from charlm.data.windows import Windows
from charlm.fast.rows import distinct

Reals = NDArray[np.float64]
Integers = NDArray[np.integer]

ORDER = 5
"""Tokens of context; the best validation loss on the French names (EXPERIMENTS.md)."""


@dataclass(frozen=True, eq=False)
class Level:
    """The probabilities after contexts of one length, and their backoff weights.

    Attributes:
        contexts: (C,) ascending, each as i * V + token: i is the index of the context one token
            shorter, `token` the one before it.
        entries: (G,) ascending, each as i * V + token: i is the index of the context, `token` the
            one after it.
        probs: (G,) the probability of that token.
        left: (C,) the backoff weight: the probability mass left to the shorter context.
        highest: (C,) the probability of the most likely token.
        ties: (C,) the number of tokens with that probability.
    """

    contexts: Integers
    entries: Integers
    probs: Reals
    left: Reals
    highest: Reals
    ties: Integers


@dataclass(frozen=True, eq=False)
class KneserNey:
    """An interpolated n-gram model.

    Attributes:
        vocab_size: V.
        levels: for contexts of 0, 1, ... tokens.
    """

    vocab_size: int
    levels: Sequence[Level]

    @property
    def order(self) -> int:
        """Return the maximum number of context tokens used."""
        return len(self.levels) - 1

    @property
    def parameters(self) -> int:
        """Return the number of counts: one for each distinct context and next token."""
        return sum(len(level.entries) for level in self.levels)

    def probs(self, contexts: Integers) -> Reals:
        """Return the probabilities (N, V) of the next token after contexts (N, T)."""
        N, V = len(contexts), self.vocab_size
        tokens = np.tile(np.arange(V), N)
        rows = np.column_stack([np.repeat(contexts, V, axis=0), tokens])
        return self._look_up(rows)[0].reshape(N, V)

    def score(self, windows: Windows) -> tuple[Tensor, Tensor]:
        """Return the losses (W,) in nats and the accuracy (W,) of the most likely token.

        The accuracy is 0 or 1, or 1/k if the target is one of k equally likely tokens.
        """
        losses, chances = np.empty((2, len(windows)))
        done = 0
        for rows, inverse in _distinct(windows, self.order):
            probs, highest, ties = self._look_up(rows)
            chunk = slice(done, done + len(inverse))
            losses[chunk] = -np.log(probs)[inverse]
            chances[chunk] = ((probs == highest) / ties)[inverse]
            done += len(inverse)
        return torch.from_numpy(losses), torch.from_numpy(chances)

    def _look_up(self, rows: Integers) -> tuple[Reals, Reals, Integers]:
        """Return each row's probability, the highest of any token, and the number of ties, (U,).

        The highest is found without computing all V probabilities: see `_level`.
        """
        V = self.vocab_size
        probs, highest = np.full((2, len(rows)), 1 / V)
        ties = np.full(len(rows), V)
        known = np.arange(len(rows))  # the rows whose context was seen
        index: Integers = np.zeros(len(rows), dtype=np.int64)  # of their contexts
        for length, level in enumerate(self.levels):
            if length:
                position, seen = _find(level.contexts, index * V + rows[known, -1 - length])
                known, index = known[seen], position[seen]
            position, seen = _find(level.entries, index * V + rows[known, -1])
            backoff = level.left[index] * probs[known]
            probs[known] = np.where(seen, level.probs[position], backoff)
            highest[known], ties[known] = level.highest[index], level.ties[index]
        return probs, highest, ties


def count_kneser_ney(train: Windows, vocab_size: int, order: int = ORDER) -> KneserNey:
    """Fit the model to the training windows; contexts have up to min(`order`, T) tokens."""
    rows, windows = _counted(train, min(order, train.block_size))
    known = list(_index_levels(rows, vocab_size))
    shorter = Level(  # the empty context backs off to the uniform distribution
        contexts=np.zeros(1, dtype=np.int64),
        entries=np.zeros(1, dtype=np.int64),
        probs=np.full(1, 1 / vocab_size),
        left=np.ones(1),
        highest=np.full(1, 1 / vocab_size),
        ties=np.full(1, vocab_size),
    )
    inverse_of_shorter: Integers = np.zeros(len(rows), dtype=np.int32)
    levels = []
    for length, (contexts, entries, inverse) in enumerate(known):
        at_longest, longer = inverse >= 0, inverse[:0]
        if length + 1 < len(known):
            _, longer_entries, longer_inverse = known[length + 1]
            at_longest &= longer_inverse < 0  # only padding precedes these
            longer = inverse[_some_row(longer_inverse, len(longer_entries))]
        counts = np.bincount(longer, minlength=len(entries)).astype(np.int64)
        counts += np.bincount(inverse[at_longest], windows[at_longest], len(entries)).astype(int)
        probs = shorter.probs[inverse_of_shorter[_some_row(inverse, len(entries))]]
        shorter = _level(contexts, entries, counts, probs, shorter, vocab_size)
        inverse_of_shorter = inverse
        levels.append(shorter)
    return KneserNey(vocab_size, levels)


def _level(
    contexts: Integers,
    entries: Integers,
    counts: Integers,
    probs: Reals,
    shorter: Level,
    vocab_size: int,
) -> Level:
    """Build a level from its counts (G,) and the probabilities (G,) after shorter contexts.

    The most likely token after a context is one seen after it, or the most likely one after the
    shorter context. If both are equally likely, no seen token is among the most likely after the
    shorter context (it would be more likely here), so ties are not counted twice.
    """
    context, shorter_index = entries // vocab_size, contexts // vocab_size
    taken = _discounts(counts)[np.minimum(counts, 3) - 1]
    total = np.bincount(context, counts)
    left = np.bincount(context, taken) / total
    probs = (counts - taken) / total[context] + left[context] * probs
    begins = np.searchsorted(context, np.arange(len(contexts)))
    backoff = left * shorter.highest[shorter_index]
    highest = np.maximum(np.maximum.reduceat(probs, begins), backoff)
    ties = np.bincount(context[probs == highest[context]], minlength=len(contexts))
    ties += np.where(backoff == highest, shorter.ties[shorter_index], 0)
    return Level(contexts, entries, probs, left, highest, ties)


def _discounts(counts: Integers) -> Reals:
    """Compute the discounts for counts of 1, of 2, and of 3 or more.

    D_j = j - (j + 1) Y n_{j+1} / n_j with Y = n_1 / (n_1 + 2 n_2), where n_j is the number of
    counts equal to j (Chen and Goodman 1999, section 3). If one of n_1 to n_4 is zero, or a
    discount would be negative, all three are Y (Ney et al. 1994); if n_1 or n_2 is zero, 0.5.
    """
    n1, n2, n3, n4 = (int((counts == j).sum()) for j in (1, 2, 3, 4))
    single = n1 / (n1 + 2 * n2) if n1 and n2 else 0.5
    if not (n1 and n2 and n3 and n4):
        return np.full(3, single)
    found = [1 - 2 * single * n2 / n1, 2 - 3 * single * n3 / n2, 3 - 4 * single * n4 / n3]
    return np.array(found) if min(found) > 0 else np.full(3, single)


def _distinct(windows: Windows, order: int) -> Iterator[tuple[Integers, Integers]]:
    """Yield the distinct rows (U, order + 1) of each chunk, and the row index of each window."""
    for start in range(0, len(windows), CHUNK):
        contexts, targets = windows.batch(slice(start, start + CHUNK))
        nearest = contexts[:, contexts.shape[1] - order :]
        rows, inverse = distinct(torch.cat([nearest, targets[:, None].int()], dim=1))
        yield rows.numpy(), inverse.numpy()


def _counted(windows: Windows, order: int) -> tuple[Integers, Integers]:
    """Return the distinct rows (U, order + 1) of all windows, and the count of each (U,)."""
    rows = torch.empty((0, order + 1), dtype=torch.int32)
    counts: Integers = np.empty(0, dtype=np.int64)
    for more, of_more in _distinct(windows, order):
        repeated = np.concatenate([counts, np.bincount(of_more)])
        rows, inverse = distinct(torch.cat([rows, torch.from_numpy(more)]))
        counts = np.bincount(inverse.numpy(), repeated).astype(np.int64)
    return rows.numpy(), counts


def _index_levels(rows: Integers, vocab_size: int) -> Iterator[tuple[Integers, Integers, Integers]]:
    """Index the contexts and entries of the rows, from the empty context to the longest.

    Yields (C,) and (G,) as in `Level`, and (U,) the entry of each row, or -1 if its context would
    extend past the first padding token. Context indices are below U whatever the length, so only
    U * V must fit into an int64.
    """
    within = np.ones(len(rows), dtype=np.bool_)
    contexts: Integers = np.zeros(1, dtype=np.int64)
    context: Integers = np.zeros(len(rows), dtype=np.int32)  # of each row
    for length in range(rows.shape[1]):
        if length > 1:
            within = within & (rows[:, -length] != END)
            if not within.any():
                return
        if length:
            contexts, context = _index_pairs(context, rows[:, -1 - length], within, vocab_size)
        yield contexts, *_index_pairs(context, rows[:, -1], within, vocab_size)


def _index_pairs(
    context: Integers, tokens: Integers, chosen: NDArray[np.bool_], vocab_size: int
) -> tuple[Integers, Integers]:
    """Return the distinct pairs of the chosen rows, ascending, and each row's index (U,) or -1."""
    pairs = context[chosen].astype(np.int64) * vocab_size + tokens[chosen]
    distinct_pairs, inverse = np.unique(pairs, return_inverse=True)
    indices = np.full(len(chosen), -1, dtype=np.int32)
    indices[chosen] = inverse
    return distinct_pairs, indices


def _some_row(inverse: Integers, count: int) -> Integers:
    """Return, for each entry 0 to `count` - 1, a row whose `inverse` (U,) is that entry, (G,)."""
    rows = np.empty(count, dtype=np.int32)
    chosen = np.flatnonzero(inverse >= 0)
    rows[inverse[chosen]] = chosen
    return rows


def _find(ascending: Integers, wanted: Integers) -> tuple[Integers, NDArray[np.bool_]]:
    """Return the position of each of `wanted` (N,), and whether it is there (N,)."""
    position = np.minimum(np.searchsorted(ascending, wanted), len(ascending) - 1)
    return position, ascending[position] == wanted
