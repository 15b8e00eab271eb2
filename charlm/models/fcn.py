"""The fully connected net.

U different contexts, T context length, C embedding channels, H hidden units, V vocabulary.
"""

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn

from charlm.core.recipe import NormName
from charlm.fast.linear import JoinedTanh, Linear
from charlm.fast.sharing import Join
from charlm.models.base import LanguageModel, Layers


class FCN(LanguageModel):
    """Embed each token, join the whole context, one tanh layer, output.

    The neural probabilistic language model of Bengio et al. (2003), equation 1,
    without its direct connections from the embedding to the output.
    """

    title: ClassVar[str] = "Fully connected net"

    def __init__(
        self,
        *,
        vocab_size: int,
        block_size: int,
        embed_dim: int = 10,
        hidden_dim: int = 300,
        norm: NormName = "none",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.vocab_size = vocab_size
        self.block_size = block_size
        self.embed_dim = embed_dim
        self.hidden_dim = hidden_dim
        self.norm = norm
        self.dropout = dropout
        self.embedding = nn.Embedding(vocab_size, embed_dim)
        self.hidden = JoinedTanh(block_size * embed_dim, hidden_dim, norm, dropout)
        self.output = Linear(hidden_dim, vocab_size)

    @property
    def arities(self) -> Sequence[int]:
        return [self.block_size]

    def layers(self) -> Layers:
        return Layers(self.embedding, [self.hidden], self.output)

    def tree_logits(self, joins: Sequence[Join]) -> Tensor:
        (whole,) = joins
        x = self.hidden(self.embedding.weight, whole)  # (V, C) -> (U, H)
        logits: Tensor = self.output(x)  # (U, V)
        return logits
