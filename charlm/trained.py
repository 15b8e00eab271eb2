"""A trained model that samples and scores names, as `charlm.load` returns it."""

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
from charlm.names.invisible import clean
from charlm.sampling.sampler import AT_ONCE, character_log_likelihoods, sample_names

FIRST_ROUND = 1024
"""Names to sample in the first round for novel names; each further round doubles it."""
PATIENCE = 500_000
"""Samples after which to give up if no novel name was found."""
RARE = 1000
"""Additional samples allowed for each novel name found."""


@dataclass(frozen=True)
class Score:
    """The likelihood of a name under a model.

    Attributes:
        name: in the model's characters.
        log_likelihoods: (len(name) + 1,) in nats, of each character given those before it, and
            of the end.
    """

    name: str
    log_likelihoods: tuple[float, ...]

    @property
    def log_likelihood(self) -> float:
        """Return the log-likelihood of the whole name, including its end, in nats."""
        return math.fsum(self.log_likelihoods)

    @property
    def nats_per_character(self) -> float:
        """Return the mean loss per character, counting the end as one as everywhere here."""
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

    Input is converted to the model's characters (see `charlm.folding`), such as "zoë" to "ZOE".
    Everything runs on the CPU in one thread, the fastest choice for models of this size; after
    `charlm.core.pinning.pin_kernels` the results are the same on every machine.

    Attributes:
        model: any module that maps contexts (N, T) of tokens to logits (N, V) of the next token.
        vocabulary: the characters of the tokens.
        block_size: T.
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
        prefix: str = "",
        count: int = 20,
        temperature: float = 1.0,
        seed: int = 1,
        max_length: int = 30,
        novel_to: Iterable[str] | None = None,
    ) -> list[str]:
        """Sample `count` names; the same arguments give the same names.

        Args:
            prefix: the beginning of every name.
            count: number of names, from 1 to 100,000,000.
            temperature: divides the logits; below 1 gives more likely names, above 1 more unusual
                ones.
            seed: random seed. The seed and settings of the pipeline give the names of its stage
                `sample`.
            max_length: names are cut at this many characters.
            novel_to: names to exclude. If given, even if empty, the sampled names are distinct;
                otherwise likely names may repeat.

        Raises:
            InputError: an argument is out of range, the prefix cannot be read or is longer than
                `max_length`, or there seem to be fewer novel names than requested.
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
        # The same stream as in the stage `sample`, which names models by their module.
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
        """Score each of `names`.

        Raises InputError if a name is empty or cannot be converted to the model's characters.
        """
        read = [self.fold(clean(name)) for name in names]
        if "" in read:
            raise InputError("a name is empty; leave it out")
        with _one_thread():
            every = character_log_likelihoods(self._runner, self.vocabulary, read, self.block_size)
        return [Score(name, each) for name, each in zip(read, every, strict=True)]

    def fold(self, text: str) -> str:
        """Convert `text` to the model's characters, by `charlm.folding`.

        Raises InputError if it has no reading in them, or several.
        """
        return fold(text, self._characters)

    @cached_property
    def _runner(self) -> Runner:
        return Runner(self.model)

    @cached_property
    def _characters(self) -> frozenset[str]:
        return frozenset(self.vocabulary.characters)

    def _readable(self, names: Iterable[str], start: str) -> set[str]:
        """Return the names that start with `start`, in the model's characters."""
        readable = set()
        for name in names:
            with suppress(InputError):
                if (read := self.fold(clean(name))).startswith(start):
                    readable.add(read)
        return readable


def _too_few(found: int, drawn: int) -> str:
    less = f"lower the count to {found:,}, " if found else ""
    return (
        f"{drawn:,} samples gave only {found:,} distinct novel names; "
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
