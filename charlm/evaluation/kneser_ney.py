"""Interpolated modified Kneser-Ney: what counting alone comes to, for a net to be held against.

Chen and Goodman (1999), section 3, give the probability of a token w after a context c as

    P(w | c) = (n(c, w) - D) / n(c) + left(c) P(w | c without its first token),

down to the empty context and beyond it to 1 / V. Of every count a discount D is taken: one for a
count of 1, another for 2, a third for 3 and more. left(c) is their share of n(c), so that the sum
over w is one. For the longest contexts n counts windows; for shorter ones it counts the different
tokens in front with which they were seen.

In front of a name there is padding only, which says one thing, that here the name starts,
and says it once: no context reaches past its first padding, and where one begins with it, n counts
windows, as SRILM and KenLM count after the start of a sentence. With each token of the padding
taken for a token of the context, longer contexts and lists of short names lose much
(EXPERIMENTS.md, 2026-11-25).

Libraries that have it (NLTK, KenLM) count whole sentences; here single windows are dealt out to
training and test, so that of a name some characters are counted and others are not.

Sizes: U distinct windows, each a row of a context and its target; C contexts of one length; G
entries, which are the pairs of such a context and a token that followed.
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
"""Tokens of context, the best on validation windows of French names (EXPERIMENTS.md)."""


@dataclass(frozen=True, eq=False)
class Level:
    """What was seen after contexts of one length, and how the rest is left to shorter ones.

    Attributes:
        contexts: (C,) ascending, each as the number of the context that is one token shorter,
            times V, and the token in front of that.
        entries: (G,) ascending, each as the number of a context, times V, and the token after it.
        probs: (G,) of that token.
        left: (C,) what the discounts leave to the next shorter context.
        highest: (C,) the probability of the likeliest token,
        ties: (C,) and how many tokens have it.
    """

    contexts: Integers
    entries: Integers
    probs: Reals
    left: Reals
    highest: Reals
    ties: Integers


@dataclass(frozen=True, eq=False)
class KneserNey:
    """A language model of counts of the last few tokens and what followed.

    Attributes:
        vocab_size: V.
        levels: for contexts of 0, 1, ... tokens, as far as there are any.
    """

    vocab_size: int
    levels: Sequence[Level]

    @property
    def order(self) -> int:
        """How many tokens of context are looked at, at most."""
        return len(self.levels) - 1

    @property
    def parameters(self) -> int:
        """How many numbers come from counting: those of each context and token seen."""
        return sum(len(level.entries) for level in self.levels)

    def probs(self, contexts: Integers) -> Reals:
        """(N, V) the probability of each token after contexts (N, T)."""
        N, V = len(contexts), self.vocab_size
        tokens = np.tile(np.arange(V), N)
        rows = np.column_stack([np.repeat(contexts, V, axis=0), tokens])
        return self._look_up(rows)[0].reshape(N, V)

    def score(self, windows: Windows) -> tuple[Tensor, Tensor]:
        """(W,) losses in nats, and (W,) the chance that the likeliest token is the target.

        That chance is 0 or 1, but for tokens that are equally likely.
        """
        losses, chances = np.empty((2, len(windows)))
        done = 0
        for rows, place in _distinct(windows, self.order):
            probs, highest, ties = self._look_up(rows)
            chunk = slice(done, done + len(place))
            losses[chunk] = -np.log(probs)[place]
            chances[chunk] = ((probs == highest) / ties)[place]
            done += len(place)
        return torch.from_numpy(losses), torch.from_numpy(chances)

    def _look_up(self, rows: Integers) -> tuple[Reals, Reals, Integers]:
        """(U,) the probability of each row's token, the highest of any, and how many have that.

        The highest is found with no sum over V: see `_level`.
        """
        V = self.vocab_size
        probs, highest = np.full((2, len(rows)), 1 / V)
        ties = np.full(len(rows), V)
        known = np.arange(len(rows))  # the rows whose contexts were seen
        number: Integers = np.zeros(len(rows), dtype=np.int64)  # of their contexts
        for length, level in enumerate(self.levels):
            if length:
                place, seen = _find(level.contexts, number * V + rows[known, -1 - length])
                known, number = known[seen], place[seen]
            place, seen = _find(level.entries, number * V + rows[known, -1])
            of_unseen = level.left[number] * probs[known]
            probs[known] = np.where(seen, level.probs[place], of_unseen)
            highest[known], ties[known] = level.highest[number], level.ties[number]
        return probs, highest, ties


def count_kneser_ney(train: Windows, vocab_size: int, order: int = ORDER) -> KneserNey:
    """Count the training windows; contexts of `order` tokens, or as many as a window has."""
    rows, windows = _counted(train, min(order, train.block_size))
    known = list(_number(rows, vocab_size))
    shorter = Level(  # than the empty context: all tokens are equally likely
        contexts=np.zeros(1, dtype=np.int64),
        entries=np.zeros(1, dtype=np.int64),
        probs=np.full(1, 1 / vocab_size),
        left=np.ones(1),
        highest=np.full(1, 1 / vocab_size),
        ties=np.full(1, vocab_size),
    )
    place_in_shorter: Integers = np.zeros(len(rows), dtype=np.int32)
    levels = []
    for length, (contexts, entries, place) in enumerate(known):
        at_longest, longer = place >= 0, place[:0]
        if length + 1 < len(known):
            _, longer_entries, longer_place = known[length + 1]
            at_longest &= longer_place < 0  # nothing to count in front of these but padding
            longer = place[_some_row(longer_place, len(longer_entries))]
        counts = np.bincount(place[at_longest], windows[at_longest], len(entries)).astype(np.int64)
        counts += np.bincount(longer, minlength=len(entries))
        probs = shorter.probs[place_in_shorter[_some_row(place, len(entries))]]
        shorter = _level(contexts, entries, counts, probs, shorter, vocab_size)
        place_in_shorter = place
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
    """A level from its counts (G,), and the probabilities (G,) after contexts one token shorter.

    The likeliest token of a context is one that was seen after it, or the likeliest after the
    shorter context. Where both are equally likely, no token that was seen is among the likeliest
    after the shorter one, since it would be likelier here: so none is counted twice in a tie.
    """
    context, its_shorter = entries // vocab_size, contexts // vocab_size
    taken = _discounts(counts)[np.minimum(counts, 3) - 1]
    total = np.bincount(context, counts)
    left = np.bincount(context, taken) / total
    probs = (counts - taken) / total[context] + left[context] * probs
    begins = np.searchsorted(context, np.arange(len(contexts)))
    of_unseen = left * shorter.highest[its_shorter]
    highest = np.maximum(np.maximum.reduceat(probs, begins), of_unseen)
    ties = np.bincount(context[probs == highest[context]], minlength=len(contexts))
    ties += np.where(of_unseen == highest, shorter.ties[its_shorter], 0)
    return Level(contexts, entries, probs, left, highest, ties)


def _discounts(counts: Integers) -> Reals:
    """What is taken off a count of 1, of 2, and of 3 or more.

    D_j = j - (j + 1) Y n_{j+1} / n_j with Y = n_1 / (n_1 + 2 n_2), where n_j of the counts are j
    (Chen and Goodman 1999, section 3). Where one of n_1 to n_4 is zero, or a discount would be
    negative, all three are Y (Ney et al. 1994), and where n_1 or n_2 is zero, a half.
    """
    n1, n2, n3, n4 = (int((counts == j).sum()) for j in (1, 2, 3, 4))
    single = n1 / (n1 + 2 * n2) if n1 and n2 else 0.5
    if not (n1 and n2 and n3 and n4):
        return np.full(3, single)
    found = [1 - 2 * single * n2 / n1, 2 - 3 * single * n3 / n2, 3 - 4 * single * n4 / n3]
    return np.array(found) if min(found) > 0 else np.full(3, single)


def _distinct(windows: Windows, order: int) -> Iterator[tuple[Integers, Integers]]:
    """The distinct rows (U, order + 1) of each chunk of windows, and the row of each window."""
    for start in range(0, len(windows), CHUNK):
        contexts, targets = windows.batch(slice(start, start + CHUNK))
        nearest = contexts[:, contexts.shape[1] - order :]
        rows, place = distinct(torch.cat([nearest, targets[:, None].int()], dim=1))
        yield rows.numpy(), place.numpy()


def _counted(windows: Windows, order: int) -> tuple[Integers, Integers]:
    """(U, order + 1) the distinct rows of all windows, and (U,) how many windows have each."""
    rows = torch.empty((0, order + 1), dtype=torch.int32)
    counts: Integers = np.empty(0, dtype=np.int64)
    for more, of_more in _distinct(windows, order):
        repeated = np.concatenate([counts, np.bincount(of_more)])
        rows, place = distinct(torch.cat([rows, torch.from_numpy(more)]))
        counts = np.bincount(place.numpy(), repeated).astype(np.int64)
    return rows.numpy(), counts


def _number(rows: Integers, vocab_size: int) -> Iterator[tuple[Integers, Integers, Integers]]:
    """Number the contexts and entries of rows, from the empty context to the longest.

    Yields (C,) and (G,) as in `Level`, and (U,) the entry of each row, or -1 where the padding
    begins before. The number of a context is less than U, whatever its length: U * V must
    fit into an int64, and nothing more.
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
            contexts, context = _numbers(context, rows[:, -1 - length], within, vocab_size)
        yield contexts, *_numbers(context, rows[:, -1], within, vocab_size)


def _numbers(
    context: Integers, tokens: Integers, chosen: NDArray[np.bool_], vocab_size: int
) -> tuple[Integers, Integers]:
    """The distinct pairs, ascending, of the rows chosen, and (U,) the number of each or -1."""
    pairs = context[chosen].astype(np.int64) * vocab_size + tokens[chosen]
    different, place = np.unique(pairs, return_inverse=True)
    numbers = np.full(len(chosen), -1, dtype=np.int32)
    numbers[chosen] = place
    return different, numbers


def _some_row(place: Integers, count: int) -> Integers:
    """(G,) a row for each of the numbers 0 to `count` - 1 that `place` (U,) gives."""
    rows = np.empty(count, dtype=np.int32)
    chosen = np.flatnonzero(place >= 0)
    rows[place[chosen]] = chosen
    return rows


def _find(ascending: Integers, wanted: Integers) -> tuple[Integers, NDArray[np.bool_]]:
    """(N,) where each of `wanted` is, and whether it is there at all."""
    place = np.minimum(np.searchsorted(ascending, wanted), len(ascending) - 1)
    return place, ascending[place] == wanted
