"""What windows have in common is found, and computed once without another result."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from charlm.fast.losses import summed_cross_entropy
from charlm.fast.sharing import (
    OrderedJoin,
    PlainJoin,
    Shared,
    TableJoin,
    _unshared,
    distinct,
    share,
)
from charlm.models.base import LanguageModel
from charlm.models.fcn import FCN
from charlm.models.wavenet import WaveNet
from tests.helpers import ARCHITECTURES, few

SEEDS = st.integers(0, 2**32)


@few
@given(
    st.integers(0, 40),
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
    different, place = distinct(table)
    assert different.dtype == place.dtype == torch.int32
    assert torch.equal(different[place].long(), table)
    assert len({tuple(row) for row in different.tolist()}) == len(different)
    assert place.shape == (rows,)


def spelled_out(shared: Shared, bound: int) -> torch.Tensor:
    """The contexts (N, T) that a tree stands for."""
    x = torch.arange(bound)[:, None]  # each token stands for itself
    for join in shared.joins:
        x = x[join.rows].flatten(start_dim=1)
    assert torch.equal(shared.of_each(x), x[shared.place])
    return x[shared.place]


@few
@given(
    st.integers(0, 20),
    st.sampled_from([[], [1], [2], [8], [3, 2], [2, 3], [2, 2, 2], [4, 2, 1]]),
    st.sampled_from([1, 2, 46, 300, 100_000]),
    SEEDS,
)
def test_the_tree_of_a_batch_is_that_of_its_contexts(
    count: int, arities: list[int], bound: int, seed: int
) -> None:
    torch.manual_seed(seed)
    values = torch.randint(bound, (4,))
    contexts = values[torch.randint(4, (count, math.prod(arities)))]
    shared = share(contexts, arities, bound)
    assert torch.equal(spelled_out(shared, bound), contexts)
    assert torch.equal(spelled_out(_unshared(contexts, arities), bound), contexts)
    for join in shared.joins:
        assert len({tuple(row) for row in join.rows.tolist()}) == len(join.rows)
    if arities:
        last = shared.joins[-1].rows
        assert len(last) == len({tuple(row) for row in contexts.tolist()})


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64])
def test_contexts_of_any_type_and_stride_are_taken(dtype: torch.dtype) -> None:
    contexts = torch.randint(46, (9, 8)).to(dtype)
    taken = {
        "as they are": contexts,
        "one process's share": torch.stack([contexts, contexts + 1], dim=1).flatten(0, 1)[::2],
        "without their target": torch.cat([contexts, contexts[:, :1]], dim=1)[:, :-1],
        "column after column": contexts.t().contiguous().t(),
        "one, repeated": contexts[:1].expand(9, 8),
    }
    for name, given_contexts in taken.items():
        before = given_contexts.clone()
        shared = share(given_contexts, [2, 2, 2], 47)
        assert torch.equal(spelled_out(shared, 47), before.long()), name
        assert torch.equal(given_contexts, before), name


def of_each_place(join: TableJoin) -> tuple[list[int], list[int]]:
    """(K,) where in the table the rows of each place begin, and (K,) where they end."""
    return join.begins[:-1].tolist(), join.begins[1:].tolist()


@few
@given(st.integers(0, 30), st.sampled_from([[8], [2, 2, 2], [2, 4], [1, 8]]), SEEDS)
def test_what_is_summed_is_what_is_joined(count: int, arities: list[int], seed: int) -> None:
    """Numbers that say which row and which place they are of, and which are summed exactly."""
    torch.manual_seed(seed)
    rows = 5
    contexts = torch.randint(rows, (count, 8))
    for join in share(contexts, arities, rows).joins:
        assert isinstance(join, TableJoin)
        U, K = join.places.shape
        values = torch.randint(1000, (K, rows)).numpy()
        parts = zip(values, *of_each_place(join), strict=True)
        table = [row for v, begin, end in parts for row in v[join.entries[begin:end]]]
        assert len(table) == join.begins[-1] == len(join.entries)
        expected = sum(v[join.rows[:, k].numpy()] for k, v in enumerate(values))
        summed = [sum(table[place] for place in places) for places in join.places]
        assert summed == expected.tolist()
        rows = U


def test_a_neighbour_that_is_only_on_the_left_is_multiplied_for_the_left_alone() -> None:
    """Contexts of pairs a b, with three different lefts, two rights and one that is both."""
    contexts = torch.tensor([[1, 1, 4, 4], [2, 2, 4, 4], [3, 3, 4, 4], [1, 1, 5, 5], [4, 4, 5, 5]])
    pairs, whole = share(contexts, [2, 2], 6).joins
    assert isinstance(whole, TableJoin)
    assert pairs.rows.tolist() == [[1, 1], [4, 4], [2, 2], [3, 3], [5, 5]]
    assert whole.begins.tolist() == [0, 4, 6]
    assert whole.entries.tolist() == [0, 2, 3, 1, 1, 4]


@pytest.mark.parametrize("arities", [[8], [2, 2, 2]])
def test_of_a_large_vocabulary_only_what_a_batch_uses_is_multiplied(arities: list[int]) -> None:
    """At each place; a table of all 5,000 would take longer than all else."""
    contexts = torch.randint(5000, (64, 8))
    contexts[:, :2] = 0
    first = share(contexts, arities, 5000).joins[0]
    assert isinstance(first, TableJoin)
    used = [len(column.unique()) for column in first.rows.t()]
    assert first.begins.tolist() == [sum(used[:k]) for k in range(len(used) + 1)]
    assert len(first.entries) == sum(used) <= contexts.numel()
    for column, begin, end in zip(first.rows.t(), *of_each_place(first), strict=True):
        assert set(first.entries[begin:end].tolist()) == set(column.tolist())


@pytest.mark.parametrize("length", [4, 7, 9, 16])
@ARCHITECTURES
def test_contexts_of_another_length_are_refused(
    architecture: type[LanguageModel], length: int
) -> None:
    """16 would make two contexts of 8 of each."""
    model = architecture(vocab_size=46, block_size=8)
    for count in (1, 2, 3, 4):
        with pytest.raises(ValueError, match="reshape"):
            model.share(torch.zeros(count, length, dtype=torch.int32))


@pytest.mark.parametrize("token", [-1, 46, 2**31 - 1])
@ARCHITECTURES
def test_a_token_that_there_is_not_is_refused(
    architecture: type[LanguageModel], token: int
) -> None:
    model = architecture(vocab_size=46, block_size=8)
    contexts = torch.zeros(3, 8, dtype=torch.int32)
    contexts[1, 5] = token
    with pytest.raises(IndexError, match="a token is not in the vocabulary"):
        model(contexts)


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
    contexts = torch.randint(46, (20, 8))
    contexts[:, :5] = 0
    shared = model.share(contexts)
    ours = gradients(model, shared)
    plain = gradients(model, _unshared(contexts, model.arities))
    exact = gradients(copy.deepcopy(model).double(), shared)
    assert len(ours) == len(plain) == len(exact) == 1 + len(list(model.parameters()))
    for a, b, c in zip(ours, plain, exact, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(a.double(), c, rtol=1e-4, atol=1e-4)


@ARCHITECTURES
def test_any_number_of_threads_gives_the_same_loss_and_gradients(
    architecture: type[LanguageModel],
) -> None:
    """Of a batch so large that torch shares it out."""
    model = architecture(vocab_size=46, block_size=8)
    contexts = torch.randint(46, (2000, 8))
    contexts[:, :5] = 0
    targets = torch.randint(46, (2000,))
    shared = model.share(contexts)
    threads = torch.get_num_threads()
    results = []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        model.zero_grad()
        loss = summed_cross_entropy(model(shared), shared, targets)
        loss.backward()
        gradients = [parameter.grad for parameter in model.parameters()]
        results.append([loss.detach().float(), *(g for g in gradients if g is not None)])
    torch.set_num_threads(threads)
    assert results[0][0].item() == pytest.approx(
        F.cross_entropy(model(contexts), targets, reduction="sum").item(), rel=1e-5
    )
    for one, two, three in zip(*results, strict=True):
        assert torch.equal(one, two)
        assert torch.equal(one, three)


def test_nothing_is_shared_where_it_would_have_to_be_waited_for() -> None:
    contexts = torch.zeros(5, 8, dtype=torch.long, device="meta")
    shared = share(contexts, [2, 2, 2], 46)
    assert [type(join) for join in shared.joins] == [PlainJoin, OrderedJoin, OrderedJoin]
    assert [join.rows.shape for join in shared.joins] == [(20, 2), (10, 2), (5, 2)]
    assert shared.place.shape == (5,)
    assert shared.in_order
    logits = torch.zeros(5, 46, device="meta")
    assert shared.of_each(logits) is logits


def test_repeated_contexts_change_nothing() -> None:
    contexts = torch.randint(46, (5, 8))
    for model in (FCN(vocab_size=46, block_size=8), WaveNet(vocab_size=46, block_size=8)):
        repeated = model(contexts.repeat(4, 1))
        torch.testing.assert_close(repeated, model(contexts).repeat(4, 1))


@ARCHITECTURES
@pytest.mark.parametrize("block_size", [1, 8])
def test_of_no_contexts_there_are_no_logits_a_loss_of_0_and_gradients_of_0(
    architecture: type[LanguageModel], block_size: int
) -> None:
    """As for a process that has no share of the last batch."""
    model = architecture(vocab_size=46, block_size=block_size)
    contexts, targets = torch.zeros(0, block_size, dtype=torch.int32), torch.zeros(0).long()
    assert model(contexts).shape == (0, 46)
    shared = model.share(contexts)
    loss = summed_cross_entropy(model(shared), shared, targets)
    loss.backward()
    assert loss.item() == 0
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert not parameter.grad.any(), name
