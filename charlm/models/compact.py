"""The compact WaveNet: a smaller WaveNet, whose levels can share their parameters.

N batch, T context length, C channels, V vocabulary.
"""

from itertools import cycle

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from charlm.models.base import LanguageModel, binary_levels


class CompactWaveNet(LanguageModel):
    """Merges neighbors in pairs until one position is left.

    The tree of dilated convolutions of van den Oord et al. (2016), figure 3, with gated units and
    residual connections (section 2.3, equation 2, with linear gate and filter), RMSNorm at each
    level (Zhang and Sennrich 2019), and tied embedding and output weights (Press and Wolf 2017).
    All levels share one layer, or, if `shared` is false, each level has its own, which is better
    for many names. There are V C + (4 C^2 + 2 C) K + (L + 1) C + V parameters in L levels, where
    L = log2(block_size), with K layers, where K is 1 or L.

    Raises ValueError if `block_size` is not a power of two.
    """

    title = "Compact WaveNet"

    def __init__(
        self,
        vocab_size: int,
        block_size: int,
        channels: int = 88,
        shared: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        levels = binary_levels(block_size)
        self.embedding = nn.Embedding(vocab_size, channels)
        nn.init.normal_(self.embedding.weight, std=0.5)
        layers = range(min(levels, 1) if shared else levels)
        self.value = nn.ModuleList(nn.Linear(2 * channels, channels) for _ in layers)
        self.gate = nn.ModuleList(nn.Linear(2 * channels, channels) for _ in layers)
        self.norms = nn.ModuleList(nn.RMSNorm(channels, eps=1e-5) for _ in range(levels + 1))
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.bias = nn.Parameter(torch.zeros(vocab_size))

    def forward(self, contexts: Tensor) -> Tensor:
        return self.output(self.features(contexts))  # (N, V)

    def features(self, contexts: Tensor) -> Tensor:
        """Return the features (N, C) of contexts (N, T)."""
        *norms, last_norm = self.norms
        x = self.embedding(contexts)  # (N, T, C)
        for norm, value, gate in zip(norms, cycle(self.value), cycle(self.gate), strict=False):
            N, T, C = x.shape
            pairs = norm(x).view(N, T // 2, 2 * C)  # concatenated neighbors
            gated = value(pairs) * gate(pairs)  # (N, T/2, C)
            x = x[:, 1::2] + self.dropout(gated)  # residual on the right neighbor
        return last_norm(x).squeeze(1)  # (N, C)

    def output(self, features: Tensor) -> Tensor:
        return F.linear(features, self.embedding.weight, self.bias)  # (N, V)
