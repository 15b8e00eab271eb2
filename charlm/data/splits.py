"""Dealing the windows of a corpus out to training, validation and test."""

import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from enum import IntEnum
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from charlm.core.bars import bar
from charlm.core.errors import FileError, InputError
from charlm.core.files import load_arrays, save_metadata
from charlm.data.corpus import Corpus, Integers
from charlm.data.permutation import Permutation

Parts = NDArray[np.uint8]


class Part(IntEnum):
    """The parts of a split, by the number that marks them in its tensors."""

    TRAIN = 0
    VAL = 1
    TEST = 2


@dataclass(frozen=True)
class Split:
    """Which window is in which part: not stored, but computed when it is asked for.

    The windows, or the names, are put in a random order, of which the first are the training
    set and the last the test set.

    Attributes:
        by: what is dealt out. By window, as in the course, a name's windows lie on all
            sides, and what is measured is how well names partly seen are completed. By name,
            a name takes its windows along, and what is measured is how well the model does
            with names that it never saw.
        seed: chooses the order.
        train: how many windows or names there are to train on,
        val: to validate on,
        test: and to test on.
    """

    by: Literal["window", "name"]
    seed: int
    train: int
    val: int
    test: int

    def __post_init__(self) -> None:
        numbers = (self.seed, self.train, self.val, self.test)
        if self.by not in ("window", "name") or any(type(n) is not int or n < 0 for n in numbers):
            raise ValueError("not what a split is described by")

    @cached_property
    def _order(self) -> Permutation:
        return Permutation(self.train + self.val + self.test, self.seed)

    def part_of(self, index: Integers) -> Parts:
        """(N,) the `Part` of windows, or of names if split by name, by number (N,)."""
        place = self._order(index)
        return (place >= self.train).astype(np.uint8) + (place >= self.train + self.val)

    def parts(self, corpus: Corpus) -> Iterator[tuple[Integers, Integers, Parts]]:
        """All windows in order, many at a time.

        Yields (n,) where each context begins, (n,) the index of its name and (n,) its `Part`.
        """
        done = 0
        with bar("dealing out the windows", len(corpus.stream), " tokens") as shown:
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
        """How many windows each part has."""
        if self.by == "window":
            return dict(zip(Part, (self.train, self.val, self.test), strict=True))
        counts = np.zeros(len(Part), dtype=np.int64)
        for _, _, parts in self.parts(corpus):
            counts += np.bincount(parts, minlength=len(Part))
        return dict(zip(Part, counts.tolist(), strict=True))


def split_windows(
    corpus: Corpus, by: Literal["window", "name"], train: float, val: float, seed: int
) -> Split:
    """Cut a random order of the corpus's windows, or names, at the fractions asked for.

    Raises:
        InputError: a part is left without a window.
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
    """Write a split as safetensors: a few bytes, whatever it splits."""
    save_metadata(path, asdict(split))


def load_split(path: str | os.PathLike[str], corpus: Corpus) -> Split:
    """Read what `save_split` wrote for `corpus`.

    Raises FileError if it is missing, damaged or made from another corpus.
    """
    arrays, metadata = load_arrays(Path(path))
    names, windows = corpus.count()
    try:
        split = Split(**metadata)
        fits = split.train + split.val + split.test == (windows if split.by == "window" else names)
    except (TypeError, ValueError):
        fits = False
    if arrays or not fits:
        raise FileError(f"{path} does not split the {windows:,} windows of this data set")
    return split
