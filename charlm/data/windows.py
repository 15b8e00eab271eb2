"""Windows of a token stream: contexts and their targets, the next tokens."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from charlm.core.compiled import Integers, compiled
from charlm.data.corpus import CHUNK, Corpus
from charlm.data.splits import Part, Split


@compiled
def cut(stream: Any, starts: Any, length: int) -> tuple[Integers, NDArray[np.int64]]:
    """Return the contexts (N, T) that begin at starts (N,), and the tokens (N,) after them.

    Raises IndexError if a window is outside the stream.
    """
    N, T = len(starts), length
    contexts, targets = np.empty((N, T), dtype=np.int32), np.empty(N, dtype=np.int64)
    for n in range(N):
        start = starts[n]
        if start < 0 or start >= len(stream) - T:
            raise IndexError("a window is outside the stream")
        for t in range(T):
            contexts[n, t] = stream[start + t]
        targets[n] = stream[start + T]
    return contexts, targets


@dataclass(frozen=True)
class Windows:
    """Windows of a token stream, extracted on demand.

    Attributes:
        stream: (S,) tokens.
        block_size: T, the number of tokens in a context.
        starts: (W,) int32 or int64, the index of the start of each context in the stream.
    """

    stream: Tensor
    block_size: int
    starts: Tensor

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def numbers(self) -> int:
        """How many numbers a window takes in a batch: one per token."""
        return self.block_size + 1

    def batch(self, index: Tensor | slice) -> tuple[Tensor, Tensor]:
        """Return the contexts (N, T) and targets (N,) of the selected windows, integers."""
        if self.stream.device.type == "cpu":
            starts = self.starts[index].numpy()
            contexts, targets = cut(self.stream.numpy(), starts, self.block_size)
            return torch.from_numpy(contexts), torch.from_numpy(targets)
        every = self.stream.unfold(0, self.block_size + 1, 1)  # (S - T, T + 1), a view
        chosen = every[self.starts[index]].long()  # (N, T + 1)
        return chosen[:, :-1], chosen[:, -1]

    def targets(self) -> Tensor:
        """Return the token after each context (W,)."""
        return self._tokens(self.block_size)

    def previous(self) -> Tensor:
        """Return the last token of each context (W,)."""
        return self._tokens(self.block_size - 1)

    def _tokens(self, offset: int) -> Tensor:
        shifted = self.stream[offset:]
        tokens = shifted.new_empty(len(self))
        for first in range(0, len(self), CHUNK):
            chunk = slice(first, first + CHUNK)
            torch.index_select(shifted, 0, self.starts[chunk], out=tokens[chunk])
        return tokens

    def where(self, mask: Tensor) -> "Windows":
        """Return the windows for which `mask` (W,) is true, of the same stream."""
        return Windows(self.stream, self.block_size, self.starts[mask])

    def to(self, device: torch.device) -> "Windows":
        """Return the same windows with their tensors on `device`."""
        return Windows(self.stream.to(device), self.block_size, self.starts.to(device))


def every_window(corpus: Corpus) -> Windows:
    """Return all windows in order: for each name, one per character and one for its end."""
    _, count = corpus.count()
    starts = torch.empty(count, dtype=_index_dtype(corpus))
    done = 0
    for chunk, _ in corpus.chunks():
        starts[done : done + len(chunk)] = torch.from_numpy(chunk)
        done += len(chunk)
    return _windows(corpus, starts)


def windows_by_part(corpus: Corpus, split: Split) -> dict[Part, Windows]:
    """Return the windows of each part of a split, in the order of the corpus."""
    sizes = split.sizes(corpus)
    starts = {part: torch.empty(sizes[part], dtype=_index_dtype(corpus)) for part in Part}
    done = dict.fromkeys(Part, 0)
    for chunk, _, parts in split.parts(corpus):
        for part in Part:
            chosen = torch.from_numpy(chunk[parts == part])
            starts[part][done[part] : done[part] + len(chosen)] = chosen
            done[part] += len(chosen)
    return {part: _windows(corpus, starts[part]) for part in Part}


def _windows(corpus: Corpus, starts: Tensor) -> Windows:
    return Windows(torch.from_numpy(corpus.stream), corpus.block_size, starts)


def _index_dtype(corpus: Corpus) -> torch.dtype:
    """Return the type of an index into the stream: int32 if that suffices."""
    return torch.int32 if len(corpus.stream) < 2**31 else torch.int64
