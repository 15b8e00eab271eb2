"""What the compact WaveNet is made of: normalised rows, joined by a gated layer.

X nodes of a level and U of the next, K of them joined, C channels.
"""

import torch
from torch import Tensor, nn

from charlm.fast import kernels
from charlm.fast.devices import for_numpy
from charlm.fast.dropout import Dropout, Mask
from charlm.fast.functions import Kept, differentiable
from charlm.fast.kernels import Floats
from charlm.fast.linear import JoinedLinear
from charlm.fast.sharing import Join, TableJoin


class RMSNorm(nn.Module):
    """Each row over the root of its mean square, times a weight for each channel.

    Zhang and Sennrich (2019), equation 4: (X, C) -> (X, C).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        if for_numpy(x):
            return _rms_norm(x, self.weight)
        mean_square = x.square().mean(-1, keepdim=True)
        return x * torch.rsqrt(mean_square + float(kernels.EPSILON)) * self.weight


def gated_join(x: Tensor, norm: RMSNorm, layer: JoinedLinear, drop: Dropout, join: Join) -> Tensor:
    """Normalise, join neighbours, gate, and add the last of those joined: (X, C) -> (U, C).

    A gated linear unit (Dauphin et al. 2017, section 3) whose gate is linear too: "bilinear" in
    Shazeer (2020), equation 5. With a residual connection around it.

    Args:
        layer: (K * C -> 2 C), whose halves are the values and their gates.
    """
    if isinstance(join, TableJoin) and for_numpy(x):
        return _gated_join(x, norm.weight, layer.weight, layer.bias, join, drop.mask())
    value, gate = layer(norm(x), join).chunk(2, dim=1)  # (U, 2 C) -> twice (U, C)
    y: Tensor = x[join.rows[:, -1]] + drop(value * gate)
    return y


def _compute_rms_norm(x: Floats, weight: Floats) -> tuple[Floats, Kept]:
    y, scales = kernels.rms_norm(x, weight)
    return y, (x, weight, scales)


def _compute_gated_join(
    x: Floats, scale: Floats, weight: Floats, bias: Floats, join: TableJoin, mask: Mask
) -> tuple[Floats, Kept]:
    its = (join.entries, join.begins, join.places)
    y, *kept = kernels.gated_join(x, scale, weight, bias, *its, mask)
    return y, (x, scale, *kept, *its, mask)


_rms_norm = differentiable(_compute_rms_norm, kernels.rms_norm_backward)
_gated_join = differentiable(_compute_gated_join, kernels.gated_join_backward)
