"""Pseudorandom permutations."""

import itertools
import math
from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from charlm.data import permutation
from charlm.data.permutation import LARGEST, Permutation
from tests.helpers import few

SEEDS = st.integers(0, 2**63 - 1)


def deviation(observed: torch.Tensor, expected: float, degrees: int) -> float:
    """Return the chi-squared statistic of counts, in standard deviations from its mean."""
    chi_squared = ((observed.double() - expected) ** 2 / expected).sum().item()
    return (chi_squared - degrees) / math.sqrt(2 * degrees)


@few
@given(st.integers(0, 5000), SEEDS)
def test_every_place_occurs_once(n: int, seed: int) -> None:
    places = Permutation(n, seed)(torch.arange(n))
    assert places.dtype == torch.int64
    assert torch.equal(places.sort().values, torch.arange(n))


@pytest.mark.parametrize("n", [2**16 - 1, 2**16, 2**16 + 1, 240_829])
def test_every_place_occurs_once_in_a_large_permutation(n: int) -> None:
    assert torch.equal(Permutation(n, 1)(torch.arange(n)).sort().values, torch.arange(n))


@few
@given(st.integers(1, LARGEST), SEEDS, st.data())
def test_places_are_in_range_and_independent_of_the_other_indices(
    n: int, seed: int, data: st.DataObject
) -> None:
    index = torch.tensor(data.draw(st.lists(st.integers(0, n - 1), min_size=1, unique=True)))
    order = Permutation(n, seed)
    places = order(index)
    assert 0 <= places.min().item() <= places.max().item() < n
    assert len(set(places.tolist())) == len(index)
    assert [order(i).item() for i in index] == places.tolist()
    assert torch.equal(Permutation(n, seed)(index), places)


def test_chunks_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    index = torch.arange(1000).view(10, 100)
    places = Permutation(1000, 1)(index)
    monkeypatch.setattr(permutation, "CHUNK", 7)
    assert torch.equal(Permutation(1000, 1)(index), places)


def test_the_indices_are_not_changed() -> None:
    index = torch.arange(100)
    Permutation(100, 1)(index)
    assert torch.equal(index, torch.arange(100))


@pytest.mark.parametrize("n", [-1, LARGEST + 1])
def test_an_invalid_length_is_refused(n: int) -> None:
    with pytest.raises(ValueError, match="cannot permute"):
        Permutation(n, 1)


def test_the_order_of_seed_1_is_the_same_everywhere() -> None:
    assert Permutation(8, 1)(torch.arange(8)).tolist() == [0, 2, 5, 6, 3, 7, 4, 1]
    assert Permutation(LARGEST, 1)(torch.arange(3)).tolist() == [
        61690586953,
        609524630541,
        771932180561,
    ]


@pytest.mark.parametrize(("n", "each"), [(3, 100), (4, 30), (5, 8)])
def test_every_order_of_a_few_elements_is_equally_likely(n: int, each: int) -> None:
    count = each * math.factorial(n)
    orders = Counter(tuple(Permutation(n, s)(torch.arange(n)).tolist()) for s in range(count))
    found = torch.tensor([orders[order] for order in itertools.permutations(range(n))])
    assert abs(deviation(found, each, math.factorial(n) - 1)) < 4


@pytest.mark.parametrize(("n", "each"), [(10, 30), (100, 8)])
def test_every_place_is_equally_likely_for_every_element(n: int, each: int) -> None:
    found = torch.zeros(n, n)
    for seed in range(each * n):
        found[torch.arange(n), Permutation(n, seed)(torch.arange(n))] += 1
    assert abs(deviation(found, each, (n - 1) ** 2)) < 4


@pytest.mark.parametrize("n", [40_000, 65_537, 240_829, 75_000_000, LARGEST])
def test_neighbors_are_independent(n: int) -> None:
    """Pairs of results for nearby indices fill a grid of 32 by 32 evenly."""
    count, cells = min(n, 300_000), 32
    column = Permutation(n, 1)(torch.arange(count)) * cells // n
    for apart in (1, 2, 3, 16, 256, 4096):
        pairs = column[:-apart] * cells + column[apart:]
        found = pairs.bincount(minlength=cells**2)
        assert abs(deviation(found, len(pairs) / cells**2, cells**2 - 1)) < 5, apart
    first_tenth = (Permutation(n, 1)(torch.arange(count)) < n / 10).double()
    runs = first_tenth[: count // 100 * 100].view(-1, 100).sum(1)
    assert runs.var().item() / 9 == pytest.approx(1, abs=5 * math.sqrt(2 / len(runs)))
