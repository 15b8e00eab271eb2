"""What every model has in common."""

import inspect
from typing import Any, ClassVar

from torch import Tensor, nn


class LanguageModel(nn.Module):
    """Contexts (N, T) of tokens in, logits (N, V) of the next token out.

    A model is built from keyword arguments alone and keeps each of them under
    its own name, as scikit-learn's estimators do; so `hyperparameters()` can tell
    how to build it again.
    """

    title: ClassVar[str]
    """What a figure calls the model."""

    vocab_size: int
    block_size: int
    embedding: nn.Embedding

    def forward(self, contexts: Tensor) -> Tensor:
        raise NotImplementedError

    def hyperparameters(self) -> dict[str, Any]:
        """The arguments that build this architecture again."""
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}

    def num_parameters(self) -> int:
        """How many numbers training may change."""
        return sum(parameter.numel() for parameter in self.parameters())
