"""From names to a stream of tokens, and from the stream to windows.

Token 0 ends a name and pads the space in front of it; it stands for no
character, so that a name may hold any, '.' included. The corpus is one flat
stream of the smallest integers that hold the vocabulary:

    block_size zeros, the first name, block_size zeros, the second, ..., block_size zeros

A context is a view into the stream and its target the token after it. So a
character costs about two bytes, and no window is ever stored. A stream that is read from a
file stays there, mapped into memory: what is larger than memory can be worked on.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from charlm.bars import bar
from charlm.errors import FileError
from charlm.files import load_tensors, save_tensors, tensor_header

Tokens = NDArray[np.integer]

END = 0
CHUNK = 1 << 20
"""Tokens, windows or bytes to work on at once, where all of them may be too many."""


@dataclass(frozen=True)
class Vocabulary:
    """The characters of a corpus in code point order; the n-th of them is token n + 1.

    Raises ValueError for anything but a text of ascending characters.
    """

    characters: str

    def __post_init__(self) -> None:
        if not isinstance(self.characters, str):
            raise ValueError(f"the characters are no text: {self.characters!r}")
        if list(self.characters) != sorted(set(self.characters)):
            raise ValueError("the characters are not in order, each of them once")

    def __len__(self) -> int:
        """The number of tokens, `END` included."""
        return len(self.characters) + 1

    def encode(self, text: str) -> list[int]:
        """The tokens of `text`. Raises KeyError for a character that has none."""
        token_of = {character: token for token, character in enumerate(self.characters, start=1)}
        return [token_of[character] for character in text]

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of `tokens`, up to the first `END`."""
        text = []
        for token in tokens:
            if token == END:
                break
            text.append(self.characters[token - 1])
        return "".join(text)

    def decode_all(self, tokens: Tensor) -> list[str]:
        """The texts of the rows of `tokens` (N, L), in which nothing but `END` follows an `END`."""
        code_points = np.array([0, *map(ord, self.characters)], dtype="<u4")
        text = np.ascontiguousarray(code_points[tokens.numpy()])  # (N, L), zeros at the end
        return text.view(f"<U{text.shape[1]}").ravel().tolist()

    def symbols(self) -> list[str]:
        """A printable label for every token; '.' for `END`."""
        return [".", *self.characters]


@dataclass(frozen=True)
class Corpus:
    """Names as a token stream.

    Attributes:
        stream: (S,) tokens in the smallest of uint8, int16 and int32 that holds them.
        vocabulary: what the tokens stand for.
        block_size: how many tokens a context has.
    """

    stream: Tensor
    vocabulary: Vocabulary
    block_size: int

    @classmethod
    def from_names(cls, names: Sequence[str], block_size: int) -> "Corpus":
        """Build the vocabulary of `names` (none of them empty) and their stream."""
        vocabulary = Vocabulary("".join(sorted(set("".join(names)))))
        return cls(encode_stream(names, vocabulary, block_size), vocabulary, block_size)

    def count(self) -> tuple[int, int]:
        """How many names there are, and how many windows."""
        characters = sum(int(part.count_nonzero()) for part in torch.split(self.stream, CHUNK))
        names = (len(self.stream) - characters) // self.block_size - 1
        return names, names + characters

    def mean_length(self) -> float:
        """Of the names, in characters."""
        names, windows = self.count()
        return (windows - names) / names

    def chunks(self) -> Iterator[tuple[Tensor, Tensor]]:
        """All windows in order, many at a time: where each context begins, and its name.

        Yields (n,) int64 places in the stream, and (n,) int64 indices of names; n may be 0.
        """
        names = 0
        for first in range(0, len(self.stream) - self.block_size, CHUNK):
            part = self.stream[first + self.block_size - 1 : first + self.block_size + CHUNK]
            before, here = part[:-1], part[1:]
            starts = torch.nonzero((here != END) | (before != END)).flatten()
            ends = here[starts] == END
            closed = ends.cumsum(0)
            yield starts + first, names + closed - ends.long()
            names += int(ends.sum())

    def windows(self) -> "Windows":
        """Every window, name after name: one for each character and one for each end."""
        _, count = self.count()
        starts = torch.empty(count, dtype=self.index_dtype)
        done = 0
        for chunk, _ in self.chunks():
            starts[done : done + len(chunk)] = chunk
            done += len(chunk)
        return Windows(self.stream, self.block_size, starts)

    @property
    def index_dtype(self) -> torch.dtype:
        """What holds a place in the stream: int32 where that is enough."""
        return torch.int32 if len(self.stream) < 2**31 else torch.int64

    def name_of_window(self) -> Tensor:
        """(W,) int64: for each of `windows()`, the index of the name that it is cut from."""
        return torch.cat([names for _, names in self.chunks()])

    def name_chunks(self) -> Iterator[list[str]]:
        """The names again, in order, many at a time."""
        code_points = np.array([0, *map(ord, self.vocabulary.characters)], dtype="<u4")
        begun = ""
        for part in torch.split(self.stream, CHUNK):
            text = begun + code_points[part.numpy()].tobytes().decode("utf-32-le")
            *names, begun = text.split("\0")
            yield [name for name in names if name]

    def names(self) -> list[str]:
        """All names in a list."""
        return [name for names in self.name_chunks() for name in names]


@dataclass(frozen=True)
class Windows:
    """Windows of a token stream, cut out only when they are asked for.

    Attributes:
        stream: (S,) tokens.
        block_size: T, the number of tokens in a context.
        starts: (W,) int32 or int64, where in the stream each context begins.
    """

    stream: Tensor
    block_size: int
    starts: Tensor

    def __len__(self) -> int:
        return len(self.starts)

    def batch(self, index: Tensor | slice) -> tuple[Tensor, Tensor]:
        """Contexts (N, T) and targets (N,), integers, of the windows that `index` picks."""
        if self.stream.device.type == "cpu":
            from charlm import kernels

            starts = self.starts[index].numpy()
            contexts, targets = kernels.cut(self.stream.numpy(), starts, self.block_size)
            return torch.from_numpy(contexts), torch.from_numpy(targets)
        every = self.stream.unfold(0, self.block_size + 1, 1)  # (S - T, T + 1), a view
        chosen = every[self.starts[index]].long()  # (N, T + 1)
        return chosen[:, :-1], chosen[:, -1]

    def targets(self) -> Tensor:
        """(W,) the token after each context."""
        return self._tokens(self.block_size)

    def previous(self) -> Tensor:
        """(W,) the last token of each context."""
        return self._tokens(self.block_size - 1)

    def _tokens(self, offset: int) -> Tensor:
        shifted = self.stream[offset:]
        tokens = shifted.new_empty(len(self))
        for first in range(0, len(self), CHUNK):
            chunk = slice(first, first + CHUNK)
            torch.index_select(shifted, 0, self.starts[chunk], out=tokens[chunk])
        return tokens

    def where(self, mask: Tensor) -> "Windows":
        """The windows for which `mask` (W,) is true, over the same stream."""
        return Windows(self.stream, self.block_size, self.starts[mask])

    def to(self, device: torch.device) -> "Windows":
        """The same windows with their tensors on `device`."""
        return Windows(self.stream.to(device), self.block_size, self.starts.to(device))


def encode_stream(names: Sequence[str], vocabulary: Vocabulary, block_size: int) -> Tensor:
    """(S,) the stream of `names`, whose characters must all be in `vocabulary`."""
    table = _token_table(vocabulary)
    first = np.zeros(block_size, table.dtype)
    rest = _encode_lines("".join(f"{name}\n" for name in names), table, block_size)
    return torch.from_numpy(np.concatenate((first, rest)))


def _token_table(vocabulary: Vocabulary) -> Tokens:
    """The token of each code point, in the smallest integers; `END` for the end of a line."""
    code_points = [ord(character) for character in vocabulary.characters]
    dtypes = (np.uint8, np.int16, np.int32)
    dtype = next(kind for kind in dtypes if len(code_points) <= np.iinfo(kind).max)
    table: Tokens = np.zeros(max([ord("\n"), *code_points]) + 1, dtype)
    table[code_points] = np.arange(1, len(vocabulary))
    return table


def _encode_lines(text: str, table: Tokens, block_size: int) -> Tokens:
    """The tokens of a text with a name a line; `block_size` zeros for each line end."""
    code_points = np.frombuffer(text.encode("utf-32-le"), dtype="<u4")
    tokens: Tokens = table[code_points]
    repeated: Tokens = np.repeat(tokens, np.where(code_points == ord("\n"), block_size, 1))
    return repeated


def write_corpus(
    path: Path, names: BinaryIO, vocabulary: Vocabulary, block_size: int, length: int
) -> None:
    """Write what `save_corpus` would of the corpus of many names, without holding it in memory.

    Args:
        path: the file to write.
        names: a file open for reading: UTF-8, a name a line, each line with its end.
        vocabulary: holds all their characters.
        block_size: how many tokens a context has.
        length: of the stream.
    """
    table = _token_table(vocabulary)
    metadata = _metadata(vocabulary, block_size)
    names.seek(0)
    with path.open("wb") as target, bar("writing the tokens", length, " tokens") as shown:
        target.write(tensor_header("stream", table.dtype, length, metadata))
        target.write(np.zeros(block_size, table.dtype).tobytes())
        while block := names.read(CHUNK):
            tokens = _encode_lines((block + names.readline()).decode(), table, block_size)
            target.write(tokens.tobytes())
            shown.update(len(tokens))


def save_corpus(path: Path, corpus: Corpus) -> None:
    """Write a corpus as safetensors."""
    metadata = _metadata(corpus.vocabulary, corpus.block_size)
    save_tensors(path, {"stream": corpus.stream}, metadata)


def _metadata(vocabulary: Vocabulary, block_size: int) -> dict[str, str | int]:
    return {"characters": vocabulary.characters, "block_size": block_size}


def load_corpus(path: Path) -> Corpus:
    """Read what `save_corpus` wrote. Raises FileError where it is missing or damaged."""
    tensors, metadata = load_tensors(path)
    try:
        vocabulary = Vocabulary(metadata["characters"])
        return Corpus(tensors["stream"], vocabulary, metadata["block_size"])
    except (KeyError, ValueError) as error:
        raise FileError(f"{path} is no data set ({error})") from None
