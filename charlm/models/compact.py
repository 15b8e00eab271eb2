"""The compact WaveNet: the same tree with few parameters, shared by all levels.

N batch, T context length, C channels, V vocabulary.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from charlm.models.base import LanguageModel, binary_levels


class CompactWaveNet(LanguageModel):
    """Joins neighbors in pairs until one position is left, with the same layer at each level.

    The tree of dilated convolutions of van den Oord et al. (2016), figure 3, with gated units
    and residual connections (section 2.3, equation 2, with linear gate and filter), RMSNorm at
    each level (Zhang and Sennrich 2019), one layer shared by all levels, and the embedding tied
    to the output layer (Press and Wolf 2017). It has V C + 4 C^2 + 2 C + (L + 1) C + V
    parameters, with L = log2(block_size).

    Raises ValueError if `block_size` is not a power of two.
    """

    title = "Compact WaveNet"

    def __init__(
        self, vocab_size: int, block_size: int, channels: int = 88, dropout: float = 0.0
    ) -> None:
        super().__init__()
        levels = binary_levels(block_size)
        self.embedding = nn.Embedding(vocab_size, channels)
        nn.init.normal_(self.embedding.weight, std=0.5)
        self.value = nn.Linear(2 * channels, channels) if levels else nn.Identity()
        self.gate = nn.Linear(2 * channels, channels) if levels else nn.Identity()
        self.norms = nn.ModuleList(nn.RMSNorm(channels, eps=1e-5) for _ in range(levels + 1))
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.bias = nn.Parameter(torch.zeros(vocab_size))

    def forward(self, contexts: Tensor) -> Tensor:
        return self.output(self.features(contexts))  # (N, V)

    def features(self, contexts: Tensor) -> Tensor:
        """Return features (N, C) of the contexts (N, T)."""
        *norms, last_norm = self.norms
        x = self.embedding(contexts)  # (N, T, C)
        for norm in norms:
            N, T, C = x.shape
            pairs = norm(x).view(N, T // 2, 2 * C)  # concatenated neighbors
            gated = self.value(pairs) * self.gate(pairs)  # (N, T/2, C)
            x = x[:, 1::2] + self.dropout(gated)  # residual on the right neighbor
        return last_norm(x).squeeze(1)  # (N, C)

    def output(self, features: Tensor) -> Tensor:
        return F.linear(features, self.embedding.weight, self.bias)  # (N, V)
