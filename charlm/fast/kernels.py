"""Loops over numbers that NumPy and torch would need many passes for, compiled by Numba.

At the size of a batch an operation of torch or NumPy costs as much before it begins as its
arithmetic takes, and each reads and writes memory again. A loop here does the work of several.

U distinct rows of C numbers, K of them side by side, V vocabulary. (One array is copied into
another by a loop, since Numba compiles messages about mismatched shapes for half a second where an
assignment might raise.) Measured gain: EXPERIMENTS.md, 2026-11-25.
"""

from typing import Any

import numpy as np

from charlm.core.compiled import Floats, Integers, compiled, inlined

ZERO, ONE = np.float32(0), np.float32(1)


def _float32(*numbers: float) -> tuple[np.float32, ...]:
    return tuple(map(np.float32, numbers))


# tanh x = x p(x^2) / q(x^2), an approximation of Eigen's (MathFunctionsImpl.h) within 4e-7, cut
# off where float32 knows nothing but 1.
P = _float32(
    4.89352455891786e-03, 6.37261928875436e-04, 1.48572235717979e-05, 5.12229709037114e-08,
    -8.60467152213735e-11, 2.00018790482477e-13, -2.76076847742355e-16,
)  # fmt: skip
Q = _float32(4.89352518554385e-03, 2.26843463243900e-03, 1.18534705686654e-04, 1.19825839466702e-06)
P0, P1, P2, P3, P4, P5, P6 = P
Q0, Q1, Q2, Q3 = Q
(SATURATED,) = _float32(7.90531110763549805)


@inlined
def _tanh(x: Any) -> Any:
    x = SATURATED if x > SATURATED else x  # in this order what is not a number stays so
    x = -SATURATED if x < -SATURATED else x
    s = x * x
    p = (((((P6 * s + P5) * s + P4) * s + P3) * s + P2) * s + P1) * s + P0
    return x * p / (((Q3 * s + Q2) * s + Q1) * s + Q0)


FACTOR = np.uint64(0x9E3779B97F4A7C15)


@compiled
def number(rows: Integers) -> tuple[Integers, Integers]:
    """Number the distinct rows of (M, K) in the order in which they first come.

    Returns (U, K) the distinct rows, and (M,) the number of each row.
    """
    M, K = rows.shape
    bits = 4
    while (1 << bits) < 2 * M:
        bits += 1
    mask, shift = (1 << bits) - 1, np.uint64(64 - bits)
    table = np.full(1 << bits, -1, dtype=np.int32)  # by open addressing, at most half full
    distinct = np.empty((M, K), dtype=np.int32)
    numbers = np.empty(M, dtype=np.int32)
    U = 0
    for m in range(M):
        key = np.uint64(0)
        for k in range(K):
            key = (key ^ np.uint64(rows[m, k])) * FACTOR
            key ^= key >> np.uint64(32)
        at = np.int64((key * FACTOR) >> shift)
        while True:
            u = table[at]
            if u < 0:
                table[at] = u = U
                for k in range(K):
                    distinct[U, k] = rows[m, k]
                U += 1
                break
            k = 0
            while k < K and distinct[u, k] == rows[m, k]:
                k += 1
            if k == K:
                break
            at = (at + 1) & mask
        numbers[m] = u
    return distinct[:U], numbers


@compiled
def in_table(rows: Integers, bound: int) -> tuple[Integers, Integers, Integers]:
    """A table of the different entries of each column of rows (U, K), column after column.

    Returns (R,) the entries, (K + 1,) where those of each column begin, and (U, K) where in
    the table each entry of `rows`, from 0 to `bound` - 1, is.

    Raises IndexError for an entry out of these bounds.
    """
    U, K = rows.shape
    at = np.full(bound, -1, dtype=np.int32)
    entries = np.empty(U * K, dtype=np.int32)
    begins = np.zeros(K + 1, dtype=np.int32)
    places = np.empty((U, K), dtype=np.int32)
    R = 0
    for k in range(K):
        for u in range(U):
            entry = rows[u, k]
            if entry < 0 or entry >= bound:
                raise IndexError("a token is not in the vocabulary")
            if at[entry] < 0:
                at[entry] = R
                entries[R] = entry
                R += 1
            places[u, k] = at[entry]
        begins[k + 1] = R
        for r in range(begins[k], R):
            at[entries[r]] = -1
    return entries[:R], begins, places


@compiled
def tanh(x: Floats) -> None:
    """Replace numbers (n,) by their tanh."""
    for i in range(len(x)):
        x[i] = _tanh(x[i])


@compiled
def tanh_backward(grad: Floats, y: Floats) -> Floats:
    """The gradient of numbers (n,) from that of their tanh y (n,)."""
    before = np.empty_like(y)
    for i in range(len(y)):
        before[i] = grad[i] * (ONE - y[i] * y[i])
    return before


@compiled
def rows_added(rows: Floats, places: Integers, count: int) -> Floats:
    """Sums (count, C) of rows (U, C), each added where `places` (U,) says."""
    U, C = rows.shape
    sums = np.zeros((count, C), dtype=np.float32)
    for u in range(U):
        row, its = sums[places[u]], rows[u]
        for c in range(C):
            row[c] += its[c]
    return sums


@compiled
def joined(
    x: Floats, weight: Floats, bias: Floats, entries: Integers, begins: Integers, places: Integers
) -> tuple[Floats, Floats, Floats]:
    """W x + b for rows of x (X, C) that stand side by side, as sums over rows of a table.

    With W (H, K * C), b (H,) and what `in_table` returns. Returns y (U, H), and for the backward
    pass (R, C) the rows of x that make the table, and (K, H, C) the weights of each place.
    """
    (U, K), (R, C), H = places.shape, (len(entries), x.shape[1]), len(weight)
    rows, table = np.empty((R, C), dtype=np.float32), np.empty((R, H), dtype=np.float32)
    for r in range(R):
        for c in range(C):
            rows[r, c] = x[entries[r], c]
    parts = np.empty((K, H, C), dtype=np.float32)
    for h in range(H):
        for k in range(K):
            for c in range(C):
                parts[k, h, c] = weight[h, k * C + c]
    for k in range(K):
        here = slice(begins[k], begins[k + 1])
        np.dot(rows[here], parts[k].T, table[here])
    y = np.empty((U, H), dtype=np.float32)
    fours = K // 4 * 4
    for u in range(U):
        row = y[u]
        for h in range(H):
            row[h] = bias[h]
        for k in range(0, fours, 4):  # at a time: what is summed goes to and from memory less
            first, second = table[places[u, k]], table[places[u, k + 1]]
            third, fourth = table[places[u, k + 2]], table[places[u, k + 3]]
            for h in range(H):
                row[h] += (first[h] + second[h]) + (third[h] + fourth[h])
        for k in range(fours, K):
            first = table[places[u, k]]
            for h in range(H):
                row[h] += first[h]
    return y, rows, parts


@compiled
def joined_backward(
    grad: Floats,
    rows: Floats,
    parts: Floats,
    entries: Integers,
    begins: Integers,
    places: Integers,
    count: int,
) -> tuple[Floats, Floats, Floats]:
    """The gradients of x (count, C), W (H, K * C) and b (H,), from that of y (U, H)."""
    (U, K), (R, C), H = places.shape, rows.shape, grad.shape[1]
    table = np.zeros((R, H), dtype=np.float32)  # gradients, as all that follows
    bias = np.zeros(H, dtype=np.float32)
    for u in range(U):
        its = grad[u]
        for h in range(H):
            bias[h] += its[h]
        for k in range(K):
            row = table[places[u, k]]
            for h in range(H):
                row[h] += its[h]
    grad_rows = np.empty((R, C), dtype=np.float32)
    grad_parts = np.empty((K, H, C), dtype=np.float32)
    for k in range(K):
        here = slice(begins[k], begins[k + 1])
        np.dot(table[here], parts[k], grad_rows[here])
        np.dot(table[here].T, rows[here], grad_parts[k])
    weight = np.empty((H, K * C), dtype=np.float32)
    for h in range(H):
        for k in range(K):
            for c in range(C):
                weight[h, k * C + c] = grad_parts[k, h, c]
    return rows_added(grad_rows, entries, count), weight, bias


# exp x = 2^n exp r, with n the integer next to x / log 2; exp r and the two parts of log 2 are
# those of Cephes (expf.c).
E0, E1, E2, E3, E4, E5 = _float32(
    5.0000001201e-1, 1.6666665459e-1, 4.1665795894e-2,
    8.3334519073e-3, 1.3981999507e-3, 1.9875691500e-4,
)  # fmt: skip
LOG2_E, LOG_2, LOG_2_REST = _float32(1.44269504088896341, 0.693359375, -2.12194440e-4)
ROUNDING = np.float32(1.5 * 2**23)  # added and taken away again, it leaves an integer
LOWEST = np.float32(-87)  # exp of less is no normal number
EXPONENT_OF_1, MANTISSA_BITS = np.int32(127), np.int32(23)  # of a float32
LANES = 8


@inlined
def _sum(row: Any, lanes: Any) -> Any:
    """The sum of a row, as many at a time as there are `lanes`."""
    whole = len(row) // LANES * LANES
    lanes[:] = 0
    for i in range(0, whole, LANES):
        for lane in range(LANES):
            lanes[lane] += row[i + lane]
    total = ZERO
    for lane in range(LANES):
        total += lanes[lane]
    for i in range(whole, len(row)):
        total += row[i]
    return total


@compiled
def exponentials(x: Floats) -> tuple[Floats, Floats, Floats]:
    """The exponentials of x (U, V) less the largest of each row: a softmax before its division.

    Returns (U, V) the exponentials, (U,) their sums and (U,) what was largest.
    """
    U, V = x.shape
    exps = np.empty((U, V), dtype=np.float32)
    sums, largest = np.empty(U, dtype=np.float32), np.empty(U, dtype=np.float32)
    lanes = np.empty(LANES, dtype=np.float32)  # so many maxima, and sums, at a time
    bits = np.empty(V, dtype=np.int32)
    power = bits.view(np.float32)  # 2^n
    whole = V // LANES * LANES
    for u in range(U):
        row, exp = x[u], exps[u]
        lanes[:] = row[0]
        for v in range(0, whole, LANES):
            for lane in range(LANES):
                lanes[lane] = row[v + lane] if row[v + lane] > lanes[lane] else lanes[lane]
        top = row[0]
        for lane in range(LANES):
            top = lanes[lane] if lanes[lane] > top else top
        for v in range(whole, V):
            top = row[v] if row[v] > top else top
        for v in range(V):
            z = row[v] - top
            z = LOWEST if z < LOWEST else z
            n = (z * LOG2_E + ROUNDING) - ROUNDING
            r = z - n * LOG_2 - n * LOG_2_REST
            p = ((((E5 * r + E4) * r + E3) * r + E2) * r + E1) * r + E0
            exp[v] = p * (r * r) + r + ONE
            bits[v] = (np.int32(n) + EXPONENT_OF_1) << MANTISSA_BITS
        for v in range(V):
            exp[v] *= power[v]
        sums[u], largest[u] = _sum(exp, lanes), top
    return exps, sums, largest


@compiled
def summed_losses(logits: Floats, log_sums: Floats, place: Integers, targets: Any) -> float:
    """Cross-entropy of the targets (N,) given the rows `place` (N,) of logits (U, V), in sum.

    Raises IndexError for a place or a target that there is not, and ValueError where there are
    not as many of the one as of the other.
    """
    (U, V), total = logits.shape, 0.0
    if len(place) != len(targets):
        raise ValueError("there are not as many targets as contexts")
    for i in range(len(place)):
        if place[i] < 0 or place[i] >= U or targets[i] < 0 or targets[i] >= V:
            raise IndexError("a target is not in the vocabulary")
        total += log_sums[place[i]] - logits[place[i], targets[i]]
    return total


@compiled
def summed_losses_backward(
    exps: Floats, sums: Floats, place: Integers, targets: Any, grad: np.float32
) -> Floats:
    """The gradient of the logits (U, V), from that of the losses in sum."""
    U, V = exps.shape
    weights = np.zeros(U, dtype=np.float32)  # how many of the N have each row
    for i in range(len(place)):
        weights[place[i]] += grad
    grad_logits = np.empty((U, V), dtype=np.float32)
    for u in range(U):
        weight = weights[u] / sums[u]
        for v in range(V):
            grad_logits[u, v] = exps[u, v] * weight
    for i in range(len(place)):
        grad_logits[place[i], targets[i]] -= grad
    return grad_logits


MIX1, MIX2 = np.uint32(0x7FEB352D), np.uint32(0x846CA68B)


@inlined
def _mixed(bits: Any) -> Any:
    bits ^= bits >> np.uint32(16)
    bits = np.uint32(bits * MIX1)
    bits ^= bits >> np.uint32(15)
    bits = np.uint32(bits * MIX2)
    return bits ^ (bits >> np.uint32(16))


@compiled
def adamw(
    parameter: Floats,
    gradient: Floats,
    mean: Floats,
    square: Floats,
    beta1: np.float32,
    beta2: np.float32,
    rest1: np.float32,
    rest2: np.float32,
    kept: np.float32,
    rate: np.float32,
    scale: np.float32,
    epsilon: np.float32,
) -> None:
    """A step of AdamW for the numbers (n,) of a parameter, in place.

    With the moving averages (n,) of the gradient and of its square, their decay rates and the
    rests of these to 1; the share of the parameter that weight decay leaves, the learning rate
    over the first average's bias, the root of the second's, and what is added to a root.
    """
    for i in range(len(parameter)):
        mean[i] = beta1 * mean[i] + rest1 * gradient[i]
        square[i] = beta2 * square[i] + rest2 * gradient[i] * gradient[i]
        root = np.sqrt(square[i]) / scale + epsilon
        parameter[i] = kept * parameter[i] - rate * mean[i] / root


@compiled
def move(average: Floats, values: Floats, share: np.float32) -> None:
    """Move the numbers (n,) of an average by `share` of their way to the values (n,), in place."""
    for i in range(len(average)):
        average[i] += share * (values[i] - average[i])


@compiled
def dropped_out(x: Floats, mask: tuple[np.uint32, np.uint32, np.uint32, np.float32]) -> Floats:
    """The numbers (n,) times a scale, those zero whose hash with a key is below a threshold.

    The hash is lowbias32 of Wellons (2018), once for each half of the key.

    Args:
        mask: the lower and the upper half of the key, the threshold, and the scale.
    """
    low, high, threshold, scale = mask
    y = np.empty_like(x)
    for i in range(len(x)):
        bits = _mixed(_mixed(np.uint32(i) ^ low) ^ high)
        y[i] = x[i] * scale if bits >= threshold else ZERO
    return y


@compiled
def rms_norm(x: Floats, weight: Floats, epsilon: np.float32) -> tuple[Floats, Floats]:
    """Divide rows (U, C) by the roots of their mean squares plus epsilon, times weight (C,).

    Returns the result and the factors (U,) of the rows.
    """
    U, C = x.shape
    y, scales = np.empty((U, C), dtype=np.float32), np.empty(U, dtype=np.float32)
    lanes, squares = np.empty(LANES, dtype=np.float32), np.empty(C, dtype=np.float32)
    for u in range(U):
        for c in range(C):
            squares[c] = x[u, c] * x[u, c]
        scale = ONE / np.sqrt(_sum(squares, lanes) / np.float32(C) + epsilon)
        for c in range(C):
            y[u, c] = x[u, c] * scale * weight[c]
        scales[u] = scale
    return y, scales


@compiled
def rms_norm_backward(
    grad: Floats, x: Floats, weight: Floats, scales: Floats
) -> tuple[Floats, Floats]:
    """The gradients of the rows (U, C) and of the weight (C,)."""
    U, C = x.shape
    grad_x, grad_weight = np.empty((U, C), dtype=np.float32), np.zeros(C, dtype=np.float32)
    lanes, products = np.empty(LANES, dtype=np.float32), np.empty(C, dtype=np.float32)
    before = np.empty(C, dtype=np.float32)
    for u in range(U):
        scale = scales[u]
        for c in range(C):
            before[c] = grad[u, c] * weight[c]
            products[c] = before[c] * x[u, c]
            grad_weight[c] += grad[u, c] * x[u, c] * scale
        along = _sum(products, lanes) * scale * scale / np.float32(C)
        for c in range(C):
            grad_x[u, c] = (before[c] - x[u, c] * along) * scale
    return grad_x, grad_weight
