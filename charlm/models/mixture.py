"""The mixture of all models: a weighted mean of their probabilities.

N batch, T context length, V vocabulary, M models.
"""

import inspect
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from charlm.models.base import LanguageModel, build


class Mixture(LanguageModel):
    """A mixture of models m: P(w | c) = sum_m weight_m P_m(w | c).

    Models that make different errors correct each other. `charlm.training.mixing` fits the weights
    to the validation windows.

    Args:
        vocab_size: V.
        block_size: T.
        members: for each model, its module of `charlm.models` and its hyperparameters.
    """

    title = "Mixture"

    weights: Tensor

    def __init__(
        self, vocab_size: int, block_size: int, members: list[tuple[str, dict[str, Any]]]
    ) -> None:
        super().__init__()
        self.members = nn.ModuleList(build(module, given) for module, given in members)
        forwards = [inspect.signature(model.forward) for model in self.members]
        self._take_targets = ["targets" in forward.parameters for forward in forwards]
        self.register_buffer("weights", torch.full((len(members),), 1 / max(len(members), 1)))

    def forward(self, contexts: Tensor, targets: Tensor | None = None) -> Tensor:
        probs = []
        for weight, model, takes in zip(
            self.weights, self.members, self._take_targets, strict=True
        ):
            logits = model(contexts, targets) if takes else model(contexts)  # (N, V)
            probs.append(weight * F.softmax(logits, dim=-1))
        return torch.log(sum(probs[1:], probs[0]))
