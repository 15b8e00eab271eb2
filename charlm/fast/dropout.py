"""Dropout whose masks come from a key, so that there is no generator whose state would be kept."""

from collections.abc import Sequence

import numpy as np
import torch.nn.functional as F
from torch import Tensor, nn

from charlm.fast import kernels
from charlm.fast.devices import for_numpy
from charlm.fast.functions import Kept, differentiable
from charlm.fast.kernels import Floats

Mask = tuple[np.uint32, np.uint32, np.uint32, np.float32]
"""The lower and the upper half of a key, a threshold, and what is not dropped is multiplied by."""


class Dropout(nn.Module):
    """While training each number is zero with probability p, and the others grow by 1 / (1 - p).

    Srivastava et al. (2014). Where nodes are shared, all contexts of a batch that share one have
    the same mask for it.

    Attributes:
        key: what decides the masks on a CPU; `drop_by` sets it.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p
        self.key = 0

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        if not for_numpy(x):
            return F.dropout(x, self.p)
        return _drop(x, self.mask())

    def mask(self) -> Mask:
        """What `charlm.fast.kernels` drops by; in evaluation mode nothing."""
        p = self.p if self.training else 0.0
        low, high = np.uint32(self.key & 0xFFFFFFFF), np.uint32(self.key >> 32)
        return low, high, np.uint32(round(p * 2**32)), np.float32(1 / (1 - p))

    def extra_repr(self) -> str:
        return f"p={self.p}"


def dropouts_of(model: nn.Module) -> list[Dropout]:
    """Those of a model that drop anything."""
    return [module for module in model.modules() if isinstance(module, Dropout) and module.p]


def drop_by(dropouts: Sequence[Dropout], key: int, rank: int = 0) -> None:
    """Let a key of 63 bits decide what the next pass through a model drops.

    Args:
        dropouts: all of the model's.
        rank: of the process, each of which drops otherwise.
    """
    for place, dropout in enumerate(dropouts, start=rank * len(dropouts)):
        dropout.key = key ^ place << 32


def _compute(x: Floats, mask: Mask) -> tuple[Floats, Kept]:
    return _dropped_out(x, mask), (mask,)


def _gradients(grad: Floats, mask: Mask) -> tuple[Floats]:
    return (_dropped_out(grad, mask),)


def _dropped_out(x: Floats, mask: Mask) -> Floats:
    y: Floats = kernels.dropped_out(x.reshape(-1), mask)
    return y.reshape(x.shape)


_drop = differentiable(_compute, _gradients)
