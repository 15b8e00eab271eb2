"""What windows have in common is found, and computed once without another result."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from charlm.models.fcn import FCN
from charlm.models.wavenet import WaveNet
from charlm.sharing import distinct, gather
from tests.helpers import few


@few
@given(
    st.integers(1, 40),
    st.sampled_from([1, 2, 3, 8, 16]),
    st.sampled_from([1, 2, 46, 300, 2**31]),
    st.integers(0, 2**32),
)
def test_distinct_rows_are_all_rows_each_once(
    rows: int, columns: int, bound: int, seed: int
) -> None:
    torch.manual_seed(seed)
    values = torch.randint(bound, (3,))  # few, so that rows do coincide
    table = values[torch.randint(3, (rows, columns))]
    different, place = distinct(table, bound)
    assert torch.equal(different[place], table)
    assert len({tuple(row) for row in different.tolist()}) == len(different)
    assert place.shape == (rows,)


@few
@given(st.integers(1, 9), st.integers(0, 30), st.integers(1, 9), st.integers(0, 2**32))
def test_gathering_is_indexing_and_so_is_its_gradient(
    rows: int, taken: int, width: int, seed: int
) -> None:
    torch.manual_seed(seed)
    index = torch.randint(rows, (taken, 2))
    results = []
    values, weight = torch.randn(rows, width), torch.randn(taken, 2, width)
    for take in (gather, lambda x, index: x[index]):
        x = values.clone().requires_grad_()
        y = take(x, index)
        assert y.shape == (taken, 2, width)
        (y * weight).sum().backward()
        results.append((y, x.grad))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_any_number_of_threads_sums_gradients_alike() -> None:
    index, weight = torch.randint(50, (20_000,)), torch.randn(20_000, 128)
    gradients = []
    threads = torch.get_num_threads()
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        x = torch.zeros(50, 128, requires_grad=True)
        (gather(x, index) * weight).sum().backward()
        gradients.append(x.grad)
    torch.set_num_threads(threads)
    first, second, third = (gradient for gradient in gradients if gradient is not None)
    assert torch.equal(first, second)
    assert torch.equal(first, third)


def test_repeated_contexts_change_nothing() -> None:
    contexts = torch.randint(46, (5, 8))
    for model in (FCN(vocab_size=46, block_size=8), WaveNet(vocab_size=46, block_size=8)):
        repeated = model(contexts.repeat(4, 1))
        torch.testing.assert_close(repeated, model(contexts).repeat(4, 1))
