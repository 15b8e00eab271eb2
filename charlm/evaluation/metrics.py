"""Metrics of a model, computed from the loss of every window."""

import math
import sys
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from charlm.core.files import DECIMALS
from charlm.data.splits import FEW_WINDOWS, Part
from charlm.data.windows import Windows
from charlm.fast.running import Model, batched_logits

MEMORIZED = 0.4
"""A model has memorized its training names if its validation loss minus its training loss exceeds
this, in nats."""


@torch.inference_mode()
def score(model: Model, windows: Windows, leave_out: bool = False) -> tuple[Tensor, Tensor]:
    """Return losses (W,) in nats and whether the most likely token is correct (W,), on the CPU.

    With `leave_out`, a model with n-gram counts leaves each window out of its counts. Use it for
    the training windows, as in training.
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

    A loss is the mean cross-entropy over all windows of a part, in nats per character, counting the
    end of a name as a character. Perplexity is its exponential. Accuracy is the fraction of targets
    that were the most likely token. The standard error of the test loss assumes independent
    windows. `memorized` is whether the generalization gap exceeds `MEMORIZED`.
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


def as_text(measured: Mapping[str, Mapping[str, float | int]], windows: int) -> str:
    """Format the test loss, its standard error and the size of each model.

    A note is added if the number of test windows is below `FEW_WINDOWS`.
    """
    lines = [
        f"{name:10} test loss {metrics['test_loss']:#.5g} ± {metrics['test_loss_stderr']:.1g}, "
        f"{metrics['parameters']:,} parameters"
        for name, metrics in measured.items()
    ]
    if windows < FEW_WINDOWS:
        size = f"{windows} window{'s' * (windows > 1)}"
        lines.append(f"the test set has only {size}, so these losses say little; use more names")
    return "\n".join(lines)


def perplexity(loss: float) -> float:
    """Return exp(loss), capped at the largest float because JSON has no infinity."""
    try:
        return math.exp(loss)
    except OverflowError:
        return sys.float_info.max
