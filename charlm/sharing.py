"""Computing once what windows have in common.

Contexts overlap, and half of those of names are mostly padding: of the 256 in a batch of the
default names about 196 are different, and of their 1,024 pairs of neighbours about 200. On a
CPU that saves a WaveNet 45% of its multiplications, and the fully connected net 23%, for
the price of sorting some integers. The mathematics is the same: equal rows have equal
results, and the gradient of a sum is the sum of the gradients.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def distinct(rows: Tensor, bound: int) -> tuple[Tensor, Tensor]:
    """The distinct rows (U, K) of `rows` (N, K), and (N,) the place of each row among them.

    So `distinct_rows[place]` is `rows` again. On a GPU, where waiting for U would take longer
    than all that it saves, the rows are left as they are.

    Args:
        rows: integers from 0 to `bound` - 1.
    """
    N, K = rows.shape
    if rows.device.type != "cpu":
        return rows, torch.arange(N, device=rows.device)
    bits = max(1, (bound - 1).bit_length())
    if K > 2 and K * bits > 62:  # too wide for one integer: number the halves first
        left, left_place = distinct(rows[:, : K // 2], bound)
        right, right_place = distinct(rows[:, K // 2 :], bound)
        both = torch.stack((left_place, right_place), 1)
        pairs, place = distinct(both, max(len(left), len(right)))
        return torch.cat((left[pairs[:, 0]], right[pairs[:, 1]]), 1), place
    shifts = torch.arange((K - 1) * bits, -1, -bits)
    keys = (rows << shifts).sum(1)
    if K * bits <= 16:  # a table of all keys that there may be is faster than sorting
        seen, number = np.zeros(1 << K * bits, dtype=bool), np.empty(1 << K * bits, dtype=np.int32)
        seen[keys.numpy()] = True
        found = seen.nonzero()[0]
        number[found] = np.arange(len(found))
        different, place = torch.from_numpy(found), torch.from_numpy(number[keys.numpy()]).long()
    else:
        different, place = torch.unique(keys, return_inverse=True)
    return (different[:, None] >> shifts) & ((1 << bits) - 1), place


def gather(x: Tensor, index: Tensor) -> Tensor:
    """The rows (*index.shape, C) of `x` (U, C) that `index` names, as `x[index]`.

    The gradient is summed up in a third of the time that torch's own takes, in an order that
    depends on `index` alone.
    """
    if x.device.type != "cpu":
        return x[index]
    flat: Tensor = _Gather.apply(x, index.reshape(-1))  # type: ignore[no-untyped-call]
    return flat.view(*index.shape, x.shape[1])


class _Gather(torch.autograd.Function):
    """The rows of x (U, C) that index (K,) names."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, index: Tensor) -> Tensor:
        ctx.save_for_backward(index)
        ctx.rows = len(x)
        return x.index_select(0, index)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (index,) = ctx.saved_tensors
        return sum_rows(grad, index, ctx.rows), None


def sum_rows(rows: Tensor, index: Tensor, count: int) -> Tensor:
    """(count, C) zeros, with each of `rows` (K, C) added to the row that `index` (K,) names."""
    # An index that is expanded, not copied, takes the path that sorts it first.
    return rows.new_zeros(count, rows.shape[1]).scatter_add_(
        0, index[:, None].expand_as(rows), rows
    )
