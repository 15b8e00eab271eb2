"""Find the most probable names of a model, exactly.

N beginnings of names, T context length, L characters of each beginning, V vocabulary.
"""

import math

import torch
from torch import Tensor

from charlm.data.corpus import END, Vocabulary
from charlm.fast.running import CHUNK, Model, Runner, as_runner, evaluating
from charlm.sampling.conditions import Conditions
from charlm.sampling.sampler import character_log_likelihoods, logits_of, outermost

BUDGET = 2**21
"""Number of beginnings of names after which to give up."""
LOWEST = -1e9
"""Lower bound on the initial threshold, for beginnings with a probability of 0."""
STEP = math.log(4)
"""Amount in nats by which to lower the threshold if there are too few names above it."""


@torch.inference_mode()
def most_probable_names(
    model: Model, vocabulary: Vocabulary, count: int, conditions: Conditions, block_size: int
) -> list[str]:
    """Return the `count` most probable names that meet the conditions, the most probable first.

    A name is never more probable than its beginnings. So extending all beginnings above a
    threshold, one character at a time, finds every name above it. The threshold is lowered until
    there are enough names. Names are not cut: they have at most `max_length` characters.

    Raises InputError if fewer than `count` names have a positive probability, or after `BUDGET`
    beginnings.
    """
    search = _Search(as_runner(model), vocabulary, count, conditions, block_size)
    with evaluating(search.runner.model):
        return search.run()


class _Search:
    """A search for the most probable names.

    Attributes:
        starts: log-likelihood of each prefix.
        tried: number of beginnings extended.
    """

    def __init__(
        self,
        runner: Runner,
        vocabulary: Vocabulary,
        count: int,
        conditions: Conditions,
        block_size: int,
    ) -> None:
        self.runner = runner
        self.vocabulary = vocabulary
        self.count = count
        self.conditions = conditions
        self.block_size = block_size
        self.tried = 0
        prefixes = [prefix for prefix in outermost(conditions.starts()) if prefix]
        every = character_log_likelihoods(runner, vocabulary, prefixes, block_size)
        sums = [math.fsum(each[:-1]) for each in every]
        self.starts = dict(zip(prefixes, sums, strict=True)) or {"": 0.0}

    def run(self) -> list[str]:
        """Lower the threshold until there are enough names above it."""
        total = torch.tensor(list(self.starts.values()), dtype=torch.float64).logsumexp(0).item()
        threshold = max(total, LOWEST) - math.log(self.count)
        found: list[str] = []
        while True:
            found, is_all = self._names_above(threshold, len(found))
            if len(found) == self.count:
                return found
            if is_all:
                advice = {
                    "raise max_length": self.conditions.length is None,
                    "shorten the prefix": any(self.starts),
                }
                raise self.conditions.too_few(
                    "a search of all names", len(found), self.count, advice
                )
            threshold -= STEP

    def _names_above(self, threshold: float, sure: int) -> tuple[list[str], bool]:
        """Return the top `count` names above a threshold, and whether there are no others.

        Once there are enough, the threshold rises to the lowest of them. `sure` is the number of
        names found earlier, for the error message.
        """
        _, longest = self.conditions.lengths
        found: dict[str, float] = {}
        is_all = True
        tokens, values = self._starts_of(0)  # (N, T + L), with padding in front; (N,)
        for length in range(longest + 1):
            above = values >= threshold
            is_all &= not (values[~above] > -torch.inf).any()
            tokens, values = tokens[above], values[above]
            self._try(len(tokens), sure)
            following = [self._starts_of(length + 1)]
            for first in range(0, len(tokens), CHUNK):
                some = tokens[first : first + CHUNK]
                after = self._continued(some, values[first : first + CHUNK], length)  # (N, V)
                above = after >= threshold
                is_all &= not (after[~above] > -torch.inf).any()
                found |= self._names(some[above[:, END]], after[above[:, END], END])
                rows, added = torch.nonzero(above[:, END + 1 :], as_tuple=True)
                added += END + 1
                longer = torch.cat([some[rows], added[:, None].int()], dim=1)
                following.append((longer, after[rows, added]))
            tokens = torch.cat([some for some, _ in following])
            values = torch.cat([their for _, their in following])
            found = dict(sorted(found.items(), key=_by_value)[: self.count])
            if len(found) == self.count:
                threshold = max(threshold, min(found.values()))
        return list(found), is_all

    def _try(self, number: int, sure: int) -> None:
        """Count beginnings to extend. Raises InputError if there are more than `BUDGET`."""
        self.tried += number
        if self.tried > BUDGET:
            tried = f"a search of {BUDGET:,} beginnings of names"
            raise self.conditions.too_few(tried, sure, self.count, {"give a longer prefix": True})

    def _names(self, tokens: Tensor, values: Tensor) -> dict[str, float]:
        """Return the log-likelihood of each name in tokens (N, T + L) that meets the conditions."""
        if len(tokens) == 0:
            return {}
        names = self.vocabulary.decode_all(tokens[:, self.block_size :].numpy())
        value_of = dict(zip(names, values.tolist(), strict=True))
        return {name: value_of[name] for name in self.conditions.meeting(names)}

    def _continued(self, tokens: Tensor, values: Tensor, length: int) -> Tensor:
        """Return the log-likelihoods (N, V) of the beginnings extended by each token, float64.

        They are -inf for an end that makes a name too short, and for a character that makes it
        too long.
        """
        shortest, longest = self.conditions.lengths
        logits = logits_of(self.runner, tokens[:, -self.block_size :])
        after = values[:, None] + logits.double().log_softmax(1)
        if length < shortest:
            after[:, END] = -torch.inf
        if length == longest:
            after[:, END + 1 :] = -torch.inf
        return after

    def _starts_of(self, length: int) -> tuple[Tensor, Tensor]:
        """Return the prefixes of `length` characters (N, T + L) and their log-likelihoods (N,)."""
        starts = {start: value for start, value in self.starts.items() if len(start) == length}
        padding = [END] * self.block_size
        rows = [padding + self.vocabulary.encode(start) for start in starts]
        tokens = torch.tensor(rows, dtype=torch.int32).view(-1, self.block_size + length)
        return tokens, torch.tensor(list(starts.values()), dtype=torch.float64)


def _by_value(item: tuple[str, float]) -> tuple[float, str]:
    name, value = item
    return -value, name
