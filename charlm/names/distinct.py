"""Telling which of millions of names have been seen before, without keeping them as objects."""

import mmap
from collections.abc import Iterable
from itertools import compress
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Hashes = NDArray[np.uint64]
Integers = NDArray[np.int64]

END = ord("\n")
FACTOR = np.uint64(0x9E3779B97F4A7C15)
POWERS = np.cumprod(np.full(1 << 16, FACTOR))
GROWTH = 4
"""A run is merged into the one before it unless that is so many times as long."""


class Distinct:
    """Writes each name once to a file, in the order in which they first come.

    In memory there are 16 bytes for each distinct name: its hash and its place in the file.
    A hash that is known makes a name suspect only; it is left out if it is what stands in the
    file there. So no two names are ever taken for one, whatever their hashes.

    Attributes:
        count: how many names were written.
    """

    def __init__(self, file: BinaryIO) -> None:
        """Write to `file`, empty and open for reading and writing: UTF-8, a name a line."""
        self.file = file
        self.size = 0
        self.count = 0
        # Ascending hashes with the places of their names, the longest run first.
        self._runs: list[tuple[Hashes, Integers]] = []
        # Names whose hash another has: as good as none, but there is no telling.
        self._clashing: set[bytes] = set()

    def add(self, names: Iterable[str]) -> list[str]:
        """Write and return those of `names` (none empty, none with a line end) that are new."""
        different = list(dict.fromkeys(names))
        if not different:
            return []
        lines = ("\n".join(different) + "\n").encode()
        text = np.frombuffer(lines, dtype=np.uint8)
        stops = np.flatnonzero(text == END) + 1
        starts = np.concatenate(([0], stops[:-1]))
        hashes = hash_lines(text, starts)
        places = self._find(hashes)
        repeated = places >= 0
        suspects = np.flatnonzero(repeated)
        repeated[suspects] = self._same(text, starts[suspects], stops[suspects], places[suspects])
        # The first of those that share a new hash takes it; the names here are all different.
        firsts = np.unique(hashes, return_index=True)[1]
        takes_hash = np.zeros(len(hashes), dtype=bool)
        takes_hash[firsts] = places[firsts] < 0
        for clashing in np.flatnonzero(~takes_hash & ~repeated):
            name = lines[starts[clashing] : stops[clashing]]
            repeated[clashing] = name in self._clashing
            self._clashing.add(name)
        lengths = np.where(repeated, 0, stops - starts)
        new = firsts[takes_hash[firsts]]
        self._insert(hashes[new], (self.size + np.cumsum(lengths) - lengths)[new])
        self.file.write(text[np.repeat(~repeated, stops - starts)].tobytes())
        self.size += int(lengths.sum())
        added = list(compress(different, (~repeated).tolist()))
        self.count += len(added)
        return added

    def _find(self, hashes: Hashes) -> Integers:
        """(n,) where in the file the name with each hash is, or -1."""
        places = np.full(len(hashes), -1)
        order = np.argsort(hashes)  # searching in order finds most of the run in the cache
        wanted = hashes[order]
        for run, run_places in self._runs:
            at = np.searchsorted(run, wanted).clip(max=len(run) - 1)
            found = run[at] == wanted
            places[order[found]] = run_places[at[found]]
        return places

    def _same(
        self, text: Bytes, starts: Integers, stops: Integers, places: Integers
    ) -> NDArray[np.bool_]:
        """(n,) whether the lines of `text` from `starts` to `stops` are in the file at `places`."""
        if len(starts) == 0:
            return np.zeros(0, dtype=bool)
        self.file.flush()
        with mmap.mmap(self.file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            written = np.frombuffer(mapped, dtype=np.uint8)
            lengths = stops - starts
            offsets = np.cumsum(lengths) - lengths
            within = np.arange(lengths.sum()) - np.repeat(offsets, lengths)
            there = written.take(np.repeat(places, lengths) + within, mode="clip")
            equal = there == text[np.repeat(starts, lengths) + within]
            del written  # a map in use cannot be closed
        # With its line end, a line that is the beginning of another differs from it.
        return np.logical_and.reduceat(equal, offsets)

    def _insert(self, hashes: Hashes, places: Integers) -> None:
        """Add ascending hashes, none of them known, and the places of their names."""
        if len(hashes) == 0:
            return
        self._runs.append((hashes, places))
        while len(self._runs) > 1 and len(self._runs[-2][0]) < GROWTH * len(self._runs[-1][0]):
            late_hashes, late_places = self._runs.pop()
            hashes, places = self._runs.pop()
            at = np.searchsorted(hashes, late_hashes)
            hashes = np.insert(hashes, at, late_hashes)
            places = np.insert(places, at, late_places)
            self._runs.append((hashes, places))


def hash_lines(text: Bytes, starts: Integers) -> Hashes:
    """(n,) 64 bits of each line of `text`: the sum of its bytes times powers of an odd number."""
    lengths = np.diff(starts, append=len(text))
    within = np.arange(len(text)) - np.repeat(starts, lengths)
    within %= len(POWERS)
    return np.add.reduceat(POWERS[within] * text, starts) * FACTOR
