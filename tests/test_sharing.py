"""What windows have in common is found, and computed once without another result."""

import copy

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from charlm.losses import summed_cross_entropy
from charlm.models.base import LanguageModel
from charlm.models.fcn import FCN
from charlm.models.wavenet import WaveNet
from charlm.sharing import Join, Shared, Sums, TableJoin, _unshared, distinct, share
from tests.helpers import ARCHITECTURES, few

SEEDS = st.integers(0, 2**32)


@few
@given(
    st.integers(1, 40),
    st.sampled_from([1, 2, 3, 8, 16]),
    st.sampled_from([1, 2, 46, 300, 2**31]),
    SEEDS,
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


def spelled_out(shared: Shared, bound: int) -> torch.Tensor:
    """The contexts (N, T) that a tree stands for."""
    x = torch.arange(bound)[:, None]  # each token stands for itself
    for join in shared.joins:
        x = x[join.rows].flatten(start_dim=1)
    return x[shared.place]


@few
@given(
    st.integers(1, 3),
    st.integers(0, 20),
    st.sampled_from([[], [1], [2], [8], [3, 2], [2, 3], [2, 2, 2], [4, 2, 1]]),
    st.sampled_from([1, 2, 46, 300, 100_000]),
    SEEDS,
)
def test_the_trees_of_many_batches_are_those_of_their_contexts(
    batches: int, count: int, arities: list[int], bound: int, seed: int
) -> None:
    torch.manual_seed(seed)
    T = 1
    for arity in arities:
        T *= arity
    values = torch.randint(bound, (4,))
    contexts = values[torch.randint(4, (batches, count, T))]
    trees = share(contexts, arities, bound)
    assert len(trees) == batches
    for shared, its_contexts in zip(trees, contexts, strict=True):
        assert torch.equal(spelled_out(shared, bound), its_contexts)
        assert torch.equal(spelled_out(_unshared(its_contexts, arities), bound), its_contexts)
        for join in shared.joins:
            assert len({tuple(row) for row in join.rows.tolist()}) == len(join.rows)
        if arities:
            last = shared.joins[-1].rows
            assert len(last) == len({tuple(row) for row in its_contexts.tolist()})


@few
@given(st.integers(1, 30), st.sampled_from([[8], [2, 2, 2], [2, 4]]), SEEDS)
def test_what_is_summed_is_what_is_joined(count: int, arities: list[int], seed: int) -> None:
    """Numbers that say which row and which place they are of, and which are summed exactly."""
    torch.manual_seed(seed)
    bound = 5
    contexts = torch.randint(bound, (2, count, 8))
    for shared in share(contexts, arities, bound):
        rows = bound
        for join in shared.joins:
            assert isinstance(join, TableJoin)
            values = torch.randint(1000, (join.rows.shape[1], rows)).double()
            table = torch.cat([v[s] for v, s in zip(values, join.slots, strict=True)])[:, None]
            expected = sum(v[join.rows[:, k]] for k, v in enumerate(values))
            y = join.sum(table)
            assert torch.equal(y.flatten(), expected)
            # The way back is the transposed: <y, g> = <table, back(g)> for every g.
            g = torch.randint(1000, y.shape).double()
            assert join.sum_back is not None
            assert (y * g).sum() == (table * join.sum_back(g)).sum()
            assert join.alike == all(slot == join.slots[0] for slot in join.slots)
            rows = len(join.rows)


def test_a_neighbour_that_is_only_on_the_left_is_multiplied_for_the_left_alone() -> None:
    """Contexts of pairs a b, with three different lefts, two rights and one that is both."""
    contexts = torch.tensor(
        [[[1, 1, 4, 4], [2, 2, 4, 4], [3, 3, 4, 4], [1, 1, 5, 5], [4, 4, 5, 5]]]
    )
    (shared,) = share(contexts, [2, 2], 6)
    pairs, whole = shared.joins
    assert isinstance(whole, TableJoin)
    assert pairs.rows.tolist() == [[1, 1], [2, 2], [3, 3], [4, 4], [5, 5]]
    assert list(whole.slots) == [slice(0, 4), slice(3, 5)]


def test_without_a_gradient_to_come_there_is_no_way_back() -> None:
    with torch.inference_mode():
        (shared,) = share(torch.zeros(1, 3, 2, dtype=torch.long), [2], 5)
    (join,) = shared.joins
    assert isinstance(join, TableJoin)
    assert join.sum_back is None


def test_any_number_of_threads_sums_alike() -> None:
    index, starts = torch.randint(50, (20_000,)).int(), torch.arange(0, 20_000, 400).int()
    x = torch.randn(50, 128)
    sums = []
    threads = torch.get_num_threads()
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        sums.append(Sums(index, starts)(x))
    torch.set_num_threads(threads)
    assert torch.equal(sums[0], sums[1])
    assert torch.equal(sums[0], sums[2])
    in_order = torch.zeros(128)
    for row in index[:400]:
        in_order += x[row]
    assert torch.equal(sums[0][0], in_order)


def gradients(model: LanguageModel, batch: Shared) -> list[torch.Tensor]:
    model.zero_grad()
    logits = model(batch)[batch.place]
    (logits * torch.arange(logits.numel()).view_as(logits).cos()).sum().backward()
    found = [parameter.grad for parameter in model.parameters()]
    return [logits, *(gradient for gradient in found if gradient is not None)]


@ARCHITECTURES
def test_shared_or_not_results_and_gradients_are_the_same(
    architecture: type[LanguageModel],
) -> None:
    """Not shared, as on a GPU; there torch joins and multiplies. And in float64, by torch too."""
    torch.manual_seed(1)
    model = architecture(vocab_size=46, block_size=8)
    contexts = torch.randint(46, (1, 20, 8))
    contexts[:, :, :5] = 0
    (shared,) = model.share(contexts)
    ours = gradients(model, shared)
    plain = gradients(model, _unshared(contexts[0], model.arities))
    exact = gradients(copy.deepcopy(model).double(), shared)
    assert len(ours) == len(plain) == len(exact) == 1 + len(list(model.parameters()))
    for a, b, c in zip(ours, plain, exact, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(a.double(), c, rtol=1e-5, atol=1e-5)


@ARCHITECTURES
def test_any_number_of_threads_gives_the_same_loss_and_gradients(
    architecture: type[LanguageModel],
) -> None:
    """Of a batch so large that torch shares it out."""
    model = architecture(vocab_size=46, block_size=8)
    contexts = torch.randint(46, (1, 2000, 8))
    contexts[:, :, :5] = 0
    targets = torch.randint(46, (2000,))
    (shared,) = model.share(contexts)
    threads = torch.get_num_threads()
    results = []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        model.zero_grad()
        loss = summed_cross_entropy(model(shared), shared.place, targets)
        loss.backward()
        gradients = [parameter.grad for parameter in model.parameters()]
        results.append([loss.detach().float(), *(g for g in gradients if g is not None)])
    torch.set_num_threads(threads)
    assert results[0][0].item() == pytest.approx(
        F.cross_entropy(model(contexts[0]), targets, reduction="sum").item(), rel=1e-5
    )
    for one, two, three in zip(*results, strict=True):
        assert torch.equal(one, two)
        assert torch.equal(one, three)


def test_nothing_is_shared_where_it_would_have_to_be_waited_for() -> None:
    contexts = torch.zeros(2, 5, 8, dtype=torch.long, device="meta")
    for shared in share(contexts, [2, 2, 2], 46):
        assert all(type(join) is Join for join in shared.joins)
        assert [join.rows.shape for join in shared.joins] == [(20, 2), (10, 2), (5, 2)]
        assert shared.place.shape == (5,)


def test_repeated_contexts_change_nothing() -> None:
    contexts = torch.randint(46, (5, 8))
    for model in (FCN(vocab_size=46, block_size=8), WaveNet(vocab_size=46, block_size=8)):
        repeated = model(contexts.repeat(4, 1))
        torch.testing.assert_close(repeated, model(contexts).repeat(4, 1))
