"""Distinct rows are found, and computed only once, for any tensor of contexts."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from charlm.fast.rows import Contexts, Rows, distinct
from charlm.fast.running import Runner
from charlm.models.base import LanguageModel
from tests.helpers import ARCHITECTURES, few
from tests.models import new_model

V, T = 46, 8


@few
@given(
    st.integers(0, 40),
    st.sampled_from([1, 2, 3, 8, 16]),
    st.sampled_from([1, 2, 46, 300, 2**31]),
    st.integers(0, 2**32),
)
def test_distinct_rows_contain_every_row_once(
    rows: int, columns: int, bound: int, seed: int
) -> None:
    torch.manual_seed(seed)
    values = torch.randint(bound, (3,))  # few values, so that rows coincide
    table = values[torch.randint(3, (rows, columns))]
    found, which = distinct(table)
    assert found.dtype == which.dtype == torch.int32
    assert torch.equal(found[which].long(), table)
    assert len({tuple(row) for row in found.tolist()}) == len(found)
    assert which.shape == (rows,)


@ARCHITECTURES
def test_each_distinct_context_is_computed_once(architecture: type[LanguageModel]) -> None:
    contexts = torch.randint(V, (5, T))
    model = new_model(architecture, V, T)
    logits = model(Contexts(contexts.repeat(4, 1)))
    assert isinstance(logits, Rows)
    assert logits.node.x.shape == (5, V)
    torch.testing.assert_close(logits.dense(), model(contexts).repeat(4, 1))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64])
@ARCHITECTURES
def test_contexts_may_have_any_type_and_stride(
    architecture: type[LanguageModel], dtype: torch.dtype
) -> None:
    contexts = torch.randint(V, (9, T)).to(dtype)
    runner = Runner(new_model(architecture, V, T))
    for given_contexts in (
        contexts,
        torch.stack([contexts, contexts + 1], dim=1).flatten(0, 1)[::2],  # the part of one process
        torch.cat([contexts, contexts[:, :1]], dim=1)[:, :-1],  # cut off their targets
        contexts.t().contiguous().t(),
        contexts[:1].expand(9, T),
    ):
        before = given_contexts.clone()
        with torch.no_grad():
            expected = runner.model(given_contexts.long())
        torch.testing.assert_close(runner.logits(given_contexts), expected)
        assert torch.equal(given_contexts, before)
    assert runner.path.fast


@ARCHITECTURES
@pytest.mark.parametrize("block_size", [1, 8])
def test_empty_contexts_give_empty_logits(
    architecture: type[LanguageModel], block_size: int
) -> None:
    """A process may have no part of the last batch."""
    model = new_model(architecture, V, block_size)
    contexts = torch.zeros(0, block_size, dtype=torch.int32)
    assert model(Contexts(contexts)).dense().shape == (0, V)
