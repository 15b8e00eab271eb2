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
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from charlm.devices import for_numpy
from charlm.dropout import Dropout
from charlm.recipe import NormName
from charlm.sharing import Join, OrderedJoin, TableJoin

Floats = NDArray[np.float32]

as_torch = np.errstate(all="ignore")
"""Without NumPy's warnings: what is infinite is found in the loss."""


class Linear(nn.Linear):
    """`nn.Linear`, multiplied by NumPy where the numbers are float32 on a CPU: y = x W^T + b."""

    def forward(self, input: Tensor) -> Tensor:  # (..., in_features) -> (..., out_features)
        return linear(input, self.weight, self.bias)


def linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """y = x W^T + b (..., out), with x (..., in), W (out, in) and b (out,)."""
    if not for_numpy(x):
        return F.linear(x, weight, bias)
    y: Tensor = _Affine.apply(x, weight, bias)  # type: ignore[no-untyped-call]
    return y


class JoinedLinear(nn.Linear):
    """Neighbours joined, and a linear layer: y = x[rows] W^T + b.

    With x (X, C) and `Join.rows` (U, K) in, and y (U, out_features) out, where
    in_features = K * C.
    """

    def forward(self, x: Tensor, join: Join) -> Tensor:  # type: ignore[override]
        if not isinstance(join, TableJoin) or not for_numpy(x):
            joined = x if isinstance(join, OrderedJoin) else F.embedding(join.rows, x)  # (U, K, C)
            return super().forward(joined.reshape(-1, self.in_features))
        y: Tensor = _Joined.apply(x, self.weight, self.bias, join)  # type: ignore[no-untyped-call]
        return y


class JoinedTanh(JoinedLinear):
    """The same, then layer normalisation where it is asked for, tanh, and dropout likewise.

    Ba et al. (2016), equation 4, and Srivastava et al. (2014).
    """

    def __init__(
        self, in_features: int, out_features: int, norm: NormName = "none", dropout: float = 0.0
    ) -> None:
        super().__init__(in_features, out_features)
        self.norm = nn.LayerNorm(out_features) if norm == "layer" else None
        self.dropout = Dropout(dropout) if dropout else None

    @property
    def plain(self) -> bool:
        """Whether there is nothing but the tanh."""
        return self.norm is None and self.dropout is None

    def forward(self, x: Tensor, join: Join) -> Tensor:  # type: ignore[override]
        if self.norm is None and isinstance(join, TableJoin) and for_numpy(x):
            y: Tensor = _JoinedTanh.apply(x, self.weight, self.bias, join)  # type: ignore[no-untyped-call]
        else:
            y = super().forward(x, join)
            y = tanh(y if self.norm is None else self.norm(y))
        return y if self.dropout is None else self.dropout(y)


def tanh(x: Tensor) -> Tensor:
    """tanh, by `charlm.kernels` where the numbers are float32 on a CPU."""
    if not for_numpy(x):
        return torch.tanh(x)
    y: Tensor = _Tanh.apply(x)  # type: ignore[no-untyped-call]
    return y


def affine(x: Floats, weight: Floats, bias: Floats) -> Floats:
    """y = x W^T + b (..., out), with x (..., in), W (out, in) and b (out,)."""
    y: Floats = np.dot(x, weight.T)
    y += bias
    return y


def affine_backward(grad: Floats, x: Floats, weight: Floats) -> tuple[Floats, Floats, Floats]:
    """The gradients of x, W and b, from that of y (..., out)."""
    grad_rows, rows = grad.reshape(-1, grad.shape[-1]), x.reshape(-1, x.shape[-1])
    return np.dot(grad, weight), np.dot(grad_rows.T, rows), grad_rows.sum(0)


class _Affine(torch.autograd.Function):
    """`affine` for autograd."""

    @staticmethod
    @as_torch
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return torch.from_numpy(affine(*(a.detach().numpy() for a in (x, weight, bias))))

    @staticmethod
    @once_differentiable
    @as_torch
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, weight = (tensor.detach().numpy() for tensor in ctx.saved_tensors)
        grad_x, grad_weight, grad_bias = affine_backward(grad.numpy(), x, weight)
        return torch.from_numpy(grad_x), torch.from_numpy(grad_weight), torch.from_numpy(grad_bias)


class _Tanh(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        from charlm import kernels

        ctx.y = kernels.tanh(x.contiguous().detach().numpy().reshape(-1))
        return torch.from_numpy(ctx.y).reshape(x.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        from charlm import kernels

        before = kernels.tanh_backward(grad.contiguous().numpy().reshape(-1), ctx.y)
        return torch.from_numpy(before).reshape(grad.shape)


class _Joined(torch.autograd.Function):
    """y = sums of the rows of a table, and b, where the table holds W_k x for each place k.

    With x (X, C), W (H, K * C), b (H,), the table (R, H) and y (U, H).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, join: TableJoin) -> Tensor:
        from charlm import kernels

        its = (join.entries, join.begins, join.places)
        y, *saved = kernels.joined(*(a.detach().numpy() for a in (x, weight, bias)), *its)
        ctx.saved = (*saved, *its, len(x))
        return torch.from_numpy(y)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        from charlm import kernels

        grads = kernels.joined_backward(grad.contiguous().numpy(), *ctx.saved)
        grad_x, grad_weight, grad_bias = map(torch.from_numpy, grads)
        return grad_x, grad_weight, grad_bias, None


class _JoinedTanh(torch.autograd.Function):
    """tanh of `_Joined`, in one loop."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, join: TableJoin) -> Tensor:
        from charlm import kernels

        its = (join.entries, join.begins, join.places)
        y, *saved = kernels.joined_tanh(*(a.detach().numpy() for a in (x, weight, bias)), *its)
        ctx.saved = (y, *saved, *its, len(x))
        return torch.from_numpy(y)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        from charlm import kernels

        grads = kernels.joined_tanh_backward(grad.contiguous().numpy(), *ctx.saved)
        grad_x, grad_weight, grad_bias = map(torch.from_numpy, grads)
        return grad_x, grad_weight, grad_bias, None
