"""Functions of single numbers that give the same bytes on every x86-64 processor, fast.

torch leaves its tanh to MKL, whose only kernels that are alike on Intel and AMD (see `charlm`)
take twice as long as NumPy's: 250 against 130 microseconds for 256 times 300 numbers.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def tanh(x: Tensor) -> Tensor:
    """The hyperbolic tangent, by NumPy where the numbers are float32 on a CPU."""
    if x.device.type != "cpu" or x.dtype != torch.float32:
        return torch.tanh(x)
    y: Tensor = _Tanh.apply(x)  # type: ignore[no-untyped-call]
    return y


class _Tanh(torch.autograd.Function):
    """y = tanh(x), so that dy/dx = 1 - y^2."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = torch.from_numpy(np.tanh(x.detach().numpy()))
        ctx.save_for_backward(y)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        grad_x: Tensor = torch.ops.aten.tanh_backward(grad, y)
        return grad_x
