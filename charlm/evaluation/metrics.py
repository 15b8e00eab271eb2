"""How good a model is, from the loss of every single window."""

import math
import sys
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from charlm.core.files import DECIMALS
from charlm.data.splits import Part
from charlm.data.windows import Windows
from charlm.fast.losses import batched_logits
from charlm.models.base import LanguageModel


@torch.inference_mode()
def score(model: LanguageModel, windows: Windows) -> tuple[Tensor, Tensor]:
    """(W,) losses in nats, and (W,) whether the target was the likeliest token; on the CPU."""
    losses, correct = [], []
    for logits, targets in batched_logits(model, windows):
        losses.append(F.cross_entropy(logits, targets, reduction="none"))
        correct.append(logits.argmax(1) == targets)
    return torch.cat(losses).cpu(), torch.cat(correct).cpu()


def summarise(
    scores: Mapping[Part, tuple[Tensor, Tensor]], parameters: int
) -> dict[str, float | int]:
    """The metrics of one model from its losses and hits on every part of the split.

    A loss is the mean cross-entropy over all windows of a part, in nats per
    character (the end of a name counts as one); perplexity is its exponential;
    accuracy is the share of targets that the model finds likeliest. The standard
    error of the test loss is that of a mean over independent windows.
    """
    metrics: dict[str, float | int] = {}
    for part in Part:
        losses, _ = scores[part]
        metrics[f"{part.name.lower()}_loss"] = losses.double().mean().item()
    losses, correct = scores[Part.TEST]
    spread = losses.double().std().item() if len(losses) > 1 else 0.0
    metrics["test_loss_stderr"] = spread / math.sqrt(len(losses))
    metrics["test_perplexity"] = perplexity(metrics["test_loss"])
    metrics["test_bits_per_character"] = metrics["test_loss"] / math.log(2)
    metrics["test_accuracy"] = correct.double().mean().item()
    metrics = {name: round(value, DECIMALS) for name, value in metrics.items()}
    return {**metrics, "parameters": parameters}


def perplexity(loss: float) -> float:
    """The exponential of a loss in nats, or the largest float: JSON knows no infinity."""
    try:
        return math.exp(loss)
    except OverflowError:
        return sys.float_info.max
