"""The WaveNet: a tree that merges neighbors in pairs.

N batch, T context length, C channels, H hidden units, V vocabulary.
"""

import torch
from torch import Tensor, nn

from charlm.models.base import LanguageModel, binary_levels


class WaveNet(LanguageModel):
    """Merges neighbors in pairs, with a tanh layer at each level, until one position is left.

    The tree of dilated convolutions of van den Oord et al. (2016), figure 3, evaluated only at the
    last position, without gates, residual or skip connections. The receptive field is `block_size`,
    and the depth is log2(block_size).

    Raises ValueError if `block_size` is not a power of two.
    """

    title = "WaveNet"

    def __init__(
        self,
        vocab_size: int,
        block_size: int,
        embed_dim: int = 10,
        hidden_dim: int = 128,
        norm: str = "none",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        levels = binary_levels(block_size)
        channels = [embed_dim] + [hidden_dim] * levels  # inputs of each level and of the output
        self.embedding = nn.Embedding(vocab_size, embed_dim)
        self.tree = nn.ModuleList(nn.Linear(2 * c, hidden_dim) for c in channels[:-1])
        self.norms = nn.ModuleList(
            nn.LayerNorm(hidden_dim) if norm == "layer" else nn.Identity() for _ in self.tree
        )
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.output = nn.Linear(channels[-1], vocab_size)

    def forward(self, contexts: Tensor) -> Tensor:
        x = self.embedding(contexts)  # (N, T, C)
        for linear, norm in zip(self.tree, self.norms, strict=True):
            N, T, C = x.shape
            x = x.view(N, T // 2, 2 * C)  # concatenated neighbors
            x = torch.tanh(norm(linear(x)))  # (N, T/2, H)
            x = self.dropout(x)
        return self.output(x.squeeze(1))  # (N, V)
