"""From names to a stream of tokens.

Token 0 ends a name and pads the space in front of it; it stands for no
character, so that a name may hold any, '.' included. The corpus is one flat
stream of the smallest integers that hold the vocabulary:

    block_size zeros, the first name, block_size zeros, the second, ..., block_size zeros

A context is a view into the stream and its target the token after it (`charlm.data.windows`). So a
character costs about two bytes, and no window is ever stored. A stream that is read from a
file stays there, mapped into memory: what is larger than memory can be worked on.

In NumPy: importing torch would take longer than all that the first stages have to do.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from charlm.core.bars import bar
from charlm.core.errors import FileError
from charlm.core.files import load_arrays, tensor_header

Tokens = NDArray[np.integer]
Integers = NDArray[np.int64]

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

    def decode_all(self, tokens: Integers) -> list[str]:
        """The texts of the rows of `tokens` (N, L), in which nothing but `END` follows an `END`."""
        code_points = np.array([0, *map(ord, self.characters)], dtype="<u4")
        text = np.ascontiguousarray(code_points[tokens])  # (N, L), zeros at the end
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

    stream: Tokens
    vocabulary: Vocabulary
    block_size: int

    @classmethod
    def from_names(cls, names: Sequence[str], block_size: int) -> "Corpus":
        """Build the vocabulary of `names` (none of them empty) and their stream."""
        vocabulary = Vocabulary("".join(sorted(set("".join(names)))))
        return cls(encode_stream(names, vocabulary, block_size), vocabulary, block_size)

    def count(self) -> tuple[int, int]:
        """How many names there are, and how many windows."""
        characters = sum(int(np.count_nonzero(part)) for part in self._parts())
        names = (len(self.stream) - characters) // self.block_size - 1
        return names, names + characters

    def mean_length(self) -> float:
        """Of the names, in characters."""
        names, windows = self.count()
        return (windows - names) / names

    def chunks(self) -> Iterator[tuple[Integers, Integers]]:
        """All windows in order, many at a time: where each context begins, and its name.

        Yields (n,) places in the stream, and (n,) indices of names; n may be 0.
        """
        names = 0
        for first in range(0, len(self.stream) - self.block_size, CHUNK):
            part = self.stream[first + self.block_size - 1 : first + self.block_size + CHUNK]
            before, here = part[:-1], part[1:]
            starts = np.flatnonzero((here != END) | (before != END))
            ends = here[starts] == END
            closed = np.cumsum(ends)
            yield starts + first, names + closed - ends
            names += int(np.count_nonzero(ends))

    def name_of_window(self) -> Integers:
        """(W,) for each window, the index of the name that it is cut from."""
        return np.concatenate([names for _, names in self.chunks()])

    def name_chunks(self) -> Iterator[list[str]]:
        """The names again, in order, many at a time."""
        code_points = np.array([0, *map(ord, self.vocabulary.characters)], dtype="<u4")
        begun = ""
        for part in self._parts():
            text = begun + code_points[part].tobytes().decode("utf-32-le")
            *names, begun = text.split("\0")
            yield [name for name in names if name]

    def names(self) -> list[str]:
        """All names in a list."""
        return [name for names in self.name_chunks() for name in names]

    def _parts(self) -> Iterator[Tokens]:
        """The stream, `CHUNK` tokens at a time."""
        for first in range(0, len(self.stream), CHUNK):
            yield self.stream[first : first + CHUNK]


def encode_stream(names: Sequence[str], vocabulary: Vocabulary, block_size: int) -> Tokens:
    """(S,) the stream of `names`, whose characters must all be in `vocabulary`."""
    table = _token_table(vocabulary)
    first = np.zeros(block_size, table.dtype)
    rest = _encode_lines("".join(f"{name}\n" for name in names), table, block_size)
    return np.concatenate((first, rest))


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
    """Write the corpus of many names as safetensors, without holding it in memory.

    Args:
        path: the file to write.
        names: a file open for reading: UTF-8, a name a line, each line with its end.
        vocabulary: holds all their characters.
        block_size: how many tokens a context has.
        length: of the stream.
    """
    table = _token_table(vocabulary)
    metadata = {"characters": vocabulary.characters, "block_size": block_size}
    names.seek(0)
    with path.open("wb") as target, bar("writing the tokens", length, " tokens") as shown:
        target.write(tensor_header("stream", table.dtype, length, metadata))
        target.write(np.zeros(block_size, table.dtype).tobytes())
        while block := names.read(CHUNK):
            tokens = _encode_lines((block + names.readline()).decode(), table, block_size)
            target.write(tokens.tobytes())
            shown.update(len(tokens))


def load_corpus(path: str | os.PathLike[str]) -> Corpus:
    """Read what `write_corpus` wrote. Raises FileError if it is missing or damaged."""
    arrays, metadata = load_arrays(Path(path))
    try:
        vocabulary = Vocabulary(metadata["characters"])
        return Corpus(arrays["stream"], vocabulary, metadata["block_size"])
    except (KeyError, ValueError) as error:
        raise FileError(f"{path} is no data set ({error})") from None
