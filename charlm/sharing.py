"""Computing once what windows have in common.

Contexts overlap, and half of those of names are mostly padding: of the 256 in a batch of the
default names about 196 are different, and of their 1,024 pairs of neighbours about 200. Nor does
a linear layer over joined neighbours need a product for each of them:

    W [left, right] = W_left left + W_right right,

so each different neighbour is multiplied once for each place that it is found in, which makes a
table, and the joined are sums of rows of the table. The mathematics is the same, and so is
the gradient of the table: equal results are sums of equal rows, and the gradient of a row is the
sum over the results that it went into.

On a CPU that saves both models about 60% of their multiplications, for the price of sorting some
integers, which is done for many batches at once.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Integers = NDArray[np.integer]


@dataclass(frozen=True, eq=False)
class Sums:
    """Sums of rows: y[u] is the sum of x[index[starts[u] : starts[u + 1]]].

    Attributes:
        index: (I,) int32.
        starts: (U,) int32.
    """

    index: Tensor
    starts: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """y (U, C) of x (R, C), each added up in the order of `index`."""
        y: Tensor = torch.embedding_bag(x, self.index, self.starts, False, 0, False)[0]
        return y


@dataclass(frozen=True, eq=False)
class Join:
    """Which rows of x (X, C) are neighbours: U times K of them.

    Attributes:
        rows: (U, K) the rows of x.
    """

    rows: Tensor


@dataclass(frozen=True, eq=False)
class TableJoin(Join):
    """Neighbours as sums over a table (R, H): of each place's rows of x, place after place.

    Attributes:
        slots: for each of the K places, which rows of x are found there.
        alike: whether those are the same for all places.
        sum: of the table, for each of the U.
        sum_back: of the U, for each row of the table those that it went into; None where no
            gradient is wanted.
    """

    slots: Sequence[slice]
    alike: bool
    sum: Sums
    sum_back: Sums | None


@dataclass(frozen=True, eq=False)
class Shared:
    """A batch of N contexts as U different ones, and those as a tree of joined neighbours.

    Attributes:
        joins: the levels of the tree, the first over rows of the embedding, each other over the
            joined of the one before it.
        place: (N,) which of the last level's joined each context is.
    """

    joins: Sequence[Join]
    place: Tensor


def share(contexts: Tensor, arities: Sequence[int], bound: int) -> list[Shared]:
    """The trees of B batches of contexts (B, N, T), in much less time than one by one.

    On a GPU, where waiting for U would take longer than all that it saves, contexts and
    neighbours are left as they are.

    Args:
        contexts: integers from 0 to `bound` - 1.
        arities: how many neighbours each level of the tree joins; T is their product.
    """
    if contexts.device.type != "cpu":
        return [_unshared(batch, arities) for batch in contexts]
    B, N, _ = contexts.shape
    nodes = contexts.numpy()  # (B, N, P) rows of x
    slots = np.tile([0, bound], (B, arities[0] if arities else 1, 1))  # (B, K, 2) from and to
    levels = []
    for arity, following in pairwise([*arities, 1]):
        joins, nodes, slots = _join(nodes, arity, following, bound, slots)
        levels.append(joins)
        bound = max(1, int(slots.max()))
    places = torch.from_numpy(nodes.reshape(B, N))
    return [Shared(joins, place) for *joins, place in zip(*levels, places.unbind(), strict=True)]


def _join(
    nodes: Integers, arity: int, following: int, bound: int, slots: Integers
) -> tuple[list[TableJoin], Integers, Integers]:
    """A level of the tree: each batch's join, the joined nodes, and the slots of the next level.

    Where the next level joins two, the joined are numbered so that those that it finds on the
    left come first, and those that it finds on the right last.
    """
    B, N, P = nodes.shape
    tuples = nodes.reshape(-1, arity)
    batch = np.arange(B).repeat(len(tuples) // B)
    place, found = _number([batch, *tuples.T], [B, *[bound] * arity])
    group = batch[found]
    side = np.ones_like(group)  # 0 left, 1 both, 2 right
    if following == 2:
        pairs = place.reshape(-1, 2)
        sides = np.zeros((2, len(found)), dtype=np.int8)
        sides[0, pairs[:, 0]] = sides[1, pairs[:, 1]] = 1
        side += sides[1] - sides[0]
        order = _order(group * 3 + side)
        renumbered = np.empty_like(order)
        renumbered[order] = np.arange(len(order))
        place, found = renumbered[place], found[order]
    left, both, right = np.bincount(group * 3 + side, minlength=3 * B).reshape(B, 3).T
    counts = left + both + right
    first = counts.cumsum() - counts
    next_slots = np.zeros((B, following, 2), dtype=np.int64)
    next_slots[:, :, 1] = counts[:, None]
    if following == 2:
        next_slots[:, 0, 1], next_slots[:, 1, 0] = left + both, left
    joins = _table_joins(tuples[found], group, first, slots)
    nodes = (place.reshape(B, -1) - first[:, None]).reshape(B, N, P // arity)
    return joins, nodes, next_slots


def _table_joins(
    rows: Integers, group: Integers, first: Integers, slots: Integers
) -> list[TableJoin]:
    """The joins of all batches from their joined rows (U of all batches, K), batch after batch.

    Args:
        group: (U of all,) the batch of each.
        first: (B,) where each batch begins.
        slots: (B, K, 2) where the slice of each place begins and ends.
    """
    K = rows.shape[1]
    widths = slots[:, :, 1] - slots[:, :, 0]
    shift = widths.cumsum(1) - widths - slots[:, :, 0]  # from a row of x to that of the table
    in_table = rows + shift[group]
    index = in_table.astype(np.int32).ravel()
    starts = np.arange(0, len(index), K, dtype=np.int32)
    firsts = [*first.tolist(), len(rows)]
    backs: Sequence[Sums | None] = [None] * len(first)
    if torch.is_grad_enabled():
        sizes = widths.sum(1)
        backs = list(_transposed(in_table + (sizes.cumsum() - sizes)[group, None], firsts, sizes))
    alike = (slots == slots[:, :1]).all((1, 2)).tolist()
    return [
        TableJoin(
            rows=torch.from_numpy(rows[a:b]),
            slots=[slice(*slot) for slot in slots_here],
            alike=alike_here,
            sum=Sums(torch.from_numpy(index[a * K : b * K]), torch.from_numpy(starts[: b - a])),
            sum_back=back,
        )
        for (a, b), slots_here, alike_here, back in zip(
            pairwise(firsts), slots.tolist(), alike, backs, strict=True
        )
    ]


def _transposed(index: Integers, firsts: Sequence[int], sizes: Integers) -> Iterator[Sums]:
    """For each batch, the sums by which a gradient goes back to its table.

    Args:
        index: (U of all, K) rows of the tables of all batches laid end to end.
        firsts: (B + 1,) where the joined of each batch begin.
        sizes: (B,) how many rows each table has.
    """
    K = index.shape[1]
    joined = (_order(index.ravel()) // K).astype(np.int32)
    counts = np.bincount(index.ravel(), minlength=sizes.sum())
    starts = (counts.cumsum() - counts).astype(np.int32)
    offsets = [0, *sizes.cumsum().tolist()]
    for (a, b), (low, high) in zip(pairwise(firsts), pairwise(offsets), strict=True):
        joined[a * K : b * K] -= a
        starts[low:high] -= a * K
        yield Sums(torch.from_numpy(joined[a * K : b * K]), torch.from_numpy(starts[low:high]))


def _unshared(contexts: Tensor, arities: Sequence[int]) -> Shared:
    """The tree of contexts (N, T) with all of them kept apart."""
    joins = []
    nodes = contexts
    for arity in arities:
        joins.append(Join(nodes.reshape(-1, arity)))
        nodes = torch.arange(len(joins[-1].rows), device=contexts.device)
    return Shared(joins, nodes.flatten())


def distinct(rows: Tensor, bound: int) -> tuple[Tensor, Tensor]:
    """The distinct rows (U, K) of `rows` (N, K), and (N,) the place of each row among them.

    So `distinct_rows[place]` is `rows` again.

    Args:
        rows: integers from 0 to `bound` - 1.
    """
    place, first = _number([*rows.numpy().T], [bound] * rows.shape[1])
    return rows[torch.from_numpy(first)], torch.from_numpy(place)


def _order(keys: Integers) -> Integers:
    """`keys.argsort(kind="stable")` of small keys, in a third of the time."""
    bits = len(keys).bit_length()
    return np.sort((keys << bits) + np.arange(len(keys))) & ((1 << bits) - 1)


def _number(columns: Sequence[Integers], bounds: Sequence[int]) -> tuple[Integers, Integers]:
    """Number the distinct rows of a table, given by its columns, in ascending order.

    Returns (n,) the number of each row, and (U,) where one of each number is found.

    Args:
        columns: (n,) each, integers from 0 to its bound - 1.
    """
    keys: Integers = np.zeros(len(columns[0]), dtype=np.int64)
    size = 1
    for column, bound in zip(columns, bounds, strict=True):
        if size > 2**62 // bound:  # too wide for one integer: number what there is so far
            keys, size = _unique(keys, size)
        keys = keys * bound + column
        size *= bound
    place, count = _unique(keys, size)
    first = np.empty(count, dtype=np.int64)
    first[place] = np.arange(len(place))
    return place, first


def _unique(keys: Integers, size: int) -> tuple[Integers, int]:
    """(n,) the rank of each key, from 0 to size - 1, among the distinct ones; and their number."""
    if size <= max(1 << 16, 64 * len(keys)):  # a table of all of them is faster than sorting
        seen = np.zeros(size, dtype=bool)
        seen[keys] = True
        found = seen.nonzero()[0]
        number = np.empty(size, dtype=np.int64)
        number[found] = np.arange(len(found))
        return number[keys], len(found)
    different, place = np.unique(keys, return_inverse=True)
    return place, len(different)
