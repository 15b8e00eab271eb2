"""The loss that training lowers and evaluation reports."""

from collections.abc import Iterator

import torch
from torch import Tensor

from charlm.corpus import Windows
from charlm.models.base import LanguageModel
from charlm.sharing import Shared

CHUNK = 4096
"""Windows to a forward pass where no gradient is wanted: fills the cache, not the memory."""


def summed_cross_entropy(logits: Tensor, place: Tensor, targets: Tensor) -> Tensor:
    """`cross_entropy(logits[place], targets, reduction="sum")`, for logits that are shared.

    With logits (U, V), place (N,) and targets (N,): the log-probability of each token, as many
    times as it follows. A float64, so that any number of threads comes to the same float32.
    """
    counts = torch.zeros_like(logits)
    ones = counts.new_ones(()).expand(targets.shape)
    counts.flatten().scatter_add_(0, place * logits.shape[1] + targets, ones)
    return -(logits.log_softmax(1) * counts).sum(1).double().sum()


@torch.inference_mode()
def batched_logits(model: LanguageModel, windows: Windows) -> Iterator[tuple[Tensor, Tensor]]:
    """Logits (N, V) and targets (N,) of all windows in order, in chunks, in evaluation mode."""
    for shared, targets in _chunks(model, windows):
        yield model(shared).index_select(0, shared.place), targets


def _chunks(model: LanguageModel, windows: Windows) -> Iterator[tuple[Shared, Tensor]]:
    """All windows in order, and meanwhile the model in evaluation mode."""
    was_training = model.training
    model.eval()
    for start in range(0, len(windows), CHUNK):
        contexts, targets = windows.batch(slice(start, start + CHUNK))
        (shared,) = model.share(contexts[None])
        yield shared, targets
    model.train(was_training)


@torch.inference_mode()
def summed_loss(model: LanguageModel, windows: Windows) -> Tensor:
    """Cross-entropy over all windows in sum, in nats: a float64 on their device."""
    total = torch.zeros((), dtype=torch.float64, device=windows.starts.device)
    for shared, targets in _chunks(model, windows):
        total += summed_cross_entropy(model(shared), shared.place, targets)
    return total


def mean_loss(model: LanguageModel, windows: Windows) -> float:
    """Mean cross-entropy over all windows, each counted once, in nats per character."""
    return summed_loss(model, windows).item() / len(windows)
