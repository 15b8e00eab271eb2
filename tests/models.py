"""Models in plain PyTorch that the tests build, train and sample like those of `charlm.models`."""

from typing import Any

import torch
from torch import Tensor, nn

from charlm.core.randomness import seeded
from charlm.models.base import LanguageModel
from charlm.models.wavenet import WaveNet


def new_model(
    architecture: type[LanguageModel], vocab_size: int, block_size: int, **options: Any
) -> LanguageModel:
    """Build a model with its own defaults except for `options`, initialized with seed 1."""
    with seeded(1, "init"):
        return architecture(vocab_size=vocab_size, block_size=block_size, **options)


class CausalTransformer(LanguageModel):
    """A small transformer with `nn.TransformerEncoderLayer` and torch's default dropout."""

    title = "Causal transformer"

    def __init__(
        self,
        vocab_size: int,
        block_size: int,
        channels: int = 16,
        heads: int = 4,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, channels)
        self.position = nn.Embedding(block_size, channels)
        self.layer = nn.TransformerEncoderLayer(
            channels, heads, 2 * channels, dropout, batch_first=True
        )
        self.output = nn.Linear(channels, vocab_size)

    def forward(self, contexts: Tensor) -> Tensor:
        T = contexts.shape[1]
        x = self.embedding(contexts) + self.position(torch.arange(T, device=contexts.device))
        mask = nn.Transformer.generate_square_subsequent_mask(T, device=contexts.device)
        x = self.layer(x, src_mask=mask, is_causal=True)
        logits: Tensor = self.output(x[:, -1])
        return logits


class GRU(LanguageModel):
    """A recurrent network with `nn.GRU`."""

    def __init__(self, vocab_size: int, block_size: int, channels: int = 12) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, channels)
        self.gru = nn.GRU(channels, channels, batch_first=True)
        self.output = nn.Linear(channels, vocab_size)

    def forward(self, contexts: Tensor) -> Tensor:
        states, _ = self.gru(self.embedding(contexts))
        logits: Tensor = self.output(states[:, -1])
        return logits


class BatchNormWaveNet(WaveNet):
    """A WaveNet with batch normalization after each level, over rows as in the course."""

    def __init__(self, vocab_size: int, block_size: int, **options: Any) -> None:
        super().__init__(vocab_size, block_size, **options)
        self.norms = nn.ModuleList(nn.BatchNorm1d(level.out_features) for level in self.tree)

    def forward(self, contexts: Tensor) -> Tensor:
        x = self.embedding(contexts)
        for linear, norm in zip(self.tree, self.norms, strict=True):
            N, T, C = x.shape
            x = linear(x.reshape(N, T // 2, 2 * C))
            x = self.dropout(torch.tanh(self.normalized(norm, x)))
        logits: Tensor = self.output(x.squeeze(1))
        return logits

    def normalized(self, norm: nn.Module, x: Any) -> Any:
        """Normalize x (N, P, H) over N and P."""
        N, P, H = x.shape
        return norm(x.view(N * P, H)).view(N, P, H)


class BatchNormOfChannelsWaveNet(BatchNormWaveNet):
    """The same, over (N, H, P) as in PyTorch's documentation."""

    def normalized(self, norm: nn.Module, x: Any) -> Any:
        return norm(x.transpose(1, 2)).transpose(1, 2)
