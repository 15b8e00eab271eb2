"""The nearest real name, compared with the definition of the distance."""

from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

import charlm.data.corpus
from charlm.data.corpus import Corpus
from charlm.report.nearest import Neighbor, nearest_names
from tests.helpers import NAME_LISTS, few, small_corpus


@cache
def levenshtein(a: str, b: str) -> int:
    if not a or not b:
        return len(a) + len(b)
    change = levenshtein(a[1:], b[1:]) + (a[0] != b[0])
    return min(change, levenshtein(a[1:], b) + 1, levenshtein(a, b[1:]) + 1)


@given(names=NAME_LISTS, invented=NAME_LISTS, chunk=st.sampled_from([1, 5, 1 << 20]))
@few
def test_the_nearest_name_is_the_first_at_the_smallest_distance(
    names: list[str], invented: list[str], chunk: int
) -> None:
    corpus = Corpus.from_names(names, 2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(charlm.data.corpus, "CHUNK", chunk)
        found = nearest_names(invented, corpus)
    distances = [[levenshtein(one, name) for name in names] for one in invented]
    assert found == [Neighbor(names[its.index(min(its))], min(its)) for its in distances]


def test_a_name_of_the_list_is_its_own_neighbor() -> None:
    assert nearest_names(["KLARA", "MARI"], small_corpus()) == [
        Neighbor("KLARA", 0),
        Neighbor("MARIE", 1),
    ]


def test_no_names_have_no_neighbors() -> None:
    assert nearest_names([], small_corpus()) == []
