"""Distinct names: found by their hashes, or by comparison if hashes are equal."""

import tempfile
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charlm.names import distinct
from charlm.names.distinct import Distinct, Hashes, hash_lines
from tests.helpers import few

BLOCKS = st.lists(st.lists(st.text("ABÉ𝔸", min_size=1, max_size=4), max_size=12), max_size=8)
HASHES: dict[str, Callable[[Hashes], Hashes]] = {
    "as they are": lambda hashes: hashes,
    "three different ones": lambda hashes: hashes % np.uint64(3),
    "all the same": lambda hashes: hashes * np.uint64(0),
}


def written(blocks: list[list[str]]) -> list[str]:
    with tempfile.TemporaryFile() as file:
        seen = Distinct(file)
        new = [name for block in blocks for name in seen.add(block)]
        file.seek(0)
        names = file.read().decode().split("\n")[:-1]
    assert new == names
    assert seen.count == len(names)
    return names


@pytest.mark.parametrize("change", HASHES.values(), ids=HASHES.keys())
@few
@given(blocks=BLOCKS)
def test_first_occurrences_are_written_in_order_even_if_hashes_collide(
    change: Callable[[Hashes], Hashes], blocks: list[list[str]]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distinct, "hash_lines", lambda *lines: change(hash_lines(*lines)))
        assert written(blocks) == list(dict.fromkeys(name for block in blocks for name in block))


def test_many_blocks_are_kept_in_few_runs() -> None:
    blocks = [[f"{i:X}" for i in range(first, first + 10)] for first in range(0, 5000, 5)]
    with tempfile.TemporaryFile() as file:
        seen = Distinct(file)
        for block in blocks:
            seen.add(block)
        assert seen.count == 5005
        assert len(seen._runs) < 10
        assert all((np.diff(hashes) > 0).all() for hashes, _ in seen._runs)


def test_a_prefix_of_a_name_is_a_different_name() -> None:
    assert written([["ANNA"], ["ANN", "ANNAA", "ANNA"]]) == ["ANNA", "ANN", "ANNAA"]


def test_hashes_of_many_names_all_differ() -> None:
    text = "".join(f"{i:X}\n" for i in range(300_000)).encode()
    data = np.frombuffer(text, dtype=np.uint8)
    starts = np.concatenate(([0], np.flatnonzero(data == ord("\n"))[:-1] + 1))
    assert len(np.unique(hash_lines(data, starts))) == 300_000
