"""The corpus: names encoded as a stream of tokens.

Token 0 marks the end of a name and pads the context before the name. It stands for no character, so
names can contain any character, including '.'. The corpus is one flat stream, in the smallest
integer type that fits the vocabulary:

    block_size zeros, the first name, block_size zeros, the second name, ..., block_size zeros

A context is a view into the stream, and its target is the next token (`charlm.data.windows`), so
windows are never stored. A stream in a file is memory-mapped and can be larger than memory.

This module uses only NumPy, because importing torch takes longer than the first stages run.
"""

import os
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from charlm.core.errors import FileError
from charlm.core.files import load_arrays, tensor_header
from charlm.core.terminal import bar

Tokens = NDArray[np.integer]
Integers = NDArray[np.int64]

END = 0
CHUNK = 1 << 20
"""Number of tokens, windows or bytes to process at once, to limit memory."""

BLANK = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0000-\U000e0fff]"
)
"""Letters and marks without a visible form (Unicode's Default_Ignorable_Code_Point, and the blank
Braille pattern)."""


def printable(symbol: str) -> str:
    """Return a visible label for a single character.

    A space becomes ␣, another invisible character its code point (U+200C), and a combining mark is
    placed on a dotted circle. Other characters, and longer text, are returned unchanged.
    """
    if len(symbol) != 1:
        return symbol
    category = unicodedata.category(symbol)
    if symbol == " ":
        return "␣"
    if category[0] in "CZ" or BLANK.match(symbol):
        return f"U+{ord(symbol):04X}"
    return f"◌{symbol}" if category[0] == "M" else symbol


@dataclass(frozen=True)
class Vocabulary:
    """The characters of a corpus in code point order; `characters[n]` is token n + 1.

    Raises ValueError if `characters` is not a string of strictly ascending characters.
    """

    characters: str

    def __post_init__(self) -> None:
        if not isinstance(self.characters, str):
            raise ValueError(f"the characters are not a string: {self.characters!r}")
        if list(self.characters) != sorted(set(self.characters)):
            raise ValueError("the characters are not distinct and in ascending order")

    def __len__(self) -> int:
        """Return the number of tokens, including `END`."""
        return len(self.characters) + 1

    def encode(self, text: str) -> list[int]:
        """Return the tokens of `text`. Raises KeyError for a character not in the vocabulary."""
        token_of = {character: token for token, character in enumerate(self.characters, start=1)}
        return [token_of[character] for character in text]

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of `tokens`, up to the first `END`."""
        text = []
        for token in tokens:
            if token == END:
                break
            text.append(self.characters[token - 1])
        return "".join(text)

    def decode_all(self, tokens: Integers) -> list[str]:
        """Return the text of each row of `tokens` (N, L), padded with `END` on the right."""
        code_points = np.array([0, *map(ord, self.characters)], dtype="<u4")
        text = np.ascontiguousarray(code_points[tokens])  # (N, L), zeros at the end
        return text.view(f"<U{text.shape[1]}").ravel().tolist()

    def symbols(self) -> list[str]:
        """Return a visible label for each token, with '.' for `END`."""
        return [".", *map(printable, self.characters)]


@dataclass(frozen=True)
class Corpus:
    """Names as a token stream.

    Attributes:
        stream: (S,) tokens in the smallest of uint8, int16 and int32 that fits.
        vocabulary: the characters of the tokens.
        block_size: number of tokens in a context.
    """

    stream: Tokens
    vocabulary: Vocabulary
    block_size: int

    @classmethod
    def from_names(cls, names: Sequence[str], block_size: int) -> "Corpus":
        """Build the vocabulary and the stream of `names`, which must not be empty."""
        vocabulary = Vocabulary("".join(sorted(set("".join(names)))))
        return cls(encode_stream(names, vocabulary, block_size), vocabulary, block_size)

    def count(self) -> tuple[int, int]:
        """Return the number of names and the number of windows."""
        characters = sum(int(np.count_nonzero(part)) for part in self._parts())
        names = (len(self.stream) - characters) // self.block_size - 1
        return names, names + characters

    def mean_length(self) -> float:
        """Return the mean length of the names, in characters."""
        names, windows = self.count()
        return (windows - names) / names

    def chunks(self) -> Iterator[tuple[Integers, Integers]]:
        """Yield all windows in order, in chunks.

        A chunk is the index of the start of each context in the stream (n,), and the index of its
        name (n,). It can be empty.
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
        """Return the index of the name of each window (W,)."""
        return np.concatenate([names for _, names in self.chunks()])

    def name_chunks(self) -> Iterator[list[str]]:
        """Yield the names in order, in chunks."""
        code_points = np.array([0, *map(ord, self.vocabulary.characters)], dtype="<u4")
        rest = ""
        for part in self._parts():
            text = rest + code_points[part].tobytes().decode("utf-32-le")
            *names, rest = text.split("\0")
            yield [name for name in names if name]

    def names(self) -> list[str]:
        """Return all names."""
        return [name for names in self.name_chunks() for name in names]

    def _parts(self) -> Iterator[Tokens]:
        """Yield the stream in chunks of `CHUNK` tokens."""
        for first in range(0, len(self.stream), CHUNK):
            yield self.stream[first : first + CHUNK]


def encode_stream(names: Sequence[str], vocabulary: Vocabulary, block_size: int) -> Tokens:
    """Return the stream (S,) of `names`, whose characters must all be in `vocabulary`."""
    table = _token_table(vocabulary)
    first = np.zeros(block_size, table.dtype)
    rest = _encode_lines("".join(f"{name}\n" for name in names), table, block_size)
    return np.concatenate((first, rest))


def _token_table(vocabulary: Vocabulary) -> Tokens:
    """Return a lookup table from code points to tokens; the line feed maps to `END`."""
    code_points = [ord(character) for character in vocabulary.characters]
    dtypes = (np.uint8, np.int16, np.int32)
    dtype = next(kind for kind in dtypes if len(code_points) <= np.iinfo(kind).max)
    table: Tokens = np.zeros(max([ord("\n"), *code_points]) + 1, dtype)
    table[code_points] = np.arange(1, len(vocabulary))
    return table


def _encode_lines(text: str, table: Tokens, block_size: int) -> Tokens:
    """Return the tokens of text with one name per line; a line feed becomes `block_size` zeros."""
    code_points = np.frombuffer(text.encode("utf-32-le"), dtype="<u4")
    tokens: Tokens = table[code_points]
    repeated: Tokens = np.repeat(tokens, np.where(code_points == ord("\n"), block_size, 1))
    return repeated


def write_corpus(
    path: Path, names: IO[bytes], vocabulary: Vocabulary, block_size: int, length: int
) -> None:
    """Write a corpus as safetensors, in chunks, so that it need not fit in memory.

    Args:
        path: the file to write.
        names: a file open for reading: UTF-8, one name per line, with a final line feed.
        vocabulary: must contain all characters of the names.
        block_size: number of tokens in a context.
        length: length of the stream.
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
    """Load a corpus written by `write_corpus`.

    Raises FileError if the file is missing or damaged.
    """
    arrays, metadata = load_arrays(Path(path))
    try:
        vocabulary = Vocabulary(metadata["characters"])
        return Corpus(arrays["stream"], vocabulary, metadata["block_size"])
    except (KeyError, ValueError) as error:
        raise FileError(f"{path} is not a dataset ({error})") from None
