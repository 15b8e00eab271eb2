"""What every model has in common."""

import inspect
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

from torch import Tensor, nn

from charlm.fast.linear import JoinedTanh, Linear
from charlm.fast.sharing import Join, Shared, share


class Layers(NamedTuple):
    """The layers of a model, from its tokens to its logits."""

    embedding: nn.Embedding
    levels: Sequence[JoinedTanh]
    output: Linear

    @property
    def plain(self) -> bool:
        """Whether the levels are joined linear layers and tanh alone."""
        return all(level.plain for level in self.levels)


def binary_levels(block_size: int) -> int:
    """How many levels of pairs join a context of `block_size` tokens: its logarithm to base 2.

    Raises ValueError where it is not a power of two.
    """
    if block_size < 1 or block_size & (block_size - 1):
        raise ValueError(f"block_size {block_size} is not a power of two")
    return block_size.bit_length() - 1


class LanguageModel(nn.Module):
    """Contexts (N, T) of tokens in, logits (N, V) of the next token out.

    A model is a tree over the context: each level joins neighbours. It defines `arities`
    and `tree_logits`.

    A model is built from keyword arguments alone and keeps each of them under
    its own name, as scikit-learn's estimators do; so `hyperparameters()` can tell
    how to build it again.
    """

    title: ClassVar[str]
    """What a figure calls the model."""

    vocab_size: int
    block_size: int
    embedding: nn.Embedding

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "tree_logits" in vars(cls) and "layers" not in vars(cls):
            cls.layers = LanguageModel.layers  # type: ignore[method-assign]  # not its parent's

    @property
    def arities(self) -> Sequence[int]:
        """How many neighbours each level joins."""
        raise NotImplementedError

    def tree_logits(self, joins: Sequence[Join]) -> Tensor:
        """Logits (U, V) for each node of the last level, from the levels of the tree."""
        raise NotImplementedError

    def layers(self) -> Layers | None:
        """The model's layers where it has no others, and nothing between them; else None."""
        return None

    def share(self, contexts: Tensor) -> Shared:
        """The tree of a batch of contexts (N, T)."""
        return share(contexts, self.arities, self.vocab_size)

    def forward(self, contexts: Tensor | Shared) -> Tensor:
        """Logits (N, V) of contexts (N, T); or, of a `Shared`, (U, V) of its different ones."""
        if isinstance(contexts, Shared):
            return self.tree_logits(contexts.joins)
        shared = self.share(contexts)
        return shared.of_each(self.tree_logits(shared.joins))

    def hyperparameters(self) -> dict[str, Any]:
        """The arguments that build this architecture again."""
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}

    def num_parameters(self) -> int:
        """How many numbers training may change."""
        return sum(parameter.numel() for parameter in self.parameters())
