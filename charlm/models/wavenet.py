"""The WaveNet: a tree that joins neighbours two by two.

U different nodes of a level, C channels, H hidden units, V vocabulary.
"""

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn

from charlm.core.recipe import NormName
from charlm.fast.linear import JoinedTanh, Linear
from charlm.fast.sharing import Join
from charlm.models.base import LanguageModel, Layers, binary_levels


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
        self,
        *,
        vocab_size: int,
        block_size: int,
        embed_dim: int = 10,
        hidden_dim: int = 128,
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
        tree = []
        channels = embed_dim
        for _ in range(binary_levels(block_size)):
            tree.append(JoinedTanh(2 * channels, hidden_dim, norm, dropout))
            channels = hidden_dim
        self.tree: Sequence[JoinedTanh] = nn.ModuleList(tree)  # type: ignore[assignment]
        self.output = Linear(channels, vocab_size)

    @property
    def arities(self) -> Sequence[int]:
        return [2] * len(self.tree)

    def layers(self) -> Layers:
        return Layers(self.embedding, self.tree, self.output)

    def tree_logits(self, joins: Sequence[Join]) -> Tensor:
        x = self.embedding.weight  # (V, C)
        for level, pairs in zip(self.tree, joins, strict=True):
            x = level(x, pairs)  # (U, H)
        logits: Tensor = self.output(x)  # (U, V)
        return logits
