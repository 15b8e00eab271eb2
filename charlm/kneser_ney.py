"""Interpolated Kneser-Ney: what counting alone comes to, for a net to be held against.

Chen and Goodman (1999), section 3, with modified discounts. Libraries that have it (NLTK, KenLM)
count whole sentences; here single windows are dealt out to training and test, so that of a name
some characters are counted and others are not.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from charlm.corpus import CHUNK
from charlm.sharing import distinct
from charlm.windows import Windows

Integers = NDArray[np.int64]
Reals = NDArray[np.float64]

ORDER = 5
"""Tokens of context, the best on validation windows of French names (EXPERIMENTS.md)."""

AT_ONCE = 1 << 20
"""Probabilities worked out at a time."""


@dataclass(frozen=True)
class Level:
    """What was seen after contexts of one length, and how the rest is left to shorter ones.

    Attributes:
        contexts: (S,) the contexts seen, ascending, each as the number of the context that is one
            token shorter, times V, and the token before it.
        begins: (S + 1,) where in the entries those of each context begin.
        tokens: (E,) the tokens seen after each context, ascending.
        shares: (E,) the discounted probability of each.
        left: (S,) what the discounts leave to the next shorter context.
    """

    contexts: Integers
    begins: Integers
    tokens: Integers
    shares: Reals
    left: Reals


@dataclass(frozen=True)
class KneserNey:
    """A language model of counts of the last few tokens and what followed.

    p(w | c) = (n(c, w) - D) / n(c) + left(c) p(w | c without its first token), down to the empty
    context and beyond it to 1 / V. For the longest
    contexts n counts windows; for shorter ones it counts the different tokens in front with which
    they were seen. (That goes for padding too: with windows counted where padding is in front, as
    KenLM does, the loss is higher. EXPERIMENTS.md, 2026-11-25.)

    Attributes:
        vocab_size: V.
        levels: for contexts of 0, 1, ... tokens.
    """

    vocab_size: int
    levels: Sequence[Level]

    @property
    def parameters(self) -> int:
        """How many numbers come from counting: those of each context and token seen."""
        return sum(len(level.shares) for level in self.levels)

    def probs(self, contexts: Integers) -> Reals:
        """(N, V) the probability of each token after contexts (N, T)."""
        N, V = len(contexts), self.vocab_size
        probs = np.full((N, V), 1 / V)
        number = np.zeros(N, dtype=np.int64)  # of each one's context, or -1 for one never seen
        for length, level in enumerate(self.levels):
            if length:
                number = _find(level.contexts, number, contexts[:, -length], V)
            rows = np.flatnonzero(number >= 0)
            its = number[rows]
            probs[rows] *= level.left[its, None]
            counts = level.begins[its + 1] - level.begins[its]
            offsets = np.arange(counts.sum()) - np.repeat(counts.cumsum() - counts, counts)
            entries = np.repeat(level.begins[its], counts) + offsets
            probs[np.repeat(rows, counts), level.tokens[entries]] += level.shares[entries]
        return probs

    def score(self, windows: Windows) -> tuple[Tensor, Tensor]:
        """(W,) losses in nats, and (W,) the chance that the likeliest token is the target.

        That chance is 0 or 1, but for tokens that are equally likely.
        """
        losses, chances = [], []
        at_once = max(1, AT_ONCE // self.vocab_size)
        for start in range(0, len(windows), CHUNK):
            contexts, targets = windows.batch(slice(start, start + CHUNK))
            different, place = distinct(contexts[:, -self._length :])
            order = np.argsort(place.numpy(), kind="stable")
            sizes = np.bincount(place.numpy(), minlength=len(different))
            ends = sizes.cumsum()
            loss, chance = np.empty(len(place)), np.empty(len(place))
            for first in range(0, len(different), at_once):
                last = min(first + at_once, len(different))
                probs = self.probs(different[first:last].numpy().astype(np.int64))
                these = order[ends[first] - sizes[first] : ends[last - 1]]
                rows, their = place.numpy()[these] - first, targets.numpy()[these]
                most = probs.max(axis=1)
                ties = (probs == most[:, None]).sum(axis=1)
                found = probs[rows, their]
                loss[these] = -np.log(found)
                chance[these] = (found == most[rows]) / ties[rows]
            losses.append(torch.from_numpy(loss))
            chances.append(torch.from_numpy(chance))
        return torch.cat(losses), torch.cat(chances)

    @property
    def _length(self) -> int:
        return max(1, len(self.levels) - 1)


def count_kneser_ney(train: Windows, vocab_size: int, order: int = ORDER) -> KneserNey:
    """Count the training windows; contexts of `order` tokens, or as many as a window has."""
    V, length = vocab_size, min(order, train.block_size)
    tokens, targets = _tokens(train, length)
    entries = np.zeros(len(targets), dtype=np.int64)  # the number of each window's context
    known: list[tuple[Integers, Integers, Integers]] = []  # contexts, and entries with their counts
    for k in range(length + 1):
        seen = np.zeros(1, dtype=np.int64)
        if k:
            seen, entries = np.unique(entries * V + tokens[:, -k], return_inverse=True)
        known.append((seen, *np.unique(entries * V + targets, return_counts=True)))
    levels = []
    for k, (seen, pairs, numbers) in enumerate(known):
        counts = numbers
        if k < length:
            longer, its_pairs, _ = known[k + 1]
            shorter = longer[its_pairs // V] // V * V + its_pairs % V
            counts = np.bincount(np.searchsorted(pairs, shorter), minlength=len(pairs))
        levels.append(_level(seen, pairs // V, pairs % V, counts))
    return KneserNey(V, levels)


def _tokens(windows: Windows, length: int) -> tuple[NDArray[np.integer], NDArray[np.integer]]:
    """The last tokens (W, length) of all contexts, and the targets (W,), as the stream has them."""
    kind = windows.stream.numpy().dtype
    tokens = np.empty((len(windows), length), dtype=kind)
    targets = np.empty(len(windows), dtype=kind)
    for start in range(0, len(windows), CHUNK):
        chunk = slice(start, start + CHUNK)
        contexts, targets[chunk] = windows.batch(chunk)
        tokens[chunk] = contexts[:, contexts.shape[1] - length :]
    return tokens, targets


def _level(contexts: Integers, context: Integers, tokens: Integers, counts: Integers) -> Level:
    """The shares of entries (E,) of which each has a context, a token and a count."""
    taken = _discounts(counts)[np.minimum(counts, 3) - 1]
    total = np.bincount(context, counts, len(contexts))
    begins = np.searchsorted(context, np.arange(len(contexts) + 1))
    left = np.bincount(context, taken, len(contexts)) / total
    return Level(contexts, begins, tokens, (counts - taken) / total[context], left)


def _discounts(counts: Integers) -> Reals:
    """What is taken off a count of 1, of 2, and of 3 or more.

    Chen and Goodman (1999), section 3; where there are too few counts for them to lie between
    0 and the count, one for all (Ney et al. 1994), or a half.
    """
    n1, n2, n3, n4 = (int((counts == i).sum()) for i in (1, 2, 3, 4))
    single = n1 / (n1 + 2 * n2) if n1 and n2 else 0.5
    if not (n1 and n2 and n3):
        return np.full(3, single)
    found = [1 - 2 * single * n2 / n1, 2 - 3 * single * n3 / n2, 3 - 4 * single * n4 / n3]
    return np.array([d if 0 < d < i else single for i, d in enumerate(found, start=1)])


def _find(contexts: Integers, shorter: Integers, token: Integers, vocab_size: int) -> Integers:
    """The numbers of contexts (N,), from those of the one token shorter and the token in front."""
    wanted = shorter * vocab_size + token
    place = np.searchsorted(contexts, wanted).clip(max=len(contexts) - 1)
    return np.where((shorter >= 0) & (contexts[place] == wanted), place, -1)
