"""The compiled loops, compared with torch in float64 and with Python."""

import hashlib
import platform
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from charlm.core.compiled import Floats, Integers
from charlm.data.windows import cut
from charlm.fast import (
    kernels,
    rules,  # noqa: F401  of the functions that models call
)
from charlm.fast.rows import Contexts
from charlm.models.compact import CompactWaveNet
from charlm.models.fcn import FCN
from charlm.models.wavenet import WaveNet
from tests.helpers import few, run_python

SEEDS = st.integers(0, 2**32 - 1)
WIDTHS = [1, 3, 7, 8, 9, 16, 46]
"""Widths of rows: below eight, equal to eight (the number processed at once), and above."""

ON_X86_64 = pytest.mark.skipif(
    platform.machine() != "x86_64", reason="kernels are pinned on x86-64 alone"
)


def tanh(x: Floats) -> Floats:
    y = x.copy()
    kernels.tanh(y)
    return y


def test_tanh_is_within_4e_7_and_odd() -> None:
    near_0 = np.logspace(-45, 0, 100_000)
    x = np.concatenate((np.linspace(0, 12, 1_000_003), near_0)).astype(np.float32)
    y = tanh(x)
    assert np.abs(y - np.tanh(x.astype(np.float64))).max() < 4e-7
    assert (y >= 0).all()
    assert (y <= 1).all()
    assert np.array_equal(tanh(-x), -y)


def test_tanh_of_infinity_is_1_and_of_nan_is_nan() -> None:
    """Test every lane of a vector, and the elements after the last full vector."""
    for place in range(19):
        x = np.zeros(19, dtype=np.float32)
        for value, expected in ((np.inf, 1), (-np.inf, -1), (3e38, 1), (-3e38, -1)):
            x[place] = value
            assert tanh(x)[place] == pytest.approx(expected, abs=2e-7)
        x[place] = np.nan
        assert np.isnan(tanh(x)).tolist() == np.isnan(x).tolist()


def as_doubles(*arrays: Floats) -> list[torch.Tensor]:
    return [torch.from_numpy(array).double().requires_grad_() for array in arrays]


def test_the_gradient_of_tanh_matches_torch_in_float64() -> None:
    x, grad = (np.random.default_rng(n).standard_normal(1001, "f4") for n in (1, 2))
    (exact,) = as_doubles(x)
    torch.tanh(exact).backward(torch.from_numpy(grad).double())
    np.testing.assert_allclose(kernels.tanh_backward(grad, tanh(x)), exact.grad, atol=2e-6)


def test_sums_and_additions_of_rows_match_numpy() -> None:
    random = np.random.default_rng(1)
    rows, summand = random.standard_normal((196, 46), "f4"), random.standard_normal(46, "f4")
    assert kernels.sum_of_rows(rows).tobytes() == rows.sum(0).tobytes()
    expected = rows + summand
    kernels.add_to_rows(rows, summand)
    assert rows.tobytes() == expected.tobytes()


@pytest.mark.parametrize("K", range(1, 10))
def test_concat_linear_and_its_gradients_match_torch_in_float64(K: int) -> None:  # noqa: N803
    rng = np.random.default_rng(K)
    for C, H in ((1, 1), (3, 5), (10, 33)):
        rows = rng.integers(6, size=(37, K), dtype=np.int32)  # of 7, so that the last one is unused
        x, weight = rng.standard_normal((7, C), "f4"), rng.standard_normal((H, K * C), "f4")
        bias, grad = rng.standard_normal(H, "f4"), rng.standard_normal((37, H), "f4")
        where = kernels.unique_per_column(rows, 7)
        y = kernels.concat_linear(x, weight, bias, *where)
        grads = kernels.concat_linear_backward(grad, x, weight, *where)

        inputs = as_doubles(x, weight, bias)
        joined = F.embedding(torch.from_numpy(rows), inputs[0]).flatten(start_dim=1)
        exact = F.linear(joined, *inputs[1:])
        exact.backward(torch.from_numpy(grad).double())
        np.testing.assert_allclose(y, exact.detach().numpy(), rtol=1e-5, atol=1e-5)
        for ours, theirs in zip(grads, inputs, strict=True):
            np.testing.assert_allclose(ours, theirs.grad, rtol=1e-5, atol=3e-5)
        assert not grads[0][6].any()


def test_concat_linear_of_no_rows_has_zero_gradients() -> None:
    x, weight, bias = np.ones((7, 3), "f4"), np.ones((5, 6), "f4"), np.ones(5, "f4")
    where = kernels.unique_per_column(np.empty((0, 2), dtype=np.int32), 7)
    y = kernels.concat_linear(x, weight, bias, *where)
    assert y.shape == (0, 5)
    grads = kernels.concat_linear_backward(y, x, weight, *where)
    for grad, of in zip(grads, (x, weight, bias), strict=True):
        assert grad.shape == of.shape
        assert not grad.any()


@few
@given(st.integers(0, 9), st.integers(1, 5), st.sampled_from(WIDTHS), SEEDS)
def test_scatter_add_adds_rows_by_index(count: int, sums: int, width: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((count, width), "f4")
    places = rng.integers(sums, size=count, dtype=np.int32)
    expected = np.zeros((sums, width))
    np.add.at(expected, places, rows)
    np.testing.assert_allclose(kernels.scatter_add(rows, places, sums), expected, atol=1e-5)


@few
@given(st.integers(0, 5), st.sampled_from(WIDTHS), SEEDS)
def test_rms_norm_and_its_gradients_match_torch_in_float64(
    count: int, width: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    x, grad = (rng.standard_normal((count, width), "f4") for _ in range(2))
    weight = rng.standard_normal(width, "f4")
    y, scales = kernels.rms_norm(x, weight, np.float32(1e-5))
    inputs = as_doubles(x, weight)
    exact = F.rms_norm(inputs[0], (width,), inputs[1], 1e-5)
    exact.backward(torch.from_numpy(grad).double())
    np.testing.assert_allclose(y, exact.detach(), rtol=1e-5, atol=1e-5)
    for ours, theirs in zip(
        kernels.rms_norm_backward(grad, x, weight, scales), inputs, strict=True
    ):
        np.testing.assert_allclose(ours, theirs.grad, rtol=1e-4, atol=1e-4)


def test_a_row_of_zeros_is_normalized_to_zeros() -> None:
    x, ones = np.zeros((2, 13), "f4"), np.ones(13, "f4")
    y, scales = kernels.rms_norm(x, ones, np.float32(1e-5))
    assert not y.any()
    for grad in kernels.rms_norm_backward(np.ones_like(x), x, ones, scales):
        assert np.isfinite(grad).all()


def mask_of(key: int, p: float) -> tuple[np.uint32, np.uint32, np.uint32, np.float32]:
    low, high = np.uint32(key & 0xFFFFFFFF), np.uint32(key >> 32)
    return low, high, np.uint32(round(p * 2**32)), np.float32(1 / (1 - p))


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_neighboring_elements_are_dropped_independently(p: float) -> None:
    y = kernels.dropout(np.ones(200_000, "f4"), mask_of(2**62 + 12345, p)).reshape(400, 500)
    assert set(np.unique(y).tolist()) == {0.0, float(np.float32(1 / (1 - p)))}
    zero = y == 0
    assert zero.mean() == pytest.approx(p, abs=5 * (p * (1 - p) / y.size) ** 0.5)
    for one, other in ((zero[:, 1:], zero[:, :-1]), (zero[1:], zero[:-1])):
        spread = (p * (1 - p) / y.size) ** 0.5
        assert (one & other).mean() == pytest.approx(p * p, abs=6 * spread)


def test_each_key_drops_different_elements() -> None:
    keys = (1, 2, 3, 2**32, 2**32 + 1, 2**40, 2**62)
    kept = [kernels.dropout(np.ones(10_000, "f4"), mask_of(key, 0.5)) != 0 for key in keys]
    for i, one in enumerate(kept):
        for other in kept[:i]:
            assert (one == other).mean() == pytest.approx(0.5, abs=0.03)


@few
@given(
    st.integers(0, 5), st.sampled_from(WIDTHS), st.sampled_from([0.1, 1, 10, 100, 1e4, 1e30]), SEEDS
)
def test_exponentials_are_the_numerators_of_softmax(
    count: int, width: int, scale: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((count, width), "f4") * np.float32(scale)
    exps, sums, largest = kernels.exponentials(x)
    exact = torch.from_numpy(x).double()
    np.testing.assert_allclose(exps / sums[:, None], exact.softmax(1), atol=1e-6)
    np.testing.assert_allclose(np.log(sums) + largest, exact.logsumexp(1), rtol=1e-6, atol=1e-6)
    assert np.array_equal(largest, x.max(1))


@pytest.mark.parametrize("low", [-80, -87, -88, -104, -1e4, -3e38, -np.inf])
@pytest.mark.parametrize("width", WIDTHS[1:])
def test_very_negative_logits_have_almost_no_probability(width: int, low: float) -> None:
    for place in range(width):
        x = np.full((2, width), low, dtype=np.float32)
        x[:, place] = 0.5
        exps, sums, _ = kernels.exponentials(x)
        exact = torch.from_numpy(x).double().softmax(1)
        np.testing.assert_allclose(exps / sums[:, None], exact, rtol=1e-6, atol=2e-38)


def loss(x: Floats, place: Integers, targets: np.ndarray) -> float:
    _, sums, largest = kernels.exponentials(x)
    return kernels.cross_entropy_sum(x, np.log(sums) + largest, place, targets)


@pytest.mark.parametrize("width", WIDTHS)
def test_a_logit_that_is_not_finite_gives_such_a_loss(width: int) -> None:
    """This holds for any target, because training must notice that it has diverged."""
    place = np.array([0, 1], dtype=np.int32)
    for v in range(width):
        for target in {0, v, width - 1}:
            for value in (np.nan, np.inf, *([-np.inf] if target == v else [])):
                x = np.zeros((2, width), dtype=np.float32)
                x[1, v] = value
                with np.errstate(invalid="ignore"):
                    assert not np.isfinite(loss(x, place, np.array([0, target])))
    nothing = np.full((2, width), -np.inf, dtype=np.float32)
    assert not np.isfinite(loss(nothing, place, np.array([0, 0])))


@few
@given(st.integers(1, 6), st.integers(0, 20), st.sampled_from(WIDTHS), SEEDS)
def test_losses_and_gradients_match_torch(
    different: int, count: int, width: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((different, width), "f4") * np.float32(3)
    place = rng.integers(different, size=count, dtype=np.int32)
    targets = rng.integers(width, size=count)
    exps, sums, _ = kernels.exponentials(x)
    total = loss(x, place, targets)
    grad = kernels.cross_entropy_sum_backward(exps, sums, place, targets, np.float32(0.25))

    (exact,) = as_doubles(x)
    shown = exact[torch.from_numpy(place)]
    theirs = F.cross_entropy(shown, torch.from_numpy(targets), reduction="sum")
    (0.25 * theirs).backward()
    assert total == pytest.approx(theirs.item(), rel=1e-6, abs=1e-5)
    np.testing.assert_allclose(grad, exact.grad, atol=1e-6)


@few
@given(st.integers(1, 6), st.integers(0, 20), st.sampled_from(WIDTHS), SEEDS)
def test_losses_of_distributions_and_their_gradients_match_torch(
    different: int, count: int, width: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((different, width), "f4") * np.float32(3)
    place = rng.integers(different, size=count, dtype=np.int32)
    targets = rng.dirichlet(np.ones(width), size=count).astype("f4")
    exps, sums, largest = kernels.exponentials(x)
    summed = kernels.summed_rows(targets, place, different)
    total = kernels.soft_cross_entropy(x, np.log(sums) + largest, summed)
    grad = kernels.soft_cross_entropy_backward(exps, sums, summed, np.float32(0.25))

    (exact,) = as_doubles(x)
    shown = exact[torch.from_numpy(place)]
    theirs = F.cross_entropy(shown, torch.from_numpy(targets).double(), reduction="sum")
    (0.25 * theirs).backward()
    assert total == pytest.approx(theirs.item(), rel=1e-6, abs=1e-5)
    np.testing.assert_allclose(grad, exact.grad, atol=1e-6)


def places_and_targets() -> tuple[Integers, np.ndarray]:
    return np.array([0, 2, 1], dtype=np.int32), np.array([4, 0, 3])


@pytest.mark.parametrize("bad", [-1, 2**31 - 1, -(2**31)])
def test_an_index_out_of_range_is_refused(bad: int) -> None:
    x = np.zeros((3, 5), dtype=np.float32)
    for number in (bad, 3):
        place, targets = places_and_targets()
        place[1] = number
        with pytest.raises(IndexError):
            loss(x, place, targets)
        with pytest.raises(IndexError):
            kernels.summed_rows(x, place, 3)


@pytest.mark.parametrize("bad", [-1, 5, 2**40, -(2**63)])
def test_a_target_out_of_range_is_refused(bad: int) -> None:
    place, targets = places_and_targets()
    targets[1] = bad
    with pytest.raises(IndexError, match="a target is not in the vocabulary"):
        loss(np.zeros((3, 5), dtype=np.float32), place, targets)


def test_a_wrong_number_of_targets_is_refused() -> None:
    x = np.zeros((3, 5), dtype=np.float32)
    place, targets = places_and_targets()
    for few_places, few_targets in (
        (place[:2], targets),
        (place, targets[:2]),
        (place[:0], targets),
    ):
        with pytest.raises(ValueError, match="the numbers of targets and contexts differ"):
            loss(x, few_places, few_targets)


@pytest.mark.parametrize("bad", [-1, 6, 2**31 - 1, -(2**31)])
def test_a_token_out_of_range_is_refused(bad: int) -> None:
    for u, k in ((0, 0), (3, 1), (4, 2)):
        rows = np.zeros((5, 3), dtype=np.int32)
        rows[u, k] = bad
        with pytest.raises(IndexError, match="a token is not in the vocabulary"):
            kernels.unique_per_column(rows, 6)


@pytest.mark.parametrize("starts", [np.int32, np.int64])
@pytest.mark.parametrize("stream", [np.uint8, np.int16, np.int32])
def test_windows_match_unfold(stream: type, starts: type) -> None:
    rng = np.random.default_rng(1)
    tokens = rng.integers(np.iinfo(stream).max, size=50, endpoint=True, dtype=stream)
    for T in (1, 2, 3, 8, 49):
        every = torch.from_numpy(tokens).unfold(0, T + 1, 1).numpy()
        for count in (0, 1, 20):
            index = rng.integers(len(every), size=count, dtype=starts)
            contexts, targets = cut(tokens, index, T)
            assert (contexts.dtype, targets.dtype) == (np.int32, np.int64)
            assert np.array_equal(contexts, every[index, :-1])
            assert np.array_equal(targets, every[index, -1])
        last = np.array([len(every) - 1], dtype=starts)
        assert cut(tokens, last, T)[1].tolist() == [tokens[-1]]
        for bad in (-1, len(every), 50, np.iinfo(starts).max, np.iinfo(starts).min):
            with pytest.raises(IndexError, match="a window is outside the stream"):
                cut(tokens, np.array([0, bad], dtype=starts), T)
    for T in (50, 1000):
        with pytest.raises(IndexError, match="a window is outside the stream"):
            cut(tokens, np.array([0], dtype=starts), T)


TOKENS = st.sampled_from([0, 1, 2, 46, 2**16, 2**31 - 1])
TABLES = st.integers(1, 9).flatmap(
    lambda width: st.lists(st.tuples(*[TOKENS] * width), max_size=40).map(
        lambda rows: np.array(rows, dtype=np.int32).reshape(-1, width)
    )
)


@few
@given(TABLES)
def test_unique_rows_are_in_order_of_first_occurrence(rows: Integers) -> None:
    different, numbers = kernels.unique_rows(rows)
    assert different.dtype == numbers.dtype == np.int32
    expected = list(dict.fromkeys(map(tuple, rows.tolist())))
    assert list(map(tuple, different.tolist())) == expected
    assert numbers.tolist() == [expected.index(tuple(row)) for row in rows.tolist()]


@pytest.mark.parametrize("step", [0, 1, 256, 2**16])
def test_many_rows_are_distinguished(step: int) -> None:
    """Some rows differ only in their last bits, and some are equal in all of them."""
    column = np.arange(20_000, dtype=np.int64) % 10_000 * step % 2**31
    rows = np.stack((np.zeros_like(column), column), axis=1).astype(np.int32)
    different, numbers = kernels.unique_rows(rows)
    assert len(different) == len(np.unique(column))
    assert np.array_equal(different[numbers], rows)


@few
@given(TABLES)
def test_unique_per_column_is_in_order_of_first_occurrence(
    rows: Integers,
) -> None:
    rows = np.minimum(rows, 50)
    entries, begins, places = kernels.unique_per_column(rows, 51)
    assert begins[0] == 0
    assert begins[-1] == len(entries)
    assert np.array_equal(entries[places], rows)
    for k, column in enumerate(rows.T.tolist()):
        assert entries[begins[k] : begins[k + 1]].tolist() == list(dict.fromkeys(column))
        assert all(begins[k] <= place < begins[k + 1] for place in places[:, k])


def digest() -> str:
    """Return a digest of losses and gradients that depend on every kernel."""
    digest = hashlib.md5()
    rng = np.random.default_rng(1)
    contexts = torch.from_numpy(rng.integers(46, size=(100, 8), dtype=np.int32))
    targets = torch.from_numpy(rng.integers(46, size=100))
    small = {"embed_dim": 5, "hidden_dim": 13, "dropout": 0.2}
    for architecture, sizes in (
        (FCN, small),
        (WaveNet, small),
        (CompactWaveNet, {"channels": 13, "dropout": 0.2}),
    ):
        model = architecture(vocab_size=46, block_size=8, **sizes)
        for parameter in model.parameters():
            numbers = rng.standard_normal(parameter.shape, "f4")
            parameter.data.copy_(torch.from_numpy(numbers))
        loss = F.cross_entropy(model(Contexts(contexts, key=12345)), targets, reduction="sum")
        (loss / 100).backward()
        for tensor in (loss.detach(), *(parameter.grad for parameter in model.parameters())):
            digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


FUSED = re.compile(r"\bvfn?m(add|sub)")


@ON_X86_64
def test_no_multiplication_is_fused_with_an_addition() -> None:
    """A fused operation rounds once instead of twice, and exists only on some processors.

    LLVM fuses only with permission, as for the first function here.
    """
    import numba

    def code(function: object, **options: object) -> str:
        """Return the assembly for these arguments; cached functions have none."""
        recompiled = numba.jit(**options)(function)
        recompiled.compile(signature)
        return recompiled.inspect_asm(signature)

    signature = (numba.float32,) * 3
    assert FUSED.search(code(lambda a, b, c: a * b + c, nopython=True, fastmath={"contract"}))
    digest()
    for kernel in (kernels.tanh, kernels.exponentials, kernels.rms_norm_backward):
        (signature, *_) = kernel.signatures
        text = code(kernel.py_func, **kernel.targetoptions)
        assert not FUSED.search(text), kernel
        assert re.search(r"\bvmulps.*%ymm", text), f"{kernel} does not do eight at a time"
        assert "zmm" not in text, f"{kernel} is for processors with AVX-512"


@ON_X86_64
@pytest.mark.slow
def test_environment_variables_of_numba_change_no_byte(tmp_path: Path) -> None:
    printed = run_python(
        "import stages; from tests.unit.fast.test_kernels import digest; print(digest())",
        NUMBA_CACHE_DIR=str(tmp_path),
        NUMBA_CPU_NAME="generic",
        NUMBA_CPU_FEATURES="-avx,-avx2",
        NUMBA_ENABLE_AVX="0",
        NUMBA_OPT="0",
        NUMBA_LOOP_VECTORIZE="0",
        NUMBA_DISABLE_JIT="1",
    )
    assert list(tmp_path.rglob("kernels.unique_rows-*.nbc")), "not recompiled"
    assert printed == digest() + "\n"


def test_kernels_work_without_a_writable_cache_folder() -> None:
    printed = run_python(
        """
from numba.core.caching import CacheImpl
CacheImpl._locator_classes = []
import numpy as np
from charlm.fast import (
    kernels,
    rules,  # noqa: F401  of the functions that models call
)
rows, numbers = kernels.unique_rows(np.array([[3, 1], [3, 1], [0, 2]], dtype=np.int32))
print(rows.tolist(), numbers.tolist(), kernels.unique_rows.stats.cache_hits)
"""
    )
    assert printed == "[[3, 1], [0, 2]] [0, 0, 1] Counter()\n"
