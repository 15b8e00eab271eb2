"""Count the n-grams of the training windows, for `charlm.models.kneser_ney`.

Existing libraries (NLTK, KenLM) count whole sentences. Here, the windows are split, so some
characters of a name can be in the training set and others in the test set.

U distinct windows (a context and its target), T context length, V vocabulary.
"""

import math
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from charlm.data.corpus import CHUNK, END
from charlm.data.permutation import Permutation
from charlm.data.windows import Windows
from charlm.fast.ngrams import discount_gradient, leave_one_out_statistics
from charlm.fast.rows import distinct
from charlm.fast.running import mean_loss
from charlm.models.kneser_ney import KneserNey, Tables

Integers = NDArray[np.integer]
Reals = NDArray[np.float64]

SAMPLE = 1 << 15
"""Maximum number of training windows used to fit the discounts."""

ROUNDS = 60
"""Number of updates of the discounts. More change the loss by less than 1e-4."""

WHOLE = np.array([1.0, 2.0, 3.0])
"""Upper bounds of the discounts."""


class NGrams:
    """The n-grams of the training windows, indexed once for tables of any order.

    Args:
        train: the training windows.
        vocab_size: V.
        order: the maximum order.
    """

    def __init__(self, train: Windows, vocab_size: int, order: int) -> None:
        self.vocab_size = vocab_size
        rows, self._windows = _counted(train, min(order, train.block_size))
        self._levels = list(_index_levels(rows, vocab_size))
        some = Permutation(len(train), seed=0)(np.arange(min(SAMPLE, len(train))))
        contexts, targets = train.batch(torch.from_numpy(some))
        self._sample = torch.cat([contexts, targets[:, None].int()], dim=1).numpy()

    def tables(self, order: int) -> Tables:
        """Return the counts of contexts of up to `order` tokens.

        The discounts maximize the likelihood of the training windows, each left out of the counts
        (leaving-one-out; Ney, Essen and Kneser 1995).
        """
        V, levels = self.vocab_size, self._levels[: order + 1]
        starts = np.cumsum([0, *(len(contexts) for contexts, _, _ in levels)])
        # Contexts and entries are i * V + token within a level. Make i unique across levels.
        parents = [
            contexts // V + start
            for (contexts, _, _), start in zip(levels[1:], starts, strict=False)
        ]
        owners = [
            entries // V + start for (_, entries, _), start in zip(levels, starts, strict=False)
        ]
        every = np.arange(starts[-1] + 1)
        begins = np.searchsorted(np.concatenate(owners), every)
        counts = np.concatenate([self._counts(length, order) for length in range(len(levels))])
        arrays = (
            1 + np.searchsorted(np.concatenate([every[:0], *parents]), every),
            np.concatenate([contexts % V for contexts, _, _ in levels]),
            begins,
            np.concatenate([entries % V for _, entries, _ in levels]),
            counts,
        )
        trie = [array.astype(np.int32) for array in arrays]
        discounts = _fit(leave_one_out_statistics(self._sample, len(levels), *trie), V)
        lengths = np.repeat(np.arange(len(levels)), [len(entries) for _, entries, _ in levels])
        taken = discounts[lengths, np.minimum(counts, 3) - 1]
        sums = [np.add.reduceat(array, begins[:-1]) for array in (trie[-1], taken)]
        return Tables(*map(torch.from_numpy, (*trie, *sums, discounts)))

    def _counts(self, length: int, order: int) -> Integers:
        """Return n(c, w) of the entries (G,) of a context length, in tables of an order."""
        _, entries, inverse = self._levels[length]
        whole, longer = inverse >= 0, inverse[:0]  # whole: windows without a longer context
        if length < order and length + 1 < len(self._levels):
            _, longer_entries, longer_inverse = self._levels[length + 1]
            whole &= longer_inverse < 0
            longer = inverse[_some_row(longer_inverse, len(longer_entries))]
        counts = np.bincount(longer, minlength=len(entries)).astype(np.int64)
        windows = np.bincount(inverse[whole], self._windows[whole], len(entries))
        return counts + windows.astype(np.int64)


def count(model: KneserNey, train: Windows) -> None:
    """Count the training windows, up to the highest order of the model."""
    model.tables = NGrams(train, model.vocab_size, model.highest).tables(model.highest)


def count_by_order(
    model: KneserNey, train: Windows, val: Windows, orders: Iterable[int]
) -> Iterator[tuple[int, float]]:
    """Count n-grams up to each order; yield the order and its validation loss.

    In the end, the model has the tables with the lowest loss.
    """
    ngrams, lowest, best = NGrams(train, model.vocab_size, model.highest), math.inf, model.tables
    for order in orders:
        model.tables = ngrams.tables(order)
        loss = mean_loss(model, val)
        if loss < lowest:
            lowest, best = loss, model.tables
        yield order, loss
    model.tables = best


def _fit(statistics: Integers, vocab_size: int) -> Reals:
    """Return the discounts (L + 1, 3) that maximize the likelihood of left-out windows.

    By Rprop (Riedmiller and Braun 1993), which uses only the signs of the gradient. The variables
    are the discounts as fractions of their upper bounds.
    """
    fractions = np.full((statistics.shape[1], 3), 0.5)
    steps, before = np.full(fractions.shape, 0.1), np.zeros(fractions.shape)
    for _ in range(ROUNDS):
        sign = np.sign(discount_gradient(statistics, fractions * WHOLE, vocab_size))
        change = np.select([sign * before > 0, sign * before < 0], [1.2, 0.5], 1.0)
        steps, before = np.clip(steps * change, 1e-4, 0.2), sign
        fractions = np.clip(fractions - sign * steps, 0.01, 0.99)
    found: Reals = fractions * WHOLE
    return found


def _distinct(windows: Windows, order: int) -> Iterator[tuple[Integers, Integers]]:
    """Yield, for each chunk, its distinct rows (U, order + 1) and the row index of each window."""
    for start in range(0, len(windows), CHUNK):
        contexts, targets = windows.batch(slice(start, start + CHUNK))
        nearest = contexts[:, contexts.shape[1] - order :]
        rows, inverse = distinct(torch.cat([nearest, targets[:, None].int()], dim=1))
        yield rows.numpy(), inverse.numpy()


def _counted(windows: Windows, order: int) -> tuple[Integers, Integers]:
    """Return the distinct rows (U, order + 1) of all windows, and the count of each (U,)."""
    rows = torch.empty((0, order + 1), dtype=torch.int32)
    counts: Integers = np.empty(0, dtype=np.int64)
    for more, index in _distinct(windows, order):
        repeated = np.concatenate([counts, np.bincount(index)])
        rows, inverse = distinct(torch.cat([rows, torch.from_numpy(more)]))
        counts = np.bincount(inverse.numpy(), repeated).astype(np.int64)
    return rows.numpy(), counts


def _index_levels(rows: Integers, vocab_size: int) -> Iterator[tuple[Integers, Integers, Integers]]:
    """Index the contexts and entries of the rows, from the empty context to the longest.

    For each context length, yields the contexts (C,), the entries (G,), and the entry of each row
    (U,), or -1 if its context would extend past the first padding token. A context is encoded as
    i * V + its first token, where i is the index of the context without it. An entry is encoded as
    i * V + its token, where i is the index of its context. Indices are always below U, so only
    U * V must fit into an int64.
    """
    within = np.ones(len(rows), dtype=np.bool_)
    contexts: Integers = np.zeros(1, dtype=np.int64)
    context: Integers = np.zeros(len(rows), dtype=np.int32)  # the context of each row
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
    """Return the distinct pairs of the chosen rows, ascending, and each row's pair (U,) or -1."""
    pairs = context[chosen].astype(np.int64) * vocab_size + tokens[chosen]
    distinct_pairs, inverse = np.unique(pairs, return_inverse=True)
    indices = np.full(len(chosen), -1, dtype=np.int32)
    indices[chosen] = inverse
    return distinct_pairs, indices


def _some_row(inverse: Integers, count: int) -> Integers:
    """Return for each entry, 0 to `count` - 1, a row whose `inverse` (U,) is that entry (G,)."""
    rows = np.empty(count, dtype=np.int32)
    chosen = np.flatnonzero(inverse >= 0)
    rows[inverse[chosen]] = chosen
    return rows
