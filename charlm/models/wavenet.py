"""The WaveNet: a tree that joins neighbours two by two.

N batch, T context length (halved at each level), U distinct nodes of a level in the batch,
C channels, H hidden units, V vocabulary.
"""

from typing import ClassVar

from torch import Tensor, nn

from charlm.linear import JoinedTanh, Linear
from charlm.models.base import LanguageModel
from charlm.sharing import distinct, gather


def join_neighbours(nodes: Tensor, bound: int) -> tuple[Tensor, Tensor]:
    """The distinct pairs (U, 2) of neighbours in `nodes` (N, T), and (N, T // 2) which is where.

    Args:
        nodes: integers from 0 to `bound` - 1; T is even.
    """
    pairs, place = distinct(nodes.reshape(-1, 2), bound)
    return pairs, place.view(len(nodes), nodes.shape[1] // 2)


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
        self.tree = nn.ModuleList()
        channels = embed_dim
        for _ in range(block_size.bit_length() - 1):
            self.tree.append(JoinedTanh(2 * channels, hidden_dim))
            channels = hidden_dim
        self.output = Linear(channels, vocab_size)

    def forward(self, contexts: Tensor) -> Tensor:
        x, nodes = self.embedding.weight, contexts  # (V, C), (N, T) rows of x
        for level in self.tree:
            # Two neighbours to a node, and nodes over the same tokens are one row of x.
            pairs, nodes = join_neighbours(nodes, len(x))  # (U, 2), (N, T // 2)
            x = level(x, pairs)  # (U, H)
        logits = self.output(x)  # (U, V)
        return gather(logits, nodes.squeeze(1))  # (N, V)
