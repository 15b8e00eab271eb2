"""Linear layers that give the same bytes on every x86-64 processor.

The matrix products of MKL, which torch uses, round otherwise on Intel than on AMD
(MKL_CBWR=AVX2 is heeded on Intel alone) and with two threads than with one; the
setting that is alike everywhere, COMPATIBLE, takes four times as long, and MKL's tanh twice.
OpenBLAS, which NumPy brings, has the same kernels for both makers and takes them by name
(OPENBLAS_CORETYPE, see `charlm`), at a tenth more than MKL's time.

At a batch's size an operation of torch costs as much before it begins as a tenth of a
product, and its gradient again; so a layer is one function here.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from charlm.sharing import gather, sum_rows


class Linear(nn.Linear):
    """`nn.Linear`, multiplied by NumPy where the numbers are float32 on a CPU: y = x W^T + b."""

    def forward(self, input: Tensor) -> Tensor:  # (..., in_features) -> (..., out_features)
        if not _for_numpy(input):
            return super().forward(input)
        flat = input.reshape(-1, self.in_features)
        y: Tensor = _Affine.apply(flat, self.weight, self.bias)  # type: ignore[no-untyped-call]
        return y.view(*input.shape[:-1], self.out_features)


class JoinedTanh(nn.Linear):
    """Rows of x joined, a linear layer and tanh: y = tanh(x[rows] W^T + b).

    With x (M, C) and rows (U, K) in, and y (U, out_features) out, where in_features = K * C.
    """

    def forward(self, x: Tensor, rows: Tensor) -> Tensor:  # type: ignore[override]
        if not _for_numpy(x):
            return torch.tanh(super().forward(gather(x, rows).flatten(start_dim=1)))
        y: Tensor = _JoinedTanh.apply(x, rows, self.weight, self.bias)  # type: ignore[no-untyped-call]
        return y


def _for_numpy(x: Tensor) -> bool:
    return x.device.type == "cpu" and x.dtype == torch.float32


class _Affine(torch.autograd.Function):
    """y = x W^T + b, with x (N, in), W (out, in) and b (out,)."""

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


class _JoinedTanh(torch.autograd.Function):
    """y = tanh(x[rows] W^T + b), so that dy = (1 - y^2) (dx[rows] W^T + x[rows] dW^T + db)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, rows: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        joined = x.detach().numpy().take(rows.numpy(), axis=0).reshape(len(rows), weight.shape[1])
        with _as_torch():
            y = np.dot(joined, weight.detach().numpy().T)
            y += bias.detach().numpy()
            np.tanh(y, out=y)
        result = torch.from_numpy(y)
        ctx.save_for_backward(rows, weight, result)
        ctx.joined, ctx.count = joined, len(x)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None, Tensor, Tensor]:
        rows, weight, y = ctx.saved_tensors
        with _as_torch():
            grad_y = np.square(y.numpy())
            np.subtract(1, grad_y, out=grad_y)
            grad_y *= grad.numpy()
            grad_x = None
            if ctx.needs_input_grad[0]:
                grad_joined = np.dot(grad_y, weight.detach().numpy())
                by_row = torch.from_numpy(
                    grad_joined.reshape(rows.numel(), weight.shape[1] // rows.shape[1])
                )
                grad_x = sum_rows(by_row, rows.reshape(-1), ctx.count)
            grad_weight = torch.from_numpy(np.dot(grad_y.T, ctx.joined))
            return grad_x, None, grad_weight, torch.from_numpy(grad_y.sum(0))


def _as_torch() -> np.errstate:
    """Without warnings: what is infinite is found in the loss."""
    return np.errstate(all="ignore")
