"""A linear layer that gives the same bytes on every x86-64 processor.

The matrix products of MKL, which torch uses, round otherwise on Intel than on AMD
(MKL_CBWR=AVX2 is heeded on Intel alone) and with two threads than with one; the
setting that is alike everywhere, COMPATIBLE, takes four times as long. OpenBLAS, which
NumPy brings, has the same kernels for both makers and takes them by name
(OPENBLAS_CORETYPE, see `charlm`), at a tenth more than MKL's time.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class Linear(nn.Linear):
    """`nn.Linear`, multiplied by NumPy where the numbers are float32 on a CPU: y = x W^T + b."""

    def forward(self, input: Tensor) -> Tensor:  # (..., in_features) -> (..., out_features)
        if input.device.type != "cpu" or input.dtype != torch.float32:
            return super().forward(input)
        flat = input.reshape(-1, self.in_features)
        y: Tensor = _Affine.apply(flat, self.weight, self.bias)  # type: ignore[no-untyped-call]
        return y.view(*input.shape[:-1], self.out_features)


class _Affine(torch.autograd.Function):
    """y = x W^T + b, with x (N, in), W (out, in) and b (out,).

    All of it in NumPy: at these sizes what torch spends on each of its operations shows.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        with _as_torch():
            y = np.dot(x.detach().numpy(), weight.detach().numpy().T)
            y += bias.detach().numpy()
        return torch.from_numpy(y)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:
        x, weight = (tensor.detach().numpy() for tensor in ctx.saved_tensors)
        grad_y = grad.numpy()
        with _as_torch():
            grad_x = torch.from_numpy(np.dot(grad_y, weight)) if ctx.needs_input_grad[0] else None
            grad_weight = torch.from_numpy(np.dot(grad_y.T, x))
            return grad_x, grad_weight, torch.from_numpy(grad_y.sum(0))


def _as_torch() -> np.errstate:
    """Without warnings: what is infinite is found in the loss."""
    return np.errstate(all="ignore")
