"""Compiled loops over n-gram counts, and the rule that looks up only distinct windows.

The tables are those in `charlm.models.kneser_ney.Tables`. All sums are in float64 and in a fixed
order.

N windows of T context tokens, V vocabulary, L + 1 context lengths.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from charlm.core.compiled import Floats, Integers, compiled, inlined
from charlm.fast import kernels
from charlm.fast.rows import Contexts, Node, Rows
from charlm.fast.rules import rule


@rule("charlm.models.kneser_ney.look_up")
def look_up(
    contexts: Contexts,
    targets: Tensor | None,
    orders: list[int],
    tables: Sequence[Tensor],
    vocab_size: int,
    levels: int,
) -> tuple[Rows, Contexts]:
    """Look up each distinct context, or distinct pair of context and target, once."""
    tokens = contexts.index
    known = np.full(len(tokens), -1) if targets is None else targets.numpy()
    windows, index = kernels.unique_rows(np.column_stack([tokens, known]).astype(np.int32))
    probs, confidence = interpolate(
        windows,
        targets is not None,
        np.array(orders, dtype=np.int32),
        vocab_size,
        levels,
        *(tensor.numpy() for tensor in tables),
    )
    K, V = len(orders), vocab_size
    each = index[:, None] * K + np.arange(K, dtype=np.int32)
    rows = Rows(Node(np.log(probs).reshape(-1, V)), each[:, :, None], contexts.tape)
    return rows, contexts.with_index(confidence[index])


@compiled
def interpolate(
    windows: Integers,
    leave_out: bool,
    orders: Integers,
    vocab_size: int,
    levels: int,
    children: Any,
    front: Any,
    begins: Any,
    tokens: Any,
    counts: Any,
    totals: Any,
    taken: Any,
    discounts: Any,
) -> tuple[Floats, Integers]:
    """Return the probabilities (N, K, V) and the confidence (N,), as in `KneserNey.look_up`.

    The windows (N, T + 1) are contexts, each followed by its target. With `leave_out`, each window
    is left out of the counts.
    """
    N, K, V, lengths = len(windows), len(orders), vocab_size, len(discounts)
    probs, confidence = np.empty((N, K, V), dtype=np.float32), np.zeros(N, dtype=np.int32)
    row, nodes = np.empty(V, dtype=np.float64), np.empty(lengths, dtype=np.int64)
    own = np.full(lengths, -1, dtype=np.int64)
    for n in range(N):
        known = _nodes(windows[n], children, front, nodes)
        lowest = known
        if leave_out:
            lowest = _lowered(windows[n], known, nodes, begins, tokens, counts, own)
        for v in range(V):
            row[v] = 1 / V
        seen, longest = 0, 0  # count and length of the longest context
        for length in range(known):
            node, less = nodes[length], int(length >= lowest)
            total, left = totals[node] - less, taken[node]
            if less:
                count = counts[own[length]]
                left += _discount(count - 1, discounts, length) - _discount(
                    count, discounts, length
                )
            if total > 0:
                seen, longest = total, length
                share = left / total
                for v in range(V):
                    row[v] *= share
                for g in range(begins[node], begins[node + 1]):
                    count = counts[g] - (less if g == own[length] else 0)
                    row[tokens[g]] += (count - _discount(count, discounts, length)) / total
            for k in range(K):
                if orders[k] == length or (orders[k] > length and length == known - 1):
                    for v in range(V):
                        probs[n, k, v] = row[v]
        level = 0
        while level < levels - 1 and seen >= 2 << level:
            level += 1
        confidence[n] = levels * longest + level
    return probs, confidence


@inlined
def _discount(count: Any, discounts: Any, length: int) -> Any:
    return discounts[length, min(count, 3) - 1] if count > 0 else 0.0


@compiled
def _nodes(window: Any, children: Any, front: Any, nodes: Any) -> int:
    """Store the index of the context of each length in `nodes`; return how many are known."""
    nodes[0] = 0
    for length in range(1, len(nodes)):
        parent, token = nodes[length - 1], window[len(window) - 1 - length]
        place = _find(front, children[parent], children[parent + 1], token)
        if place < 0:
            return length
        nodes[length] = place
    return len(nodes)


@compiled
def _find(ascending: Any, low: int, high: int, wanted: int) -> int:
    """Return the index of a number in `ascending[low:high]`, or -1."""
    end = high
    while low < high:
        middle = (low + high) // 2
        if ascending[middle] < wanted:
            low = middle + 1
        else:
            high = middle
    return low if low < end and ascending[low] == wanted else -1


@compiled
def _lowered(
    window: Any, known: int, nodes: Any, begins: Any, tokens: Any, counts: Any, own: Any
) -> int:
    """Return the shortest context length at which leaving out a window lowers a count.

    Stores the entry of the window in `own`, from this length on. The count of the longest context
    drops by one. If it drops to zero, one token fewer precedes the next shorter context, and so on.
    """
    lowest = known
    while lowest > 0:
        node = nodes[lowest - 1]
        place = _find(tokens, begins[node], begins[node + 1], window[-1])
        if place < 0:  # the window was not counted
            break
        lowest -= 1
        own[lowest] = place
        if counts[place] > 1:
            break
    return lowest


@compiled
def leave_one_out_statistics(
    windows: Integers,
    lengths: int,
    children: Any,
    front: Any,
    begins: Any,
    tokens: Any,
    counts: Any,
) -> Integers:
    """Return what the probability of each left-out window depends on (N, L + 1, 5).

    For each context length: the count of the target, how many counts are 1, 2, and 3 or more, and
    the sum of the counts. All are zero if the context was not counted.
    """
    N = len(windows)
    statistics = np.zeros((N, lengths, 5), dtype=np.int32)
    nodes, own = np.empty((2, lengths), dtype=np.int64)
    for n in range(N):
        known = _nodes(windows[n], children, front, nodes)
        lowest = _lowered(windows[n], known, nodes, begins, tokens, counts, own)
        for length in range(known):
            counted = statistics[n, length]
            for g in range(begins[nodes[length]], begins[nodes[length] + 1]):
                count = counts[g] - (length >= lowest and g == own[length])
                if tokens[g] == windows[n, -1]:
                    counted[0] = count
                if count:
                    counted[min(count, 3)] += 1
                counted[4] += count
    return statistics


@compiled
def discount_gradient(statistics: Integers, discounts: Any, vocab_size: int) -> Any:
    """Return the gradient (L + 1, 3) of the summed cross-entropy with respect to the discounts."""
    N, lengths, _ = statistics.shape
    gradient = np.zeros((lengths, 3), dtype=np.float64)
    probs = np.empty(lengths + 1, dtype=np.float64)
    lefts, inverses = np.empty((2, lengths), dtype=np.float64)
    for n in range(N):
        probs[0] = 1 / vocab_size
        known = 0  # number of lengths at which the context was counted
        while known < lengths and statistics[n, known, 4]:
            counted, own = statistics[n, known], discounts[known]
            inverses[known] = 1 / counted[4]  # divisions take most of the time
            left = own[0] * counted[1] + own[1] * counted[2] + own[2] * counted[3]
            lefts[known] = left * inverses[known]
            count = counted[0] - own[min(counted[0], 3) - 1] if counted[0] else 0.0
            probs[known + 1] = count * inverses[known] + lefts[known] * probs[known]
            known += 1
        grad = -1 / probs[known]
        for length in range(known - 1, -1, -1):
            counted = statistics[n, length]
            part = grad * inverses[length]
            if counted[0]:
                gradient[length, min(counted[0], 3) - 1] -= part
            for j in range(3):
                gradient[length, j] += part * probs[length] * counted[1 + j]
            grad *= lefts[length]
    return gradient
