"""A separate stream of random numbers for each use."""

import hashlib

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from charlm.core.randomness import derive_seed, generator, seeded
from tests.helpers import few


def test_a_derived_seed_is_the_same_on_every_machine() -> None:
    assert derive_seed(1, "split") == int(hashlib.sha256(b"1/split").hexdigest()[:16], 16) // 2
    assert derive_seed(1, "split") == 6_289_437_342_324_778_734
    assert derive_seed(1, "shuffle/1") == 508_638_173_547_539_399


@few
@given(st.integers(0, 2**63 - 1), st.text())
def test_a_derived_seed_fits_into_63_bits(seed: int, use: str) -> None:
    assert 0 <= derive_seed(seed, use) < 2**63


def test_every_seed_and_use_has_its_own_stream() -> None:
    uses = ["split", "init", "shuffle/1", "shuffle/2", "shuffle/11", "sample/fcn"]
    derived = [derive_seed(seed, use) for seed in (0, 1, 2, 11) for use in uses]
    assert len(set(derived)) == len(derived)


def test_a_generator_depends_on_seed_and_use() -> None:
    first = torch.rand(5, generator=generator(1, "split"))
    assert torch.equal(first, torch.rand(5, generator=generator(1, "split")))
    assert not torch.equal(first, torch.rand(5, generator=generator(2, "split")))
    assert not torch.equal(first, torch.rand(5, generator=generator(1, "init")))


def test_the_numbers_of_a_generator_are_pinned() -> None:
    assert torch.randperm(8, generator=generator(1, "split")).tolist() == [0, 3, 4, 5, 1, 6, 2, 7]


def test_a_generator_leaves_the_global_one_alone() -> None:
    before = torch.get_rng_state()
    torch.rand(5, generator=generator(1, "split"))
    assert torch.equal(torch.get_rng_state(), before)


def test_seeded_works_for_code_that_takes_no_generator() -> None:
    with seeded(1, "init"):
        first = torch.nn.Linear(3, 4).weight
    torch.rand(9)
    with seeded(1, "init"):
        assert torch.equal(torch.nn.Linear(3, 4).weight, first)
    with seeded(1, "init"):
        assert torch.equal(torch.rand(5), torch.rand(5, generator=generator(1, "init")))
    with seeded(2, "init"):
        assert not torch.equal(torch.nn.Linear(3, 4).weight, first)


def test_seeded_puts_the_global_generator_back() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    with seeded(1, "init"):
        torch.rand(100)
    assert torch.equal(torch.rand(3), expected)


def test_seeded_puts_the_global_generator_back_after_an_exception() -> None:
    before = torch.get_rng_state()
    with pytest.raises(RuntimeError), seeded(1, "init"):
        torch.rand(-1)
    assert torch.equal(torch.get_rng_state(), before)
