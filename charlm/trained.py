"""A trained model that samples and scores names, as returned by `charlm.load`."""

import math
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from pathlib import Path

import torch
from torch import nn

from charlm.core.errors import InputError
from charlm.core.randomness import generator
from charlm.data import checkpoint
from charlm.data.corpus import Vocabulary
from charlm.evaluation.metrics import perplexity
from charlm.fast.running import Runner
from charlm.folding import fold
from charlm.models.base import build
from charlm.names.invisible import clean
from charlm.sampling.conditions import Conditions, sample_fitting
from charlm.sampling.sampler import (
    AT_ONCE,
    as_several,
    character_log_likelihoods,
    sample_names,
)
from charlm.sampling.search import most_probable_names

MOST = 10**8
"""The largest number of names per call."""


@dataclass(frozen=True)
class Score:
    """The likelihood of a name under a model.

    Attributes:
        name: the name, in the model's characters.
        log_likelihoods: (len(name) + 1,) log-likelihood in nats of each character given the
            characters before it, and of the end.
    """

    name: str
    log_likelihoods: tuple[float, ...]

    @property
    def log_likelihood(self) -> float:
        """Return the log-likelihood of the whole name, including its end, in nats."""
        return math.fsum(self.log_likelihoods)

    @property
    def nats_per_character(self) -> float:
        """Return the mean loss per character, counting the end as a character."""
        return -self.log_likelihood / len(self.log_likelihoods)

    @property
    def bits_per_character(self) -> float:
        return self.nats_per_character / math.log(2)

    @property
    def perplexity(self) -> float:
        """Return the exponential of `nats_per_character`."""
        return perplexity(self.nats_per_character)


@dataclass(frozen=True)
class TrainedModel:
    """A model that samples and scores names.

    Input is converted to the model's characters, for example "zoë" to "ZOE" (see
    `charlm.folding`). Everything runs on the CPU in one thread, which is fastest for models of
    this size. Call `charlm.core.pinning.pin_kernels` first to get the same results on every
    machine.

    Attributes:
        model: a module that maps contexts (N, T) of tokens to logits (N, V) of the next token.
        vocabulary: the V tokens.
        block_size: the context length T.
    """

    model: nn.Module
    vocabulary: Vocabulary
    block_size: int

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "TrainedModel":
        """Load a checkpoint; see `charlm.load`."""
        loaded = checkpoint.load(Path(path), build)
        return cls(loaded.model, loaded.vocabulary, loaded.model.hyperparameters["block_size"])

    def sample(
        self,
        *,
        prefix: str | Iterable[str] = "",
        suffix: str = "",
        length: int | tuple[int, int] | None = None,
        count: int = 20,
        temperature: float = 1.0,
        seed: int = 1,
        max_length: int = 30,
        novel_to: Iterable[str] | None = None,
        unlike: int | None = None,
    ) -> list[str]:
        """Sample `count` names. The same arguments give the same names.

        The names follow the model's exact distribution, at this temperature, over the names that
        meet the conditions.

        Args:
            prefix: text that every name begins with, or several texts. The proportions of
                several prefixes are those of the model.
            suffix: text that every name ends with.
            length: number of characters of every name, or a range (shortest, longest).
            count: number of names, from 1 to 100,000,000.
            temperature: divides the logits; below 1 gives more likely names, above 1 more unusual
                ones.
            seed: random seed. The seed and the settings of the pipeline give the names that its
                stage `sample` writes.
            max_length: names are cut at this many characters. With a suffix or a length, longer
                names are rejected instead.
            novel_to: names to exclude. If given, even if empty, the sampled names are distinct.
                Otherwise they can repeat.
            unlike: minimum edit distance (Levenshtein, in characters) from every name in
                `novel_to`.

        Raises:
            InputError: an argument is out of range or cannot be read, no name can meet the
                conditions, or too few samples do.
        """
        conditions = self._conditions(prefix, suffix, length, max_length, novel_to, unlike)
        return list(self._sampled(conditions, count, temperature, seed))

    def iterate(
        self,
        *,
        prefix: str | Iterable[str] = "",
        suffix: str = "",
        length: int | tuple[int, int] | None = None,
        count: int = 20,
        temperature: float = 1.0,
        seed: int = 1,
        max_length: int = 30,
        novel_to: Iterable[str] | None = None,
        unlike: int | None = None,
    ) -> Iterator[str]:
        """Sample the names that `sample` returns, one by one.

        Memory does not grow with `count`, except with `suffix`, `length` or `novel_to`: then all
        names are sampled before the first one is returned.

        Raises InputError as `sample` does.
        """
        conditions = self._conditions(prefix, suffix, length, max_length, novel_to, unlike)
        return self._sampled(conditions, count, temperature, seed)

    def _sampled(
        self, conditions: Conditions, count: int, temperature: float, seed: int
    ) -> Iterator[str]:
        """Check the remaining arguments of `sample`, then sample names that meet `conditions`."""
        _check("count", count, 1, MOST)
        if not 0 < temperature <= 100:
            raise InputError(f"temperature is {temperature}; give a number above 0 and up to 100")
        _check("seed", seed, 0, 2**63 - 1)
        # The same random numbers as in the stage `sample`, which names models by their module.
        source = generator(seed, f"sample/{type(self.model).__module__.rpartition('.')[2]}")

        def draw(number: int) -> list[str]:
            with _one_thread():
                return sample_names(
                    self._runner,
                    self.vocabulary,
                    number,
                    block_size=self.block_size,
                    generator=source,
                    temperature=temperature,
                    prefix=conditions.starts(),
                    max_length=conditions.drawn_length,
                )

        if conditions.rejects:
            return iter(sample_fitting(draw, conditions, count))
        numbers = (min(AT_ONCE, count - first) for first in range(0, count, AT_ONCE))
        return chain.from_iterable(map(draw, numbers))

    def most_probable(
        self,
        count: int = 20,
        *,
        prefix: str | Iterable[str] = "",
        suffix: str = "",
        length: int | tuple[int, int] | None = None,
        max_length: int = 30,
        novel_to: Iterable[str] | None = None,
        unlike: int | None = None,
    ) -> list[Score]:
        """Return the most probable names at temperature 1, the most probable first.

        Args:
            count: number of names.
            prefix: text that every name begins with, or several texts.
            suffix: text that every name ends with.
            length: number of characters of every name, or a range (shortest, longest).
            max_length: maximum number of characters of a name; no name is cut.
            novel_to: names to exclude.
            unlike: minimum edit distance (Levenshtein, in characters) from every name in
                `novel_to`.

        Raises:
            InputError: an argument is out of range or cannot be read, there are fewer than
                `count` names, or finding them would take too long.
        """
        _check("count", count, 1, MOST)
        conditions = self._conditions(prefix, suffix, length, max_length, novel_to, unlike)
        with _one_thread():
            names = most_probable_names(
                self._runner, self.vocabulary, count, conditions, self.block_size
            )
            scores = self._scores(names)
        return sorted(scores, key=lambda score: -score.log_likelihood)

    def score(self, *names: str) -> list[Score]:
        """Return the likelihood of each of `names`.

        Raises InputError if a name is empty or cannot be converted to the model's characters.
        """
        read = [self.fold(clean(name)) for name in names]
        if "" in read:
            raise InputError("a name is empty; remove it")
        with _one_thread():
            return self._scores(read)

    def fold(self, text: str) -> str:
        """Convert `text` to the model's characters (see `charlm.folding`).

        Raises InputError if that is impossible or ambiguous.
        """
        return fold(text, self._characters)

    @cached_property
    def _runner(self) -> Runner:
        return Runner(self.model)

    @cached_property
    def _characters(self) -> frozenset[str]:
        return frozenset(self.vocabulary.characters)

    def _scores(self, names: list[str]) -> list[Score]:
        """Return the score of each of `names`, which must be in the model's characters."""
        every = character_log_likelihoods(self._runner, self.vocabulary, names, self.block_size)
        return [Score(name, each) for name, each in zip(names, every, strict=True)]

    def _conditions(
        self,
        prefix: str | Iterable[str],
        suffix: str,
        length: int | tuple[int, int] | None,
        max_length: int,
        novel_to: Iterable[str] | None,
        unlike: int | None,
    ) -> Conditions:
        """Check the conditions on names, and convert their texts to the model's characters."""
        _check("max_length", max_length, 1, 10**4)
        if unlike is not None:
            _check("unlike", unlike, 1, 100)
            if novel_to is None:
                raise InputError("unlike needs names to compare with; pass them as novel_to")
        prefixes = [self.fold(text) for text in as_several(prefix)]
        conditions = Conditions(
            prefixes, self.fold(suffix), _lengths(length), max_length, unlike=unlike or 1
        )
        if novel_to is None:
            return conditions
        return replace(conditions, known=self._known(novel_to, conditions))

    def _known(self, names: Iterable[str], conditions: Conditions) -> set[str]:
        """Return the names that the conditions need, as the model reads them."""
        starts = tuple(conditions.prefixes)
        known = set()
        for name in map(clean, names):
            # A name that cannot be read is never sampled, but can be close to one that is.
            read = name
            with suppress(InputError):
                read = self.fold(name)
            if conditions.unlike > 1 or read.startswith(starts):
                known.add(read)
        return known


def _check(name: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        shown = "2**63 - 1" if most == 2**63 - 1 else f"{most:,}"
        raise InputError(f"{name} is {value}; give an integer from {least} to {shown}")


def _lengths(length: int | tuple[int, int] | None) -> tuple[int, int] | None:
    """Return the range of lengths (shortest, longest)."""
    if length is None:
        return None
    shortest, longest = (length, length) if isinstance(length, int) else length
    if not 1 <= shortest <= longest:
        shown = shortest if isinstance(length, int) else f"{shortest}-{longest}"
        raise InputError(
            f"length is {shown}; give a positive integer, or a range from the shortest to the "
            "longest name, such as 3-7"
        )
    return shortest, longest


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
