"""Dealing the windows of a corpus out to training, validation and test."""

from enum import IntEnum
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from charlm.corpus import Corpus
from charlm.errors import FileError, InputError
from charlm.files import load_tensors, save_tensors


class Part(IntEnum):
    """The parts of a split, by the number that marks them in its tensor."""

    TRAIN = 0
    VAL = 1
    TEST = 2


def split_windows(
    corpus: Corpus,
    by: Literal["window", "name"],
    train: float,
    val: float,
    generator: torch.Generator,
) -> Tensor:
    """(W,) uint8: the `Part` of each of the corpus's windows.

    By window, a random permutation of all windows is cut at the fractions, as in
    the course: a name's windows then lie on all sides, and what is measured is how
    well names partly seen are completed. By name, the names are dealt out and take
    their windows along: what is measured is how well the model does with names
    that it never saw.

    Raises:
        InputError: a part is left without a window.
    """
    if by == "window":
        parts = _deal(len(corpus.windows()), train, val, generator)
    else:
        name_of_window = corpus.name_of_window()
        parts = _deal(int(name_of_window[-1]) + 1, train, val, generator)[name_of_window]
    for part in Part:
        if not (parts == part).any():
            raise InputError(
                f"train {train:g} and val {val:g} leave no {part.name.lower()} set when "
                f"{len(parts):,} windows are split by {by}; change the fractions or add names"
            )
    return parts


def save_split(path: Path, parts: Tensor) -> None:
    """Write the part of each window, (W,) uint8, as safetensors."""
    save_tensors(path, {"part": parts}, {})


def load_split(path: Path, corpus: Corpus) -> Tensor:
    """Read what `save_split` wrote for `corpus`.

    Raises FileError where it is missing, damaged or made from another corpus.
    """
    tensors, _ = load_tensors(path)
    parts = tensors.get("part")
    windows = len(corpus.windows())
    if parts is None or parts.shape != (windows,) or parts.dtype != torch.uint8:
        raise FileError(f"{path} does not split the {windows:,} windows of this data set")
    return parts


def _deal(count: int, train: float, val: float, generator: torch.Generator) -> Tensor:
    """(count,) uint8: that many items dealt out at random, in the fractions asked for."""
    first, second = round(count * train), round(count * (train + val))
    order = torch.randperm(count, generator=generator)
    parts = torch.full((count,), Part.TEST, dtype=torch.uint8)
    parts[order[:first]] = Part.TRAIN
    parts[order[first:second]] = Part.VAL
    return parts
