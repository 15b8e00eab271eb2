"""Split the windows of a corpus into training, validation and test sets."""

import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from enum import IntEnum
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from charlm.core.errors import FileError, InputError
from charlm.core.files import load_arrays, save_metadata
from charlm.core.terminal import bar
from charlm.data.corpus import Corpus, Integers
from charlm.data.permutation import Permutation

Parts = NDArray[np.uint8]

FEW_WINDOWS = 100
"""With fewer test windows, the standard error of a test loss is usually above 0.1 nats."""


class Part(IntEnum):
    """The parts of a split, with their numbers in its arrays."""

    TRAIN = 0
    VAL = 1
    TEST = 2


@dataclass(frozen=True)
class Split:
    """A random split. The part of each window is computed on demand, not stored.

    The windows, or the names, are put in random order: first the training set, then the
    validation set, then the test set.

    Attributes:
        by: what is split. By window, as in the course, the windows of a name can be in different
            parts, so the test set contains parts of names that the model has seen. By name, all
            windows of a name are in the same part, so the test set contains only unseen names.
        seed: determines the order.
        train: number of windows or names in the training set.
        val: number in the validation set.
        test: number in the test set.
    """

    by: Literal["window", "name"]
    seed: int
    train: int
    val: int
    test: int

    def __post_init__(self) -> None:
        numbers = (self.seed, self.train, self.val, self.test)
        if self.by not in ("window", "name") or any(type(n) is not int or n < 0 for n in numbers):
            raise ValueError("not a description of a split")

    @cached_property
    def _order(self) -> Permutation:
        return Permutation(self.train + self.val + self.test, self.seed)

    def part_of(self, index: Integers) -> Parts:
        """Return the `Part` (N,) of the windows (or names, if split by name) with these indices."""
        rank = self._order(index)
        return (rank >= self.train).astype(np.uint8) + (rank >= self.train + self.val)

    def parts(self, corpus: Corpus) -> Iterator[tuple[Integers, Integers, Parts]]:
        """Yield all windows in order, in chunks.

        A chunk is the start of each context in the stream (n,), the index of its name (n,) and
        its `Part` (n,).
        """
        done = 0
        with bar("splitting the windows", len(corpus.stream), " tokens") as shown:
            for starts, names in corpus.chunks():
                if len(starts) == 0:
                    continue
                if self.by == "window":
                    parts = self.part_of(np.arange(done, done + len(starts)))
                else:
                    first, last = int(names[0]), int(names[-1])
                    parts = self.part_of(np.arange(first, last + 1))[names - first]
                done += len(starts)
                shown.update(int(starts[-1]) - shown.n)
                yield starts, names, parts

    def sizes(self, corpus: Corpus) -> dict[Part, int]:
        """Return the number of windows in each part."""
        if self.by == "window":
            return dict(zip(Part, (self.train, self.val, self.test), strict=True))
        counts = np.zeros(len(Part), dtype=np.int64)
        for _, _, parts in self.parts(corpus):
            counts += np.bincount(parts, minlength=len(Part))
        return dict(zip(Part, counts.tolist(), strict=True))


def split_windows(
    corpus: Corpus, by: Literal["window", "name"], train: float, val: float, seed: int
) -> Split:
    """Split the windows or names of a corpus at random by the given fractions.

    Raises:
        InputError: a part would be empty.
    """
    names, windows = corpus.count()
    count = windows if by == "window" else names
    first, second = round(count * train), round(count * (train + val))
    sizes = (first, second - first, count - second)
    for part in Part:
        if sizes[part] <= 0:
            raise InputError(
                f"train {train:g} and val {val:g} leave no {part.name.lower()} set when "
                f"{windows:,} windows are split by {by}; change the fractions or add names"
            )
    return Split(by, seed, *sizes)


def save_split(path: Path, split: Split) -> None:
    """Write a split as safetensors: its description, a few bytes."""
    save_metadata(path, asdict(split))


def load_split(path: str | os.PathLike[str], corpus: Corpus) -> Split:
    """Load a split of `corpus` written by `save_split`.

    Raises FileError if the file is missing, damaged, or a split of a different corpus.
    """
    arrays, metadata = load_arrays(Path(path))
    names, windows = corpus.count()
    try:
        split = Split(**metadata)
        fits = split.train + split.val + split.test == (windows if split.by == "window" else names)
    except (TypeError, ValueError):
        fits = False
    if arrays or not fits:
        raise FileError(f"{path} is not a split of the {windows:,} windows in this dataset")
    return split
