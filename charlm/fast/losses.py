"""The loss that training lowers and evaluation reports."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from charlm.data.windows import Windows
from charlm.fast import kernels
from charlm.fast.devices import for_numpy, widest
from charlm.fast.functions import differentiable
from charlm.fast.linear import Floats, as_torch
from charlm.fast.sharing import Shared
from charlm.models.base import LanguageModel

CHUNK = 4096
"""Windows to a forward pass where no gradient is wanted: fills the cache, not the memory."""


def summed_cross_entropy(logits: Tensor, shared: Shared, targets: Tensor) -> Tensor:
    """`cross_entropy(logits[shared.place], targets, reduction="sum")`, for logits that are shared.

    With logits (U, V) and targets (N,): a float64, or on MPS a float32.
    """
    if not for_numpy(logits):
        losses = F.cross_entropy(shared.of_each(logits), targets, reduction="none")
        return losses.to(widest(losses.device)).sum()
    return _cross_entropy(logits, shared.place, targets)


Loss = Callable[[Tensor, Shared, Tensor, Tensor], Tensor]
"""What training lowers, summed over a batch: of the logits (U, V) of its different contexts, how it
shares them, its contexts (N, T) and its targets (N,)."""


def cross_entropy_loss(logits: Tensor, shared: Shared, contexts: Tensor, targets: Tensor) -> Tensor:
    """The `Loss` of the targets: `summed_cross_entropy`."""
    return summed_cross_entropy(logits, shared, targets)


Integers = NDArray[np.integer]
Saved = tuple[Floats, Floats, Integers, Integers]
"""The exponentials (U, V) of a softmax and their sums (U,), places (N,) and targets (N,)."""


def cross_entropy(logits: Floats, place: Integers, targets: Integers) -> tuple[np.float64, Saved]:
    """-log softmax(logits) of the targets in sum, in a sixth of the time of torch's operations.

    With logits (U, V), place (N,) and targets (N,). Returns besides what `cross_entropy_backward`
    needs.
    """
    exps, sums, largest = kernels.exponentials(logits)
    total = kernels.summed_losses(logits, np.log(sums) + largest, place, targets)
    return np.float64(total), (exps, sums, place, targets)


def cross_entropy_backward(of_each: float, saved: Saved) -> Floats:
    """The gradient of the logits (U, V), where each of the N losses counts `of_each`."""
    gradient: Floats = kernels.summed_losses_backward(*saved, np.float32(of_each))
    return gradient


def _gradients(grad: NDArray[np.float64], *saved: *Saved) -> tuple[Floats]:
    return (cross_entropy_backward(grad.item(), saved),)


_cross_entropy = differentiable(as_torch(cross_entropy), _gradients)


@torch.inference_mode()
def batched_logits(model: LanguageModel, windows: Windows) -> Iterator[tuple[Tensor, Tensor]]:
    """Logits (N, V) and targets (N,) of all windows in order, in chunks, in evaluation mode."""
    for shared, targets in _chunks(model, windows):
        yield shared.of_each(model(shared)), targets


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
    """Cross-entropy over all windows in sum, in nats, on their device."""
    device = windows.starts.device
    total = torch.zeros((), dtype=widest(device), device=device)
    for shared, targets in _chunks(model, windows):
        total += summed_cross_entropy(model(shared), shared, targets)
    return total


def mean_loss(model: LanguageModel, windows: Windows) -> float:
    """Mean cross-entropy over all windows, each counted once, in nats per character."""
    return summed_loss(model, windows).item() / len(windows)
