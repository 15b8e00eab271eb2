"""The WaveNet: a tree that joins neighbours two by two.

N batch, T context length (halved at each level), C channels, H hidden units, V vocabulary.
"""

from typing import ClassVar

from torch import Tensor, nn

from charlm.linear import Linear
from charlm.models.base import LanguageModel


class FlattenConsecutive(nn.Module):
    """Join `factor` neighbours: (N, T, C) -> (N, T // factor, C * factor).

    Raises ValueError where `factor` does not divide T.
    """

    def __init__(self, factor: int) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        N, T, C = x.shape
        if T % self.factor:
            raise ValueError(f"cannot join {T} positions {self.factor} by {self.factor}")
        return x.reshape(N, T // self.factor, C * self.factor)


class WaveNet(LanguageModel):
    """Embed each token, then join, mix and squash until one position is left.

    The tree of dilated convolutions of van den Oord et al. (2016), figure 3,
    evaluated for the last position alone, without gates, residual or skip
    connections: the receptive field is `block_size`, the depth its logarithm to
    base 2.

    Raises ValueError where `block_size` is not a power of two.
    """

    title: ClassVar[str] = "WaveNet"

    def __init__(
        self, *, vocab_size: int, block_size: int, embed_dim: int = 10, hidden_dim: int = 128
    ) -> None:
        super().__init__()
        if block_size < 1 or block_size & (block_size - 1):
            raise ValueError(f"block_size {block_size} is not a power of two")
        self.vocab_size = vocab_size
        self.block_size = block_size
        self.embed_dim = embed_dim
        self.hidden_dim = hidden_dim
        self.embedding = nn.Embedding(vocab_size, embed_dim)
        levels: list[nn.Module] = []
        channels = embed_dim
        for _ in range(block_size.bit_length() - 1):
            levels += [FlattenConsecutive(2), Linear(2 * channels, hidden_dim), nn.Tanh()]
            channels = hidden_dim
        self.tree = nn.Sequential(*levels)
        self.output = Linear(channels, vocab_size)

    def forward(self, contexts: Tensor) -> Tensor:
        x = self.embedding(contexts)  # (N, T) -> (N, T, C)
        x = self.tree(x)  # (N, 1, H), T halved at each level
        x = x.squeeze(1)  # (N, H)
        logits: Tensor = self.output(x)  # (N, V)
        return logits
