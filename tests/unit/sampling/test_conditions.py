"""Names that meet conditions have the model's distribution, given the conditions."""

from typing import Any

import pytest

from charlm.data.corpus import Vocabulary
from charlm.sampling import conditions as module
from charlm.sampling.conditions import Conditions
from charlm.trained import TrainedModel
from tests.helpers import refused
from tests.unit.sampling.exact import (
    all_names,
    edits,
    exact_probabilities,
    is_distributed_as,
    tiny_model,
)

VOCABULARY = Vocabulary("ab")
MODEL = tiny_model(VOCABULARY, block_size=2)
TRAINED = TrainedModel(MODEL, VOCABULARY, 2)
LONGEST = 5


def expected(temperature: float = 1.0, **options: Any) -> dict[str, float]:
    """Return the probabilities of names that end by themselves and meet the conditions."""
    prefix, suffix = options.get("prefix", ""), options.get("suffix", "")
    length = options.get("length", (1, LONGEST))
    shortest, longest = (length, length) if isinstance(length, int) else length
    every = exact_probabilities(MODEL, VOCABULARY, LONGEST + 1, temperature)
    return {
        name: probability
        for name, probability in every.items()
        if name.startswith((prefix,) if isinstance(prefix, str) else tuple(prefix))
        and name.endswith(suffix)
        and shortest <= len(name) <= min(longest, LONGEST)
    }


@pytest.mark.parametrize(
    "options",
    [
        {"suffix": "ba"},
        {"suffix": "a", "temperature": 0.6},
        {"length": 1},
        {"length": 3},
        {"length": 3, "temperature": 2.0},
        {"length": (2, 4)},
        {"length": LONGEST},
        {"prefix": "a", "suffix": "b"},
        {"prefix": "ab", "suffix": "ba", "length": (3, 4)},
        {"prefix": ["ab", "b"], "length": 3},
        {"prefix": ["aab", "b", "ba"], "suffix": "b", "length": (2, 5), "temperature": 0.7},
        {"prefix": ["abba", "b"], "length": 2},
    ],
    ids=str,
)
def test_names_follow_the_distribution_given_the_conditions(options: dict[str, Any]) -> None:
    exact = expected(**options)
    names = TRAINED.sample(count=10_000, max_length=LONGEST, **options)
    assert is_distributed_as(exact, names)
    skewed = {name: probability * 1.3 ** name.count("a") for name, probability in exact.items()}
    by_a = {name.count("a") for name in exact}
    assert len(by_a) == 1 or not is_distributed_as(skewed, names)


def test_max_length_does_not_matter_if_a_length_is_given() -> None:
    short = TRAINED.sample(count=500, length=(2, 3), max_length=3)
    assert short == TRAINED.sample(count=500, length=(2, 3), max_length=30)


def test_a_name_cut_off_at_max_length_does_not_count() -> None:
    names = TRAINED.sample(count=10_000, suffix="a", max_length=2)
    exact = {name: p for name, p in expected(suffix="a").items() if len(name) <= 2}
    assert is_distributed_as(exact, names)


@pytest.mark.parametrize("unlike", [None, 1, 2])
def test_the_first_novel_name_follows_the_distribution_of_novel_names(
    unlike: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FIRST_ROUND", 16)
    known = ["a", "bab", "ba"]
    exact = {
        name: probability
        for name, probability in expected(length=(1, 4)).items()
        if all(edits(name, other) >= (unlike or 1) for other in known)
    }
    names = [
        TRAINED.sample(count=1, length=(1, 4), novel_to=known, unlike=unlike, seed=seed)[0]
        for seed in range(1000)
    ]
    assert is_distributed_as(exact, names)
    assert not is_distributed_as(expected(length=(1, 4)), names)


def test_names_unlike_known_names_are_distinct_and_far_from_all_of_them() -> None:
    vocabulary = Vocabulary("abcdé")
    model = TrainedModel(tiny_model(vocabulary, block_size=2), vocabulary, 2)
    known = ["abc", "BADE\u0301", "zzzz", "日", "a", "cab"]
    for distance in (1, 2, 3, 4):
        names = model.sample(count=100, novel_to=iter(known), unlike=distance, prefix="b")
        assert len(set(names)) == 100
        for name in names:
            read = [
                other if other == "zzzz" else model.fold(other) for other in known if other != "日"
            ]
            assert min(edits(name, other) for other in [*read, "日"]) >= distance
    assert model.sample(novel_to=known, unlike=1) == model.sample(novel_to=known)


def test_an_unreadable_known_name_counts_for_the_distance() -> None:
    for name in TRAINED.sample(count=40, novel_to=["azb"], unlike=2, length=(1, 6)):
        assert edits(name, "azb") >= 2


@pytest.mark.parametrize(
    ("options", "impossible"),
    [
        ({"prefixes": ["aba"], "suffix": "bb", "length": (2, 4)}, True),
        ({"prefixes": ["aba"], "suffix": "ba", "length": (3, 3)}, False),
        ({"prefixes": ["aba"], "suffix": "aba", "length": (4, 4)}, True),
        ({"prefixes": ["aba"], "suffix": "aba", "length": (5, 5)}, False),
        ({"prefixes": ["aba", "b"], "suffix": "bb", "length": (2, 2)}, False),
        ({"prefixes": ["aba"], "length": (1, 2)}, True),
        ({"suffix": "aba", "length": (1, 2)}, True),
        ({"prefixes": ["aba"], "suffix": "bbb", "max_length": 5}, True),
    ],
    ids=str,
)
def test_conditions_that_no_name_meets_are_refused(
    options: dict[str, Any], impossible: bool
) -> None:
    shortest, longest = options.get("length", (1, options.get("max_length", 30)))
    meeting = [
        name
        for name in all_names(VOCABULARY, 7)
        if shortest <= len(name) <= longest
        and name.startswith(tuple(options.get("prefixes", [""])))
        and name.endswith(options.get("suffix", ""))
    ]
    assert impossible == (not meeting)
    if impossible:
        with refused("no name of ", " characters ", "; allow more characters, or shorten the "):
            Conditions(**options)
    else:
        assert Conditions(**options).starts()


def test_sampling_gives_up_if_names_are_too_rare(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE", 3000)
    monkeypatch.setattr(module, "RARE", 2)
    with refused(
        " samples gave only ",
        " of 1,000,000 names that fit; lower the count to ",
        ", raise the temperature, shorten the prefix, shorten the suffix or allow a wider range",
    ):
        TRAINED.sample(count=10**6, prefix="ab", suffix="abab", length=(4, 20))
    with refused("distinct novel names that fit", "allow a wider range of lengths or lower unlike"):
        TRAINED.sample(novel_to=["ab"], unlike=3, length=2)
