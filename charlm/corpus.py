"""From names to a stream of tokens, and from the stream to windows.

Token 0 ends a name and pads the space in front of it; it stands for no
character, so that a name may hold any, '.' included. The corpus is one flat
stream of the smallest integers that hold the vocabulary:

    block_size zeros, the first name, block_size zeros, the second, ..., block_size zeros

A context is a view into the stream and its target the token after it. So a
character costs about two bytes, and no window is ever stored.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from charlm.errors import FileError
from charlm.files import load_tensors, save_tensors

END = 0


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
        code_points = _code_points(names)
        characters = "".join(map(chr, np.unique(code_points).tolist()))
        vocabulary = Vocabulary(characters)
        return cls(encode_stream(names, vocabulary, block_size), vocabulary, block_size)

    def windows(self) -> "Windows":
        """Every window, name after name: one for each character and one for each end."""
        before, here = self.stream[self.block_size - 1 : -1], self.stream[self.block_size :]
        starts = torch.nonzero((here != END) | (before != END)).flatten()
        return Windows(self.stream, self.block_size, starts)

    def name_of_window(self) -> Tensor:
        """(W,) int64: for each of `windows()`, the index of the name that it is cut from."""
        ends = self.windows().targets() == END
        return ends.cumsum(0) - ends.long()

    def names(self) -> list[str]:
        """The names again, in order."""
        flat = np.asarray(self.stream[self.stream != END], dtype=np.int64) - 1
        code_points = np.array([ord(c) for c in self.vocabulary.characters], dtype="<u4")
        text = code_points[flat].tobytes().decode("utf-32-le")
        ends = torch.nonzero(self.windows().targets() == END).flatten()
        # The n-th end closes a name and has n ends before it, which `text` does not hold.
        stops = (ends - torch.arange(len(ends))).tolist()
        return [text[a:b] for a, b in zip([0, *stops], stops, strict=False)]


@dataclass(frozen=True)
class Windows:
    """Windows of a token stream, cut out only when they are asked for.

    Attributes:
        stream: (S,) tokens.
        block_size: T, the number of tokens in a context.
        starts: (W,) int64, where in the stream each context begins.
    """

    stream: Tensor
    block_size: int
    starts: Tensor

    def __len__(self) -> int:
        return len(self.starts)

    def batch(self, index: Tensor | slice) -> tuple[Tensor, Tensor]:
        """Contexts (N, T) and targets (N,), int64, of the windows that `index` picks."""
        every = self.stream.unfold(0, self.block_size + 1, 1)  # (S - T, T + 1), a view
        chosen = every[self.starts[index]].long()  # (N, T + 1)
        return chosen[:, :-1], chosen[:, -1]

    def targets(self) -> Tensor:
        """(W,) the token after each context."""
        return self.stream[self.starts + self.block_size]

    def previous(self) -> Tensor:
        """(W,) the last token of each context."""
        return self.stream[self.starts + self.block_size - 1]

    def where(self, mask: Tensor) -> "Windows":
        """The windows for which `mask` (W,) is true, over the same stream."""
        return Windows(self.stream, self.block_size, self.starts[mask])

    def to(self, device: torch.device) -> "Windows":
        """The same windows with their tensors on `device`."""
        return Windows(self.stream.to(device), self.block_size, self.starts.to(device))


def encode_stream(names: Sequence[str], vocabulary: Vocabulary, block_size: int) -> Tensor:
    """(S,) the stream of `names`, whose characters must all be in `vocabulary`."""
    code_points = _code_points(names)
    known = np.array([ord(c) for c in vocabulary.characters], dtype=np.uint32)
    lengths = np.array([len(name) for name in names], dtype=np.int64)
    # A character stands behind all characters before it and one padding for each name so far.
    position = np.arange(len(code_points)) + block_size * np.repeat(
        np.arange(1, len(names) + 1), lengths
    )
    stream = np.zeros(len(code_points) + block_size * (len(names) + 1), _dtype(len(vocabulary)))
    stream[position] = np.searchsorted(known, code_points) + 1
    return torch.from_numpy(stream)


def save_corpus(path: Path, corpus: Corpus) -> None:
    """Write a corpus as safetensors."""
    metadata = {"characters": corpus.vocabulary.characters, "block_size": corpus.block_size}
    save_tensors(path, {"stream": corpus.stream}, metadata)


def load_corpus(path: Path) -> Corpus:
    """Read what `save_corpus` wrote. Raises FileError where it is missing or damaged."""
    tensors, metadata = load_tensors(path)
    try:
        vocabulary = Vocabulary(metadata["characters"])
        return Corpus(tensors["stream"], vocabulary, metadata["block_size"])
    except (KeyError, ValueError) as error:
        raise FileError(f"{path} is no data set ({error})") from None


def _code_points(names: Sequence[str]) -> "np.ndarray[tuple[int], np.dtype[np.uint32]]":
    return np.frombuffer("".join(names).encode("utf-32-le"), dtype="<u4")


def _dtype(vocab_size: int) -> type[np.integer]:
    for dtype in (np.uint8, np.int16):
        if vocab_size - 1 <= np.iinfo(dtype).max:
            return dtype
    return np.int32
