"""Computing once what windows have in common.

Contexts overlap, and half of those of names are mostly padding: of the 256 in a batch of the
default names about 196 are different, and of their 1,024 pairs of neighbours about 200. Nor does
a linear layer over joined neighbours need a product for each of them:

    W [left, right] = W_left left + W_right right,

so each different neighbour is multiplied once for each place that it is found in, which makes a
table, and the joined are sums of rows of the table. The mathematics is the same, and so is
the gradient of the table: equal results are sums of equal rows, and the gradient of a row is the
sum over the results that it went into.

On a CPU that saves both models about 60% of their multiplications, for the price of counting
some integers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from charlm.fast import kernels

Integers = NDArray[np.int32]


class Join(Protocol):
    """Which rows of x (X, C) are neighbours: U times K of them."""

    @property
    def rows(self) -> Tensor:
        """(U, K) the rows of x."""
        ...


@dataclass(frozen=True, eq=False)
class PlainJoin:
    """Neighbours as they are.

    Attributes:
        rows: (U, K) the rows of x.
    """

    rows: Tensor


@dataclass(frozen=True, eq=False)
class OrderedJoin:
    """Neighbours that stand side by side: the first K rows of x, the next K, and so on to its last.

    Attributes:
        shape: (U, K).
        device: where they are.
    """

    shape: tuple[int, int]
    device: torch.device

    @property
    def rows(self) -> Tensor:
        U, K = self.shape
        return torch.arange(U * K, device=self.device).reshape(U, K)


@dataclass(frozen=True, eq=False)
class TableJoin:
    """Neighbours as sums over a table (R, H): of each place's rows of x, place after place.

    Attributes:
        entries: (R,) the row of x that each row of the table is made from.
        begins: (K + 1,) where in the table those of each place begin.
        places: (U, K) the rows of the table that each of the U is the sum of.
    """

    entries: Integers
    begins: Integers
    places: Integers

    @property
    def rows(self) -> Tensor:
        return torch.from_numpy(self.entries[self.places])


@dataclass(frozen=True, eq=False)
class Shared:
    """A batch of N contexts as U different ones, and those as a tree of joined neighbours.

    Attributes:
        joins: the levels of the tree, the first over rows of the embedding, each other over the
            joined of the one before it.
        place: (N,) which of the last level's joined each context is.
        in_order: whether that is 0, 1, 2, ...: each context has its own.
    """

    joins: Sequence[Join]
    place: Tensor
    in_order: bool = False

    def of_each(self, x: Tensor) -> Tensor:
        """(N, C) the row of each context, from those of the last level's joined x (U, C)."""
        return x if self.in_order else x.index_select(0, self.place)


def share(contexts: Tensor, arities: Sequence[int], bound: int) -> Shared:
    """The tree of a batch of contexts (N, T).

    On a GPU, where waiting for U would take longer than all that it saves, contexts and
    neighbours are left as they are.

    Args:
        contexts: integers from 0 to `bound` - 1.
        arities: how many neighbours each level of the tree joins; T is their product.

    Raises ValueError on a CPU where T is another.
    """
    if contexts.device.type != "cpu":
        return _unshared(contexts, arities)
    nodes = contexts.int().contiguous().numpy()  # (N, P) rows of x
    joins = []
    for arity in arities:
        rows, joined = kernels.number(nodes.reshape(-1, arity))
        joins.append(TableJoin(*kernels.in_table(rows, bound)))
        nodes = joined.reshape(len(nodes), nodes.shape[1] // arity)
        bound = len(rows)
    return Shared(joins, torch.from_numpy(nodes.reshape(len(nodes))))


def _unshared(contexts: Tensor, arities: Sequence[int]) -> Shared:
    """The tree of contexts (N, T) with all of them kept apart."""
    if not arities:
        return Shared([], contexts.flatten())
    joins: list[Join] = [PlainJoin(contexts.reshape(-1, arities[0]))]
    count = contexts.numel() // arities[0]
    for arity in arities[1:]:
        count //= arity
        joins.append(OrderedJoin((count, arity), contexts.device))
    return Shared(joins, torch.arange(count, device=contexts.device), in_order=True)


def distinct(rows: Tensor) -> tuple[Tensor, Tensor]:
    """The distinct rows (U, K) of `rows` (N, K), integers, and (N,) the place of each among them.

    So `distinct_rows[place]` is `rows` again. In the order in which they first come; int32.
    """
    different, place = kernels.number(rows.int().contiguous().numpy())
    return torch.from_numpy(different), torch.from_numpy(place)
