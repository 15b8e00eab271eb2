"""The fully connected net.

N batch, T context length, C embedding channels, H hidden units, V vocabulary.
"""

import torch
from torch import Tensor, nn

from charlm.models.base import LanguageModel


class FCN(LanguageModel):
    """Concatenated embeddings of the context, a tanh layer, and an output layer.

    The neural probabilistic language model of Bengio et al. (2003), equation 1, without direct
    connections from the embedding to the output.
    """

    title = "Fully connected net"

    def __init__(
        self,
        vocab_size: int,
        block_size: int,
        embed_dim: int = 10,
        hidden_dim: int = 300,
        norm: str = "none",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, embed_dim)
        self.hidden = nn.Linear(block_size * embed_dim, hidden_dim)
        self.norm = nn.LayerNorm(hidden_dim) if norm == "layer" else nn.Identity()
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.output = nn.Linear(hidden_dim, vocab_size)

    def forward(self, contexts: Tensor) -> Tensor:
        x = self.embedding(contexts)  # (N, T, C)
        x = self.hidden(x.flatten(1))  # (N, H)
        x = self.dropout(torch.tanh(self.norm(x)))
        return self.output(x)  # (N, V)
