"""Dropout whose masks come from a key, so that there is no generator whose state would be kept."""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from charlm.devices import for_numpy


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
        y: Tensor = _Dropout.apply(x, self.p, self.key)  # type: ignore[no-untyped-call]
        return y

    def extra_repr(self) -> str:
        return f"p={self.p}"


def drop_by(model: nn.Module, key: int) -> None:
    """Let a key of 63 bits decide what the next pass through a model drops."""
    torch.manual_seed(key)  # where it is not on a CPU
    for place, module in enumerate(model.modules()):
        if isinstance(module, Dropout):
            module.key = key ^ place << 32


class _Dropout(torch.autograd.Function):
    """The mask is worked out again on the way back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, p: float, key: int) -> Tensor:
        ctx.drawn = p, key
        return _dropped_out(x, p, key)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return _dropped_out(grad, *ctx.drawn), None, None


def _dropped_out(x: Tensor, p: float, key: int) -> Tensor:
    from charlm import kernels

    y = kernels.dropped_out(
        x.contiguous().detach().numpy().reshape(-1),
        np.uint32(key & 0xFFFFFFFF),
        np.uint32(key >> 32),
        np.uint32(round(p * 2**32)),
        np.float32(1 / (1 - p)),
    )
    return torch.from_numpy(y).reshape(x.shape)
