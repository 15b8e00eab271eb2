"""Drop repeated names among millions without keeping the names in memory."""

import mmap
from collections.abc import Iterable
from itertools import compress
from typing import IO

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Hashes = NDArray[np.uint64]
Integers = NDArray[np.int64]

END = ord("\n")
FACTOR = np.uint64(0x9E3779B97F4A7C15)
POWERS = np.cumprod(np.full(1 << 16, FACTOR))
GROWTH = 4
"""Merge a run into the previous one unless that is at least this many times as long."""


class Distinct:
    """Writes each distinct name once to a file, in order of first occurrence.

    It keeps 16 bytes of memory per distinct name: its hash and its position in the file. A name
    with a known hash is compared with the one in the file, so hash collisions do no harm.

    Attributes:
        count: the number of names written.
    """

    def __init__(self, file: IO[bytes]) -> None:
        """Write to `file`, which must be empty and open for reading and writing."""
        self.file = file
        self.size = 0
        self.count = 0
        # Runs of ascending hashes with the positions of their names, the longest run first.
        self._runs: list[tuple[Hashes, Integers]] = []
        # Names with the hash of another name: practically none, but possible.
        self._clashing: set[bytes] = set()

    def add(self, names: Iterable[str]) -> list[str]:
        """Write the new names among `names`, which must be non-empty single lines; return them."""
        unique = list(dict.fromkeys(names))
        if not unique:
            return []
        lines = ("\n".join(unique) + "\n").encode()
        text = np.frombuffer(lines, dtype=np.uint8)
        stops = np.flatnonzero(text == END) + 1
        starts = np.concatenate(([0], stops[:-1]))
        hashes = hash_lines(text, starts)
        positions = self._find(hashes)
        repeated = positions >= 0
        suspects = np.flatnonzero(repeated)
        repeated[suspects] = self._same(
            text, starts[suspects], stops[suspects], positions[suspects]
        )
        # A new hash belongs to the first name that has it. The names here are all distinct.
        firsts = np.unique(hashes, return_index=True)[1]
        takes_hash = np.zeros(len(hashes), dtype=bool)
        takes_hash[firsts] = positions[firsts] < 0
        for clashing in np.flatnonzero(~takes_hash & ~repeated):
            name = lines[starts[clashing] : stops[clashing]]
            repeated[clashing] = name in self._clashing
            self._clashing.add(name)
        lengths = np.where(repeated, 0, stops - starts)
        new = firsts[takes_hash[firsts]]
        self._insert(hashes[new], (self.size + np.cumsum(lengths) - lengths)[new])
        self.file.write(text[np.repeat(~repeated, stops - starts)].tobytes())
        self.size += int(lengths.sum())
        added = list(compress(unique, (~repeated).tolist()))
        self.count += len(added)
        return added

    def _find(self, hashes: Hashes) -> Integers:
        """Return (n,) the position in the file of the name with each hash, or -1."""
        positions = np.full(len(hashes), -1)
        order = np.argsort(hashes)  # ascending, so that the search stays in the CPU cache
        wanted = hashes[order]
        for run, run_positions in self._runs:
            at = np.searchsorted(run, wanted).clip(max=len(run) - 1)
            found = run[at] == wanted
            positions[order[found]] = run_positions[at[found]]
        return positions

    def _same(
        self, text: Bytes, starts: Integers, stops: Integers, positions: Integers
    ) -> NDArray[np.bool_]:
        """Return (n,) whether each line `text[start:stop]` is in the file at its position."""
        if len(starts) == 0:
            return np.zeros(0, dtype=bool)
        self.file.flush()
        with mmap.mmap(self.file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            written = np.frombuffer(mapped, dtype=np.uint8)
            lengths = stops - starts
            offsets = np.cumsum(lengths) - lengths
            within = np.arange(lengths.sum()) - np.repeat(offsets, lengths)
            stored = written.take(np.repeat(positions, lengths) + within, mode="clip")
            equal = stored == text[np.repeat(starts, lengths) + within]
            del written  # a memory map cannot be closed while in use
        # Lines include their line ending, so a line differs from its prefixes.
        return np.logical_and.reduceat(equal, offsets)

    def _insert(self, hashes: Hashes, positions: Integers) -> None:
        """Add new hashes, in ascending order, and the positions of their names."""
        if len(hashes) == 0:
            return
        self._runs.append((hashes, positions))
        while len(self._runs) > 1 and len(self._runs[-2][0]) < GROWTH * len(self._runs[-1][0]):
            later_hashes, later_positions = self._runs.pop()
            hashes, positions = self._runs.pop()
            at = np.searchsorted(hashes, later_hashes)
            hashes = np.insert(hashes, at, later_hashes)
            positions = np.insert(positions, at, later_positions)
            self._runs.append((hashes, positions))


def hash_lines(text: Bytes, starts: Integers) -> Hashes:
    """Return (n,) 64-bit hashes of the lines of `text`: polynomials in their bytes."""
    lengths = np.diff(starts, append=len(text))
    within = np.arange(len(text)) - np.repeat(starts, lengths)
    within %= len(POWERS)
    return np.add.reduceat(POWERS[within] * text, starts) * FACTOR
