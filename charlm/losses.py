"""The loss that training lowers and evaluation reports."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from charlm.corpus import Windows
from charlm.models.base import LanguageModel

CHUNK = 4096
"""Windows to a forward pass where no gradient is wanted: fills the cache, not the memory."""


@torch.inference_mode()
def batched_logits(model: LanguageModel, windows: Windows) -> Iterator[tuple[Tensor, Tensor]]:
    """Logits (N, V) and targets (N,) of all windows in order, in chunks, in evaluation mode."""
    was_training = model.training
    model.eval()
    for start in range(0, len(windows), CHUNK):
        contexts, targets = windows.batch(slice(start, start + CHUNK))
        yield model(contexts), targets
    model.train(was_training)


@torch.inference_mode()
def summed_loss(model: LanguageModel, windows: Windows) -> Tensor:
    """Cross-entropy over all windows in sum, in nats: a float64 on their device."""
    total = torch.zeros((), dtype=torch.float64, device=windows.starts.device)
    for logits, targets in batched_logits(model, windows):
        total += F.cross_entropy(logits, targets, reduction="sum")
    return total


def mean_loss(model: LanguageModel, windows: Windows) -> float:
    """Mean cross-entropy over all windows, each counted once, in nats per character."""
    return summed_loss(model, windows).item() / len(windows)
