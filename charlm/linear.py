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

from charlm.sharing import Join, TableJoin

Floats = NDArray[np.float32]


class Linear(nn.Linear):
    """`nn.Linear`, multiplied by NumPy where the numbers are float32 on a CPU: y = x W^T + b."""

    def forward(self, input: Tensor) -> Tensor:  # (..., in_features) -> (..., out_features)
        if not _for_numpy(input):
            return super().forward(input)
        flat = input.reshape(-1, self.in_features)
        y: Tensor = _Affine.apply(flat, self.weight, self.bias)  # type: ignore[no-untyped-call]
        return y.view(*input.shape[:-1], self.out_features)


class JoinedTanh(nn.Linear):
    """Neighbours joined, a linear layer and tanh: y = tanh(x[rows] W^T + b).

    With x (X, C) and `Join.rows` (U, K) in, and y (U, out_features) out, where
    in_features = K * C.
    """

    def forward(self, x: Tensor, join: Join) -> Tensor:  # type: ignore[override]
        if not isinstance(join, TableJoin) or not _for_numpy(x):
            return torch.tanh(super().forward(F.embedding(join.rows, x).flatten(start_dim=1)))
        y: Tensor = _JoinedTanh.apply(x, self.weight, self.bias, join)  # type: ignore[no-untyped-call]
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
    """y = tanh(sums of the rows of a table, and b), where the table holds W_k x for each place k.

    With x (X, C), W (H, K * C), b (H,), the table (R, H) and y (U, H).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, join: TableJoin) -> Tensor:
        table = _multiply(x.detach().numpy(), weight.detach().numpy(), join)
        table[: _first(join)] += bias.detach().numpy()
        y = join.sum(torch.from_numpy(table))
        _tanh(y.numpy())
        ctx.save_for_backward(x, weight, y)
        ctx.join = join
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x, weight, y = ctx.saved_tensors
        join = ctx.join
        table = join.sum_back(torch.ops.aten.tanh_backward(grad, y)).numpy()
        grad_bias = table[: _first(join)].sum(0)
        grads = _multiply_back(table, x.detach().numpy(), weight.detach().numpy(), join)
        grad_x, grad_weight, grad_bias = map(torch.from_numpy, (*grads, grad_bias))
        return grad_x, grad_weight, grad_bias, None


def _tanh(a: Floats) -> None:
    """tanh a = 1 - 2 / (exp(2 a) + 1) in place, in 0.6 of the time of NumPy's own.

    torch's sigmoid would be faster yet, but rounds otherwise where a thread's share ends.
    """
    with _as_torch():
        a += a
        np.exp(a, out=a)
        a += 1
        np.divide(2, a, out=a)
        np.subtract(1, a, out=a)


def _first(join: TableJoin) -> int:
    """How many rows of the table are those of the first place; each sum has one of them."""
    count: int = join.slots[0].stop - join.slots[0].start
    return count


def _multiply(x: Floats, weight: Floats, join: TableJoin) -> Floats:
    """The table (R, H): for each place the rows of x (X, C) found there, by its part of W."""
    H, C = len(weight), x.shape[1]
    parts = weight.reshape(H, -1, C).transpose(1, 2, 0)  # (K, C, H)
    with _as_torch():
        if join.alike:
            every: Floats = np.matmul(x[join.slots[0]], parts)
            return every.reshape(-1, H)
        table: Floats = np.empty((sum(slot.stop - slot.start for slot in join.slots), H), x.dtype)
        begin = 0
        for slot, part in zip(join.slots, parts, strict=True):
            end = begin + slot.stop - slot.start
            np.dot(x[slot], part, out=table[begin:end])
            begin = end
        return table


def _multiply_back(
    table: Floats, x: Floats, weight: Floats, join: TableJoin
) -> tuple[Floats, Floats]:
    """The gradients of x and W, from that of the table."""
    H, C = len(weight), x.shape[1]
    parts = weight.reshape(H, -1, C).transpose(1, 0, 2)  # (K, H, C)
    grad_x, grad_weight = np.zeros_like(x), np.empty_like(weight)
    grad_parts = grad_weight.reshape(H, -1, C).transpose(1, 0, 2)
    with _as_torch():
        if join.alike:
            slot = join.slots[0]
            tables = table.reshape(len(parts), -1, H)
            np.matmul(tables, parts).sum(0, out=grad_x[slot])
            np.matmul(tables.transpose(0, 2, 1), x[slot], out=grad_parts)
            return grad_x, grad_weight
        begin = 0
        for slot, part, grad_part in zip(join.slots, parts, grad_parts, strict=True):
            end = begin + slot.stop - slot.start
            grad_x[slot] += np.dot(table[begin:end], part)
            grad_part[...] = np.dot(table[begin:end].T, x[slot])
            begin = end
        return grad_x, grad_weight


def _as_torch() -> np.errstate:
    """Without warnings: what is infinite is found in the loss."""
    return np.errstate(all="ignore")
