"""Linear layers that give the same bytes on every x86-64 processor.

The matrix products of MKL, which torch uses, round otherwise on Intel than on AMD
(MKL_CBWR=AVX2 is heeded on Intel alone) and with two threads than with one; the
setting that is alike everywhere, COMPATIBLE, takes four times as long, and MKL's tanh twice.
OpenBLAS, which NumPy brings, has the same kernels for both makers and takes them by name
(OPENBLAS_CORETYPE, see `charlm`), at a tenth more than MKL's time.
"""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from charlm.core.recipe import NormName
from charlm.fast import kernels
from charlm.fast.devices import for_numpy
from charlm.fast.dropout import Dropout
from charlm.fast.functions import Kept, differentiable
from charlm.fast.sharing import Join, OrderedJoin, TableJoin

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
    return _affine(x, weight, bias)


class JoinedLinear(nn.Linear):
    """Neighbours joined, and a linear layer: y = x[rows] W^T + b.

    With x (X, C) and `Join.rows` (U, K) in, and y (U, out_features) out, where
    in_features = K * C.

    Attributes:
        parts: how many layers of one size it is, whose outputs stand side by side.
    """

    def __init__(self, in_features: int, out_features: int, parts: int = 1) -> None:
        super().__init__(in_features, out_features)
        self.parts = parts

    def forward(self, x: Tensor, join: Join) -> Tensor:  # type: ignore[override]
        if not isinstance(join, TableJoin) or not for_numpy(x):
            joined = x if isinstance(join, OrderedJoin) else F.embedding(join.rows, x)  # (U, K, C)
            return super().forward(joined.reshape(-1, self.in_features))
        return _joined(x, self.weight, self.bias, join)


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
            y = _joined_tanh(x, self.weight, self.bias, join)
        else:
            y = super().forward(x, join)
            y = tanh(y if self.norm is None else self.norm(y))
        return y if self.dropout is None else self.dropout(y)


def tanh(x: Tensor) -> Tensor:
    """tanh, by `charlm.fast.kernels` where the numbers are float32 on a CPU."""
    if not for_numpy(x):
        return torch.tanh(x)
    return _tanh(x)


def affine(x: Floats, weight: Floats, bias: Floats) -> Floats:
    """y = x W^T + b (..., out), with x (..., in), W (out, in) and b (out,)."""
    y: Floats = np.dot(x, weight.T)
    y += bias
    return y


def affine_backward(grad: Floats, x: Floats, weight: Floats) -> tuple[Floats, Floats, Floats]:
    """The gradients of x, W and b, from that of y (..., out)."""
    grad_rows, rows = grad.reshape(-1, grad.shape[-1]), x.reshape(-1, x.shape[-1])
    return np.dot(grad, weight), np.dot(grad_rows.T, rows), grad_rows.sum(0)


def _compute_affine(x: Floats, weight: Floats, bias: Floats) -> tuple[Floats, Kept]:
    return affine(x, weight, bias), (x, weight)


def _compute_tanh(x: Floats) -> tuple[Floats, Kept]:
    y = kernels.tanh(x.reshape(-1))
    return y.reshape(x.shape), (y,)


def _tanh_gradients(grad: Floats, y: Floats) -> tuple[Floats]:
    return (kernels.tanh_backward(grad.reshape(-1), y).reshape(grad.shape),)


def _compute_joined(
    x: Floats, weight: Floats, bias: Floats, join: TableJoin
) -> tuple[Floats, Kept]:
    its = (join.entries, join.begins, join.places)
    y, *kept = kernels.joined(x, weight, bias, *its)
    return y, (*kept, *its, len(x))


def _compute_joined_tanh(
    x: Floats, weight: Floats, bias: Floats, join: TableJoin
) -> tuple[Floats, Kept]:
    its = (join.entries, join.begins, join.places)
    y, *kept = kernels.joined_tanh(x, weight, bias, *its)
    return y, (y, *kept, *its, len(x))


_affine = differentiable(as_torch(_compute_affine), as_torch(affine_backward))
_tanh = differentiable(_compute_tanh, _tanh_gradients)
_joined = differentiable(_compute_joined, kernels.joined_backward)
_joined_tanh = differentiable(_compute_joined_tanh, kernels.joined_tanh_backward)
