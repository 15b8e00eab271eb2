"""The loss that training lowers and evaluation reports."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from charlm.linear import as_torch, for_numpy
from charlm.models.base import LanguageModel
from charlm.sharing import Shared
from charlm.windows import Windows

CHUNK = 4096
"""Windows to a forward pass where no gradient is wanted: fills the cache, not the memory."""


def summed_cross_entropy(logits: Tensor, place: Tensor, targets: Tensor) -> Tensor:
    """`cross_entropy(logits[place], targets, reduction="sum")`, for logits that are shared.

    With logits (U, V), place (N,) and targets (N,): a float64.
    """
    if not for_numpy(logits):
        shown = logits.index_select(0, place)
        return F.cross_entropy(shown, targets, reduction="none").double().sum()
    loss: Tensor = _CrossEntropy.apply(logits, place, targets)  # type: ignore[no-untyped-call]
    return loss


class _CrossEntropy(torch.autograd.Function):
    """-log softmax(logits) of the targets in sum, in a sixth of the time of torch's operations."""

    @staticmethod
    @as_torch
    def forward(ctx: Any, logits: Tensor, place: Tensor, targets: Tensor) -> Tensor:
        from charlm import kernels

        x, its = logits.detach().numpy(), (place.numpy(), targets.contiguous().numpy())
        exps, sums, largest = kernels.exponentials(x)
        ctx.exps, ctx.sums, ctx.its = exps, sums, its
        total = kernels.summed_losses(x, np.log(sums) + largest, *its)
        return torch.tensor(total, dtype=torch.float64)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        from charlm import kernels

        of_each = np.float32(grad.item())
        grad_logits = kernels.summed_losses_backward(ctx.exps, ctx.sums, *ctx.its, of_each)
        return torch.from_numpy(grad_logits), None, None


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
        yield model.share(contexts), targets
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
