"""Names unlike all names in a list, compared with the definition of the distance."""

from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from charlm.sampling import distances
from charlm.sampling.distances import unlike_all
from tests.helpers import few
from tests.unit.sampling.exact import edits

LISTS = st.lists(st.text("abÉ😀", max_size=6), max_size=12)


@few
@given(LISTS, LISTS, st.integers(1, 5))
def test_unlike_names_match_the_definition(
    names: list[str], known: list[str], distance: int
) -> None:
    expected = [name for name in names if all(edits(name, other) >= distance for other in known)]
    assert list(unlike_all(names, known, distance)) == expected
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distances, "NAMES", 3)
        patch.setattr(distances, "KNOWN", 2)
        assert list(unlike_all(names, known, distance)) == expected


def test_no_more_names_are_compared_than_necessary(monkeypatch: pytest.MonkeyPatch) -> None:
    from rapidfuzz import process

    compared: list[int] = []
    original = process.cdist

    def counted(queries, *args, **options):
        compared.append(len(queries))
        return original(queries, *args, **options)

    monkeypatch.setattr(process, "cdist", counted)
    names = [f"{'x' * 9}{n:04}" for n in range(1000)]
    assert list(islice(unlike_all(names, ["a", "b"], 3), 3)) == names[:3]
    assert sum(compared) == distances.NAMES
