"""Metrics of a model, computed from the loss of every window."""

import math
import sys
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from charlm.core.files import DECIMALS
from charlm.data.splits import Part
from charlm.data.windows import Windows
from charlm.fast.running import Model, batched_logits

MEMORIZED = 0.4
"""Validation loss minus training loss, in nats, above which a model has memorized its names."""


@torch.inference_mode()
def score(model: Model, windows: Windows, leave_out: bool = False) -> tuple[Tensor, Tensor]:
    """Return losses (W,) in nats and whether the most likely token is right (W,), on the CPU.

    With `leave_out`, each window is left out of the counts of a model that has counted it: for
    training windows, as in training.
    """
    losses, correct = [], []
    for logits, targets in batched_logits(model, windows, leave_out):
        losses.append(F.cross_entropy(logits, targets, reduction="none"))
        correct.append(logits.argmax(1) == targets)
    return torch.cat(losses).cpu(), torch.cat(correct).cpu()


def summarize(
    scores: Mapping[Part, tuple[Tensor, Tensor]], parameters: int
) -> dict[str, float | int]:
    """Compute a model's metrics from the output of `score` on each part of the split.

    A loss is the mean cross-entropy over all windows of a part, in nats per character (the end
    of a name counts as one); perplexity is its exponential; accuracy is the fraction of targets
    that were the most likely token. The standard error of the test loss treats windows as
    independent. A model has memorized its training names if it predicts them far better than the
    others.
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
    memorized = metrics["val_loss"] - metrics["train_loss"] > MEMORIZED
    return {**metrics, "parameters": parameters, "memorized": memorized}


def in_a_line(name: str, metrics: Mapping[str, float | int]) -> str:
    """Format the test loss, its standard error and the size of a model."""
    loss, error = metrics["test_loss"], metrics["test_loss_stderr"]
    return f"{name:10} test loss {loss:#.5g} ± {error:.1g}, {metrics['parameters']:,} parameters"


def perplexity(loss: float) -> float:
    """Return exp(loss), capped at the largest float since JSON has no infinity."""
    try:
        return math.exp(loss)
    except OverflowError:
        return sys.float_info.max
