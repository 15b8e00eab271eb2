"""What the compact WaveNet is made of beside linear layers: normalisation, and gates.

Each is one function with its gradient written out, as in `charlm.linear`.

U different nodes of a level, C channels.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from charlm.devices import for_numpy
from charlm.sharing import Join, TableJoin

EPSILON = 1e-5


class RMSNorm(nn.Module):
    """Each row over the root of its mean square, times a weight for each channel.

    Zhang and Sennrich (2019), equation 4: (..., C) -> (..., C).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        if not for_numpy(x):
            return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + EPSILON) * self.weight
        y: Tensor = _RMSNorm.apply(x, self.weight)  # type: ignore[no-untyped-call]
        return y


def gated(pairs: Tensor) -> Tensor:
    """The product of the two halves of each row: (U, 2 C) -> (U, C).

    A gated linear unit (Dauphin et al. 2017, section 3) whose gate is linear too: "bilinear" in
    Shazeer (2020), equation 5.
    """
    if not for_numpy(pairs):
        value, gate = pairs.chunk(2, dim=1)
        return value * gate
    y: Tensor = _Gated.apply(pairs)  # type: ignore[no-untyped-call]
    return y


def with_last(x: Tensor, h: Tensor, join: Join) -> Tensor:
    """A residual connection: to h (U, C) the last of what was joined of x (X, C) is added."""
    if not (isinstance(join, TableJoin) and for_numpy(x)):
        return x[join.rows[:, -1]] + h
    last = join.entries[join.places[:, -1]]
    y: Tensor = _WithLast.apply(x, h, last)  # type: ignore[no-untyped-call]
    return y


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        from charlm import kernels

        ctx.saved = x.detach().contiguous().numpy(), weight.detach().numpy()
        y, ctx.scales = kernels.rms_norm(*ctx.saved, np.float32(EPSILON))
        return torch.from_numpy(y)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        from charlm import kernels

        grads = kernels.rms_norm_backward(grad.contiguous().numpy(), *ctx.saved, ctx.scales)
        grad_x, grad_weight = map(torch.from_numpy, grads)
        return grad_x, grad_weight


class _Gated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, pairs: Tensor) -> Tensor:
        from charlm import kernels

        ctx.pairs = pairs.detach().numpy()
        return torch.from_numpy(kernels.gated(ctx.pairs))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        from charlm import kernels

        return torch.from_numpy(kernels.gated_backward(grad.contiguous().numpy(), ctx.pairs))


class _WithLast(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, h: Tensor, last: Any) -> Tensor:
        from charlm import kernels

        ctx.last, ctx.count = last, len(x)
        return torch.from_numpy(kernels.with_last(x.detach().numpy(), h.detach().numpy(), last))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        from charlm import kernels

        its = kernels.with_last_backward(grad.contiguous().numpy(), ctx.last, ctx.count)
        return torch.from_numpy(its), grad, None
