"""Fused kernels compiled by Numba.

For arrays as small as a batch, the overhead of an operation of torch or NumPy is as large as its
arithmetic, and each operation makes another pass over memory. A loop here replaces several
operations. Measurements: EXPERIMENTS.md, 2026-11-25.

U distinct rows, C channels, K rows concatenated, H outputs, V vocabulary.

Arrays are copied in loops, because an assignment can raise, and Numba would take half a second to
compile its error messages about shapes.
"""

from typing import Any

import numpy as np

from charlm.core.compiled import Floats, Integers, compiled, inlined

ZERO, ONE = np.float32(0), np.float32(1)


def _float32(*numbers: float) -> tuple[np.float32, ...]:
    return tuple(map(np.float32, numbers))


# tanh x = x p(x^2) / q(x^2), Eigen's approximation (MathFunctionsImpl.h), accurate to 4e-7. It is
# clamped where tanh rounds to 1 in float32.
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
    x = SATURATED if x > SATURATED else x  # this order preserves NaN
    x = -SATURATED if x < -SATURATED else x
    s = x * x
    p = (((((P6 * s + P5) * s + P4) * s + P3) * s + P2) * s + P1) * s + P0
    return x * p / (((Q3 * s + Q2) * s + Q1) * s + Q0)


FACTOR = np.uint64(0x9E3779B97F4A7C15)


@compiled
def unique_rows(rows: Integers) -> tuple[Integers, Integers]:
    """Find the distinct rows of `rows` (M, K), in order of first occurrence.

    Returns the distinct rows (U, K), and the inverse (M,): the index of each row among them.
    """
    M, K = rows.shape
    bits = 4
    while (1 << bits) < 2 * M:
        bits += 1
    mask, shift = (1 << bits) - 1, np.uint64(64 - bits)
    table = np.full(1 << bits, -1, dtype=np.int32)  # open addressing, at most half full
    distinct = np.empty((M, K), dtype=np.int32)
    inverse = np.empty(M, dtype=np.int32)
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
        inverse[m] = u
    return distinct[:U], inverse


@compiled
def unique_per_column(rows: Integers, bound: int) -> tuple[Integers, Integers, Integers]:
    """Find the distinct entries, from 0 to `bound` - 1, of each column of `rows` (U, K).

    Returns the distinct entries (R,) column by column, the offset of each column in them (K + 1,),
    and the inverse (U, K): the index of each entry of `rows` among them.

    Raises IndexError if an entry is out of bounds.
    """
    U, K = rows.shape
    at = np.full(bound, -1, dtype=np.int32)
    entries = np.empty(U * K, dtype=np.int32)
    offsets = np.zeros(K + 1, dtype=np.int32)
    inverse = np.empty((U, K), dtype=np.int32)
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
            inverse[u, k] = at[entry]
        offsets[k + 1] = R
        for r in range(offsets[k], R):
            at[entries[r]] = -1
    return entries[:R], offsets, inverse


@compiled
def tanh(x: Floats) -> None:
    """Compute tanh of x (n,) in place."""
    for i in range(len(x)):
        x[i] = _tanh(x[i])


@compiled
def tanh_backward(grad: Floats, y: Floats) -> Floats:
    """Overwrite the gradient of y = tanh x (n,) with the gradient of x (n,), and return it."""
    for i in range(len(y)):
        grad[i] *= ONE - y[i] * y[i]
    return grad


@compiled
def scatter_add(rows: Floats, index: Integers, count: int) -> Floats:
    """Return sums (count, C) of rows (U, C) by index (U,): sums[index[u]] += rows[u]."""
    U, C = rows.shape
    sums = np.zeros((count, C), dtype=np.float32)
    for u in range(U):
        total, row = sums[index[u]], rows[u]
        for c in range(C):
            total[c] += row[c]
    return sums


@compiled
def add_to_rows(rows: Floats, summand: Floats) -> None:
    """Add a row (C,) to each row of `rows` (U, C), in place."""
    U, C = rows.shape
    for u in range(U):
        row = rows[u]
        for c in range(C):
            row[c] += summand[c]


@compiled
def sum_of_rows(rows: Floats) -> Floats:
    """Return the sum (C,) of rows (U, C)."""
    U, C = rows.shape
    total = np.zeros(C, dtype=np.float32)
    for u in range(U):
        row = rows[u]
        for c in range(C):
            total[c] += row[c]
    return total


@inlined
def _table_inputs(x: Any, weight: Any, entries: Any) -> Any:
    """Return the rows x[entries] (R, C), and the weights of each position (K, H, C)."""
    (R, C), H = (len(entries), x.shape[1]), len(weight)
    K = weight.shape[1] // C
    rows, parts = np.empty((R, C), dtype=np.float32), np.empty((K, H, C), dtype=np.float32)
    for r in range(R):
        row, entry = rows[r], x[entries[r]]
        for c in range(C):
            row[c] = entry[c]
    for k in range(K):
        for h in range(H):
            row, part = weight[h], parts[k, h]
            for c in range(C):
                part[c] = row[k * C + c]
    return rows, parts


@compiled
def concat_linear(
    x: Floats, weight: Floats, bias: Floats, entries: Integers, offsets: Integers, inverse: Integers
) -> Floats:
    """Compute a linear layer on concatenations of K rows of x (X, C), as sums of table rows.

    The table has the product of each distinct row with the weights of its position. Takes W
    (H, K * C), b (H,) and the results of `unique_per_column`. Returns y (U, H).
    """
    (U, K), R, H = inverse.shape, len(entries), len(weight)
    rows, parts = _table_inputs(x, weight, entries)
    table = np.empty((R, H), dtype=np.float32)
    for k in range(K):
        here = slice(offsets[k], offsets[k + 1])
        np.dot(rows[here], parts[k].T, table[here])
    y = np.empty((U, H), dtype=np.float32)
    fours = K // 4 * 4
    for u in range(U):
        row = y[u]
        for h in range(H):
            row[h] = bias[h]
        for k in range(0, fours, 4):  # four at a time, to load and store the sum less often
            first, second = table[inverse[u, k]], table[inverse[u, k + 1]]
            third, fourth = table[inverse[u, k + 2]], table[inverse[u, k + 3]]
            for h in range(H):
                row[h] += (first[h] + second[h]) + (third[h] + fourth[h])
        for k in range(fours, K):
            first = table[inverse[u, k]]
            for h in range(H):
                row[h] += first[h]
    return y


@compiled
def concat_linear_backward(
    grad: Floats,
    x: Floats,
    weight: Floats,
    entries: Integers,
    offsets: Integers,
    inverse: Integers,
) -> tuple[Floats, Floats, Floats]:
    """Return the gradients of x (X, C), W (H, K * C) and b (H,), given the gradient of y (U, H)."""
    (U, K), (R, C), H = inverse.shape, (len(entries), x.shape[1]), len(weight)
    table = np.zeros((R, H), dtype=np.float32)  # the gradient of the table
    for u in range(U):
        grad_y = grad[u]
        for k in range(K):
            row = table[inverse[u, k]]
            for h in range(H):
                row[h] += grad_y[h]
    rows, parts = _table_inputs(x, weight, entries)
    grad_rows = np.empty((R, C), dtype=np.float32)
    for k in range(K):
        here = slice(offsets[k], offsets[k + 1])
        np.dot(table[here], parts[k], grad_rows[here])
        np.dot(table[here].T, rows[here], parts[k])  # overwrites the weights with their gradient
    grad_weight = np.empty((H, K * C), dtype=np.float32)
    for k in range(K):
        for h in range(H):
            row, part = grad_weight[h], parts[k, h]
            for c in range(C):
                row[k * C + c] = part[c]
    return scatter_add(grad_rows, entries, len(x)), grad_weight, sum_of_rows(grad)


# exp x = 2^n exp r, where n is the integer nearest to x / log 2. The polynomial for exp r and the
# two parts of log 2 are from Cephes (expf.c).
E0, E1, E2, E3, E4, E5 = _float32(
    5.0000001201e-1, 1.6666665459e-1, 4.1665795894e-2,
    8.3334519073e-3, 1.3981999507e-3, 1.9875691500e-4,
)  # fmt: skip
LOG2_E, LOG_2, LOG_2_REST = _float32(1.44269504088896341, 0.693359375, -2.12194440e-4)
ROUNDING = np.float32(1.5 * 2**23)  # adding and then subtracting it rounds to an integer
LOWEST = np.float32(-87)  # exp is subnormal below
EXPONENT_OF_1, MANTISSA_BITS = np.int32(127), np.int32(23)  # of a float32
LANES = 8


@inlined
def _sum(row: Any, lanes: Any) -> Any:
    """Return the sum of a row, accumulated in parallel in `lanes`."""
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
    """Compute exp(x - max) for each row of x (U, V), the numerators of its softmax.

    Returns the exponentials (U, V), their sums (U,) and the maxima (U,).
    """
    U, V = x.shape
    exps = np.empty((U, V), dtype=np.float32)
    sums, largest = np.empty(U, dtype=np.float32), np.empty(U, dtype=np.float32)
    lanes = np.empty(LANES, dtype=np.float32)  # accumulators of maxima, then of sums
    whole = V // LANES * LANES
    for u in range(U):
        row, shifted = x[u], exps[u]
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
            shifted[v] = row[v] - top
        largest[u] = top
    every = exps.reshape(-1)  # one long loop, because rows are too short to vectorize well
    for i in range(len(every)):
        z = LOWEST if every[i] < LOWEST else every[i]
        n = (z * LOG2_E + ROUNDING) - ROUNDING
        r = z - n * LOG_2 - n * LOG_2_REST
        p = ((((E5 * r + E4) * r + E3) * r + E2) * r + E1) * r + E0
        bits = np.int32((np.int32(n) + EXPONENT_OF_1) << MANTISSA_BITS)  # of 2^n
        every[i] = (p * (r * r) + r + ONE) * bits.view(np.float32)
    for u in range(U):
        sums[u] = _sum(exps[u], lanes)
    return exps, sums, largest


@compiled
def cross_entropy_sum(logits: Floats, log_sums: Floats, index: Integers, targets: Any) -> float:
    """Return the summed cross-entropy of targets (N,) for the rows logits[index], in nats.

    Takes logits (U, V), the logs (U,) of the sums of their exponentials, and index (N,).

    Raises IndexError if an index or a target is out of bounds, and ValueError if their numbers
    differ.
    """
    (U, V), total = logits.shape, 0.0
    if len(index) != len(targets):
        raise ValueError("the numbers of targets and contexts differ")
    for i in range(len(index)):
        if index[i] < 0 or index[i] >= U or targets[i] < 0 or targets[i] >= V:
            raise IndexError("a target is not in the vocabulary")
        total += log_sums[index[i]] - logits[index[i], targets[i]]
    return total


@compiled
def cross_entropy_sum_backward(
    exps: Floats, sums: Floats, index: Integers, targets: Any, grad: np.float32
) -> Floats:
    """Return the gradient of the logits (U, V), given the gradient of the sum."""
    U, V = exps.shape
    weights = np.zeros(U, dtype=np.float32)  # gradient times the count of each row
    for i in range(len(index)):
        weights[index[i]] += grad
    grad_logits = np.empty((U, V), dtype=np.float32)
    for u in range(U):
        weight = weights[u] / sums[u]
        for v in range(V):
            grad_logits[u, v] = exps[u, v] * weight
    for i in range(len(index)):
        grad_logits[index[i], targets[i]] -= grad
    return grad_logits


@compiled
def summed_rows(x: Floats, index: Integers, count: int) -> Floats:
    """Return the sums (count, V) of the rows of x (N, V) with the same index (N,).

    Raises IndexError if an index is out of bounds.
    """
    N, V = x.shape
    summed = np.zeros((count, V), dtype=np.float32)
    for i in range(N):
        if index[i] < 0 or index[i] >= count:
            raise IndexError("an index is out of bounds")
        for v in range(V):
            summed[index[i], v] += x[i, v]
    return summed


@compiled
def soft_cross_entropy(logits: Floats, log_sums: Floats, targets: Floats) -> float:
    """Return the cross-entropy of the rows of logits (U, V), weighted by targets (U, V), in nats.

    Takes the logs (U,) of the sums of the exponentials of the logits.
    """
    (U, V), total = logits.shape, 0.0
    for u in range(U):
        for v in range(V):
            total += targets[u, v] * (log_sums[u] - logits[u, v])
    return total


@compiled
def soft_cross_entropy_backward(
    exps: Floats, sums: Floats, targets: Floats, grad: np.float32
) -> Floats:
    """Return the gradient of the logits (U, V), given the gradient of the sum."""
    U, V = exps.shape
    grad_logits = np.empty((U, V), dtype=np.float32)
    for u in range(U):
        weight = ZERO
        for v in range(V):
            weight += targets[u, v]
        weight /= sums[u]
        for v in range(V):
            grad_logits[u, v] = grad * (exps[u, v] * weight - targets[u, v])
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
    """Take a step of AdamW on a parameter (n,), in place.

    Args:
        parameter: (n,) updated in place.
        gradient: (n,) its gradient.
        mean: (n,) the moving average of the gradient, updated in place.
        square: (n,) the moving average of the squared gradient, updated in place.
        beta1: decay rate of `mean`.
        beta2: decay rate of `square`.
        rest1: 1 - beta1.
        rest2: 1 - beta2.
        kept: 1 - lr * weight_decay.
        rate: lr over the bias correction of `mean`.
        scale: square root of the bias correction of `square`.
        epsilon: added to the denominator.
    """
    for i in range(len(parameter)):
        mean[i] = beta1 * mean[i] + rest1 * gradient[i]
        square[i] = beta2 * square[i] + rest2 * gradient[i] * gradient[i]
        root = np.sqrt(square[i]) / scale + epsilon
        parameter[i] = kept * parameter[i] - rate * mean[i] / root


@compiled
def lerp(average: Floats, values: Floats, weight: np.float32) -> None:
    """Interpolate an average (n,) linearly toward values (n,), in place."""
    for i in range(len(average)):
        average[i] += weight * (values[i] - average[i])


@compiled
def dropout(x: Floats, mask: tuple[np.uint32, np.uint32, np.uint32, np.float32]) -> Floats:
    """Return x (n,) times a scale; zero the entries whose keyed hash is below a threshold.

    The hash of an index is lowbias32 (Wellons 2018), applied once for each half of the key.

    Args:
        x: (n,) the input.
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
    """Divide rows (U, C) by their root mean squares, then multiply by weight (C,).

    `epsilon` is added to the mean squares. Returns the result (U, C), and the factor of each row
    (U,) for the backward pass.
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
    """Return the gradients of x (U, C) and weight (C,), given the gradient of the result (U, C).

    Overwrites `grad` with the gradient of x.
    """
    U, C = x.shape
    grad_weight = np.zeros(C, dtype=np.float32)
    lanes, products = np.empty(LANES, dtype=np.float32), np.empty(C, dtype=np.float32)
    grad_normalized = np.empty(C, dtype=np.float32)
    for u in range(U):
        scale = scales[u]
        for c in range(C):
            grad_normalized[c] = grad[u, c] * weight[c]
            products[c] = grad_normalized[c] * x[u, c]
            grad_weight[c] += grad[u, c] * x[u, c] * scale
        along = _sum(products, lanes) * scale * scale / np.float32(C)
        for c in range(C):
            grad[u, c] = (grad_normalized[c] - x[u, c] * along) * scale
    return grad, grad_weight
