"""The compact WaveNet: the tree once more, with few parameters and all of them used often.

U different nodes of a level, C channels, V vocabulary.
"""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from charlm.fast.bilinear import RMSNorm, gated_join
from charlm.fast.dropout import Dropout
from charlm.fast.linear import JoinedLinear, linear
from charlm.fast.sharing import Join
from charlm.models.base import LanguageModel, binary_levels


class CompactWaveNet(LanguageModel):
    """Join neighbours two by two until one position is left, by the same layer at each level.

    The tree of dilated convolutions of van den Oord et al. (2016), figure 3, with gated units
    and residual connections (section 2.3, equation 2, with gate and filter linear), each level
    normalised, one layer for all levels, and the embedding as the output layer too (Press and
    Wolf 2017). With V C + 4 C^2 + 2 C + (L + 1) C + V parameters, L = log2(block_size).

    Raises ValueError where `block_size` is not a power of two.
    """

    title: ClassVar[str] = "Compact WaveNet"

    def __init__(
        self, *, vocab_size: int, block_size: int, channels: int = 72, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.vocab_size = vocab_size
        self.block_size = block_size
        self.channels = channels
        self.dropout = dropout
        levels = binary_levels(block_size)
        self.embedding = nn.Embedding(vocab_size, channels)
        nn.init.normal_(self.embedding.weight, std=0.5)
        self.join = JoinedLinear(2 * channels, 2 * channels, parts=2) if levels else None
        norms = [RMSNorm(channels) for _ in range(levels + 1)]
        drops = [Dropout(dropout) for _ in range(levels)]
        self.norms: Sequence[RMSNorm] = nn.ModuleList(norms)  # type: ignore[assignment]
        self.drop: Sequence[Dropout] = nn.ModuleList(drops)  # type: ignore[assignment]
        self.bias = nn.Parameter(torch.zeros(vocab_size))

    @property
    def arities(self) -> Sequence[int]:
        return [2] * len(self.drop)

    def tree_logits(self, joins: Sequence[Join]) -> Tensor:
        x = self.embedding.weight  # (V, C)
        for norm, drop, pairs in zip(self.norms, self.drop, joins, strict=False):
            assert self.join is not None
            x = gated_join(x, norm, self.join, drop, pairs)  # (X, C) -> (U, C)
        return linear(self.norms[-1](x), self.embedding.weight, self.bias)  # (U, V)
