"""The linear layers that NumPy and compiled loops multiply, against torch's."""

import platform
import warnings

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from charlm.fast.linear import JoinedTanh, Linear
from charlm.fast.sharing import Join, PlainJoin, TableJoin, share
from tests.helpers import few, run_python


def both(inner: int, outer: int) -> tuple[Linear, torch.nn.Linear]:
    """The layer and torch's, with the same weights."""
    ours, theirs = Linear(inner, outer), torch.nn.Linear(inner, outer)
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


@few
@given(
    st.lists(st.integers(0, 5), min_size=1, max_size=3),
    st.integers(1, 40),
    st.integers(1, 9),
    st.integers(0, 2**32),
)
def test_outputs_and_gradients_are_those_of_torch(
    batch: list[int], inner: int, outer: int, seed: int
) -> None:
    torch.manual_seed(seed)
    layers = both(inner, outer)
    x = torch.randn(*batch, inner)
    results = []
    for layer in layers:
        given_x = x.clone().requires_grad_()
        y = layer(given_x)
        assert y.shape == (*batch, outer)
        (y * torch.arange(outer)).sum().backward()
        results.append((y, given_x.grad, layer.weight.grad, layer.bias.grad))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_strides_of_any_kind_are_taken() -> None:
    ours, theirs = both(6, 4)
    x = torch.randn(6, 5, 3).permute(1, 2, 0)
    torch.testing.assert_close(ours(x), theirs(x))
    one = torch.randn(6).expand(7, 6)
    torch.testing.assert_close(ours(one), theirs(one))
    ours(one).sum().backward()  # whose gradient is one number, seen many times
    theirs(one).sum().backward()
    torch.testing.assert_close(ours.weight.grad, theirs.weight.grad)


def test_an_input_that_needs_no_gradient_gets_none() -> None:
    ours, _ = both(3, 2)
    x = torch.randn(4, 3)
    ours(x).sum().backward()
    assert x.grad is None
    assert ours.weight.grad is not None


def test_other_numbers_than_float32_are_left_to_torch() -> None:
    ours, theirs = both(3, 2)
    x = torch.randn(4, 3, dtype=torch.float64)
    assert torch.equal(ours.double()(x), theirs.double()(x))


def test_it_counts_and_is_saved_as_torchs_layer() -> None:
    ours, theirs = both(3, 2)
    assert isinstance(ours, torch.nn.Linear)
    assert list(ours.state_dict()) == list(theirs.state_dict())


def test_what_is_too_large_is_infinite_without_a_warning() -> None:
    """Training finds it in the loss, and says so in one line."""
    ours, theirs = both(3, 2)
    for layer in (ours, theirs):
        layer.weight.data.fill_(3e38)
        layer.bias.data.fill_(-torch.inf)
    x = torch.full((4, 3), 9.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        torch.testing.assert_close(ours(x), theirs(x), equal_nan=True)
        (ours(x) * 3e38).sum().backward()
        (theirs(x) * 3e38).sum().backward()
    torch.testing.assert_close(ours.weight.grad, theirs.weight.grad, equal_nan=True)


@few
@given(
    st.integers(0, 9), st.integers(1, 9), st.integers(1, 12), st.integers(1, 12), st.integers(0, 99)
)
def test_joined_outputs_and_gradients_are_those_of_torch(
    count: int, arity: int, inner: int, outer: int, seed: int
) -> None:
    torch.manual_seed(seed)
    layer = JoinedTanh(arity * inner, outer)
    assert [*layer.state_dict()] == [*torch.nn.Linear(arity * inner, outer).state_dict()]
    contexts = torch.randint(5, (count, arity), dtype=torch.int32)
    x = torch.randn(7, inner)
    shared = share(contexts, [arity], 7)
    (join,) = shared.joins
    assert isinstance(join, TableJoin)

    def result(join: Join, place: torch.Tensor, dtype: torch.dtype) -> list[torch.Tensor]:
        given_x = x.to(dtype, copy=True).requires_grad_()
        y = layer.to(dtype)(given_x, join)[place]
        layer.zero_grad()
        (y * torch.arange(y.numel()).view_as(y).cos()).sum().backward()
        return [y, given_x.grad, layer.weight.grad, layer.bias.grad]

    ours = result(join, shared.place, torch.float32)
    for plain in (
        result(PlainJoin(contexts), torch.arange(count), torch.float32),
        result(join, shared.place, torch.float64),
    ):
        for one, other in zip(ours, plain, strict=True):
            torch.testing.assert_close(one, other.float(), rtol=1e-4, atol=1e-4)


def test_joined_weights_and_inputs_of_any_stride_are_taken() -> None:
    layer = JoinedTanh(6, 4)
    shared = share(torch.randint(5, (9, 2)), [2], 5)
    (join,) = shared.joins
    x = torch.randn(3, 5).t()
    layer.weight.data = layer.weight.data.t().contiguous().t()
    expected = torch.tanh(F.linear(x[join.rows].flatten(start_dim=1), layer.weight, layer.bias))
    y = layer(x, join)
    torch.testing.assert_close(y, expected)
    y.sum().backward()  # whose gradient is one number, seen many times
    assert layer.bias.grad is not None
    torch.testing.assert_close(layer.bias.grad, (1 - expected**2).sum(0))


PRODUCT = """
import hashlib, sys
if "charlm" in sys.argv:
    import charlm
import numpy as np
a = np.random.default_rng(1).standard_normal((64, 300)).astype("f4")
print(hashlib.md5((a @ a.T[:, ::-1]).tobytes()).hexdigest())
"""


@pytest.mark.skipif(platform.machine() != "x86_64", reason="kernels are pinned on x86-64 alone")
def test_the_environment_can_choose_other_kernels_and_the_package_overrules_it() -> None:
    """That the first two differ shows that the comparison of bytes can fail."""
    old, new = (run_python(PRODUCT, OPENBLAS_CORETYPE=core) for core in ("Prescott", "Haswell"))
    assert old != new
    for core in ("Prescott", "SkylakeX", ""):
        assert run_python(PRODUCT, "charlm", OPENBLAS_CORETYPE=core) == new
