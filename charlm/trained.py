"""A trained model in use: what `charlm.load` gives."""

import math
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
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
from charlm.sampling.sampler import AT_ONCE, character_log_likelihoods, sample_names

FIRST_ROUND = 1024
"""Names to draw first where new ones are wanted; twice as many in each round that follows."""
PATIENCE = 500_000
"""Draws without a single new name, after which there is taken to be none."""
RARE = 1000
"""Draws that each new name found is worth: how many more are made for it."""


@dataclass(frozen=True)
class Score:
    """How likely a model finds a name.

    Attributes:
        name: as the model reads it.
        log_likelihoods: (len(name) + 1,) in nats: of each character, given those before it, and
            of the end.
    """

    name: str
    log_likelihoods: tuple[float, ...]

    @property
    def log_likelihood(self) -> float:
        """Of the whole name, its end included, in nats."""
        return math.fsum(self.log_likelihoods)

    @property
    def nats_per_character(self) -> float:
        """The mean loss; the end counts as a character, as it does in every loss here."""
        return -self.log_likelihood / len(self.log_likelihoods)

    @property
    def bits_per_character(self) -> float:
        return self.nats_per_character / math.log(2)

    @property
    def perplexity(self) -> float:
        """Among how many equally likely characters the model might as well have had to choose."""
        return perplexity(self.nats_per_character)


@dataclass(frozen=True)
class TrainedModel:
    """A model that invents names and tells how likely a name is.

    Texts are read as `charlm.folding` says: "zoe" and "Zoë" mean names in the model's characters.
    Everything is computed on the CPU by one thread, which is the fastest for models of this size,
    and with `charlm.core.pinning.pin_kernels` the same on every machine.

    Attributes:
        model: any module from contexts (N, T) of tokens to logits (N, V) of the next token.
        vocabulary: what the tokens stand for.
        block_size: T.
    """

    model: nn.Module
    vocabulary: Vocabulary
    block_size: int

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "TrainedModel":
        """See `charlm.load`."""
        loaded = checkpoint.load(Path(path), build)
        return cls(loaded.model, loaded.vocabulary, loaded.model.hyperparameters["block_size"])

    def sample(
        self,
        *,
        prefix: str = "",
        count: int = 20,
        temperature: float = 1.0,
        seed: int = 1,
        max_length: int = 30,
        novel_to: Iterable[str] | None = None,
    ) -> list[str]:
        """Invent `count` names, the same ones for the same arguments.

        Args:
            prefix: what every name starts with.
            count: how many, from 1 to 100,000,000.
            temperature: divides the logits; below 1 plays safe, above 1 takes risks.
            seed: chooses the names. With the seed of the pipeline, and all else as there, they
                are those of its stage `sample`.
            max_length: characters after which a name is cut.
            novel_to: names that are not wanted. Where it is given, be it empty, the names drawn
                are all different too; else they are as drawn, and likely ones come repeatedly.

        Raises:
            InputError: an argument is out of its range, the prefix cannot be read or is longer
                than `max_length`, or there seem to be fewer novel names than asked for.
        """
        for name, value, fits, wanted in (
            ("count", count, 1 <= count <= 10**8, "a whole number from 1 to 100,000,000"),
            ("temperature", temperature, 0 < temperature <= 100, "a number above 0 and up to 100"),
            ("seed", seed, 0 <= seed < 2**63, "a whole number from 0 to 2**63 - 1"),
            ("max_length", max_length, 1 <= max_length <= 10**4, "a whole number from 1 to 10,000"),
        ):
            if not fits:
                raise InputError(f"{name} is {value}; give {wanted}")
        start = self.fold(prefix)
        # As the stage does, which calls a model by the name of its module.
        source = generator(seed, f"sample/{type(self.model).__module__.rpartition('.')[2]}")

        def draw(number: int) -> list[str]:
            return sample_names(
                self._runner,
                self.vocabulary,
                number,
                block_size=self.block_size,
                generator=source,
                temperature=temperature,
                prefix=start,
                max_length=max_length,
            )

        with _one_thread():
            if novel_to is None:
                return draw(count)
            unwanted = self._readable(novel_to, start)
            novel: dict[str, None] = {}
            drawn, number = 0, FIRST_ROUND
            while len(novel) < count:
                if drawn >= PATIENCE + RARE * len(novel):
                    raise InputError(_too_few(len(novel), drawn))
                novel |= dict.fromkeys(name for name in draw(number) if name not in unwanted)
                drawn, number = drawn + number, min(2 * number, AT_ONCE)
        return list(novel)[:count]

    def score(self, *names: str) -> list[Score]:
        """How likely each of `names` is.

        Raises InputError for one that is empty or cannot be read in the model's characters.
        """
        read = [self.fold(name.strip()) for name in names]
        if "" in read:
            raise InputError("a name is empty, which no name is; leave it out")
        with _one_thread():
            every = character_log_likelihoods(self._runner, self.vocabulary, read, self.block_size)
        return [Score(name, each) for name, each in zip(read, every, strict=True)]

    def fold(self, text: str) -> str:
        """`text` in the model's characters, by `charlm.folding`.

        Raises InputError where it has no reading in them, or several.
        """
        return fold(text, self._characters)

    @cached_property
    def _runner(self) -> Runner:
        return Runner(self.model)

    @cached_property
    def _characters(self) -> frozenset[str]:
        return frozenset(self.vocabulary.characters)

    def _readable(self, names: Iterable[str], start: str) -> set[str]:
        """Those of `names` that might be drawn, as they would be."""
        readable = set()
        for name in names:
            with suppress(InputError):
                if (read := self.fold(name.strip())).startswith(start):
                    readable.add(read)
        return readable


def _too_few(found: int, drawn: int) -> str:
    less = "lower the count to that, " if found else ""
    return (
        f"in {drawn:,} draws there were so many different novel names: {found:,}; "
        f"{less}raise the temperature or shorten the prefix"
    )


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
