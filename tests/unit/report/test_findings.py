"""The headings of the report, which must be right for any models and any list."""

import re
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charlm.report import findings
from tests.helpers import few

TITLES = {"fcn": "Fully connected net", "wavenet": "WaveNet", "mixture": "Mixture"}


@pytest.mark.parametrize(
    ("parts", "text"),
    [(["a"], "a"), (["a", "b"], "a and b"), (["a", "b", "c"], "a, b, and c")],
)
def test_parts_are_listed(parts: list[str], text: str) -> None:
    assert findings.listed(parts) == text


def test_numbers_are_written_as_in_a_sentence() -> None:
    assert findings.many(1, "name") == "1 name"
    assert findings.many(31704, "name") == "31,704 names"
    assert [findings.in_words(n) for n in (1, 10, 11)] == ["one", "ten", "11"]
    ordinals = [findings.ordinal(n) for n in (1, 3, 10, 11, 12, 13, 21, 22, 23, 111, 112)]
    assert ordinals == [
        *("first", "third", "tenth", "11th", "12th", "13th", "21st", "22nd", "23rd"),
        *("111th", "112th"),
    ]


@given(count=st.integers(1, 5000), part=st.integers(0, 5000))
@few
def test_a_percentage_is_0_or_100_only_if_it_is_exact(count: int, part: int) -> None:
    text = findings.percent(min(part, count) / count)
    assert (text == "0%") == (part == 0)
    assert (text == "100%") == (part >= count)


def test_a_title_is_written_as_in_a_sentence() -> None:
    called = [findings.called(title) for title in ("Mixture", "WaveNet", "Kneser-Ney", "GRU")]
    assert called == ["the mixture", "the WaveNet", "Kneser-Ney", "the GRU"]
    assert findings.sentence("the GRU") == "The GRU"


@pytest.mark.parametrize(
    ("count", "new", "text"),
    [
        (1000, 792, "About 8 of 10 names from the mixture are new"),
        (1000, 800, "8 of 10 names from the mixture are new"),
        (1000, 100, "1 of 10 names from the mixture is new"),
        (1000, 1000, "Every name from the mixture is new"),
        (1000, 0, "No name from the mixture is new"),
        (1000, 999, "Almost every name from the mixture is new"),
        (1000, 1, "Almost no name from the mixture is new"),
        (1, 1, "Every name from the mixture is new"),
        (3, 2, "2 of 3 names from the mixture are new"),
        (3, 1, "1 of 3 names from the mixture is new"),
    ],
)
def test_generated_names_are_counted(count: int, new: int, text: str) -> None:
    in_training = [False] * new + [True] * (count - new)
    assert findings.generated("Mixture", in_training) == text


@given(in_training=st.lists(st.booleans(), min_size=1, max_size=200))
@few
def test_the_share_of_new_names_is_at_most_a_twentieth_off(
    in_training: list[bool],
) -> None:
    text = findings.generated("GRU", in_training)
    fraction = 1 - sum(in_training) / len(in_training)
    assert text.startswith("Every ") == (fraction == 1)
    assert text.startswith("No ") == (fraction == 0)
    if found := re.search(r"(\d+) of (\d+) names", text):
        part, whole = map(int, found.groups())
        assert abs(part / whole - fraction) <= 0.05 + 1e-9
        assert (" is new" in text) == (part == 1)


def measured(**losses: float) -> dict[str, dict[str, float]]:
    return {
        TITLES.get(name, name): {"test_loss": loss, "test_loss_stderr": 0.0087}
        for name, loss in losses.items()
    }


BASELINES = {
    title: {"test_loss": loss, "test_loss_stderr": 0.007}
    for title, loss in (("Bigram", 2.5), ("Unigram", 2.9), ("Uniform", 3.8))
}


@pytest.mark.parametrize(
    ("losses", "text"),
    [
        (
            {"fcn": 2.06, "mixture": 1.8182},
            "The mixture has the lowest test loss: 1.8182 ± 0.0087",
        ),
        ({"wavenet": 2.0}, "The WaveNet has the lowest test loss: 2.0000 ± 0.0087"),
        (
            {"fcn": 1.81821, "mixture": 1.81819},
            "The fully connected net and the mixture share the lowest test loss: 1.8182 ± 0.0087",
        ),
        ({"fcn": 3.1}, "No model beats the test loss of bigram counts: 2.5000 ± 0.0070"),
        ({"fcn": 2.5, "mixture": 2.7}, "The fully connected net and bigram counts share the "
         "lowest test loss: 2.5000 ± 0.0087"),
    ],
)  # fmt: skip
def test_the_lowest_loss_is_named(losses: dict[str, float], text: str) -> None:
    assert findings.comparison(measured(**losses), BASELINES) == text


def test_a_small_test_set_is_pointed_out() -> None:
    assert findings.uncertain(24083, 0.009) == ""
    assert findings.uncertain(1, 0.0) == (
        "The test set has only 1 character, so these losses say little about other names."
    )
    assert "only 99 characters" in findings.uncertain(99, 0.1)
    assert findings.uncertain(150, 0.123) == (
        "The test set has 150 characters, so a test loss is known only to about ± 0.12."
    )


def history(*losses: float) -> pd.DataFrame:
    return pd.DataFrame({"val_loss": losses})


@pytest.mark.parametrize(
    ("histories", "memorized", "text"),
    [
        (
            {"WaveNet": history(3, 2, 2.5), "Mixture": history(3, 2.9)},
            [],
            "The validation loss of the WaveNet is lowest at epoch 2 of 3",
        ),
        (
            {"WaveNet": history(3, 2, 2.5), "GRU": history(1, 3)},
            [],
            "The validation loss of the GRU is lowest at epoch 1 of 2",
        ),
        ({"WaveNet": history(3, 2)}, ["WaveNet"], "The WaveNet memorizes its training names"),
        (
            {"WaveNet": history(3, 2), "GRU": history(3, 2)},
            ["WaveNet", "GRU"],
            "The WaveNet and the GRU memorize their training names",
        ),
        (
            {"WaveNet": history(3, 2)},
            ["WaveNet", "GRU", "LSTM"],
            "Three models memorize their training names",
        ),
        (
            {"WaveNet": history(3, 2), "GRU": history(3, 2)},
            [],
            "All trained models are still improving in their last epoch",
        ),
        ({"GRU": history(3, 2)}, [], "The GRU is still improving in its last epoch"),
        (
            {"WaveNet": history(3), "GRU": history(3, 2)},
            [],
            "The GRU is still improving in its last epoch",
        ),
        (
            {"WaveNet": history(3), "GRU": history(3, 2), "LSTM": history(3, 2)},
            [],
            "The GRU and the LSTM are still improving in their last epoch",
        ),
        ({"WaveNet": history(3)}, [], "Training lasted one epoch"),
        (
            {"WaveNet": history(3), "GRU": history(3)},
            [],
            "Training lasted one epoch",
        ),
        (
            {"WaveNet": history(3, 2), "GRU": history(3, 2, 2)},
            [],
            "The validation loss of the GRU is lowest at epoch 2 of 3",
        ),
    ],
)
def test_overfitting_is_noticed(
    histories: dict[str, pd.DataFrame], memorized: list[str], text: str
) -> None:
    assert findings.curves(histories, memorized) == text


def by(column: str, keys: list[int], windows: list[int], **losses: list[float]) -> pd.DataFrame:
    return pd.DataFrame({column: keys, "windows": windows, **losses})


@pytest.mark.parametrize(
    ("fcn", "mixture", "text"),
    [
        ([3, 2, 1], [3, 1, 2], "The first character is the hardest to predict"),
        ([3, 2, 1], [1, 3, 2], "For the mixture, the second character is the hardest to predict"),
        ([3, 3, 1], [3, 3.001, 2], "The first and second characters are the hardest to predict"),
        ([2, 2, 2], [1, 1, 1.001], "All positions in a name are equally hard"),
        ([1, 2, 2], [1, 1, 1], "For the mixture, all positions in a name are equally hard"),
    ],
)
def test_the_hardest_position_is_named(fcn: list[float], mixture: list[float], text: str) -> None:
    table = by("position", [1, 2, 3], [50, 40, 30], fcn=fcn, mixture=mixture)
    titles = {name: TITLES[name] for name in ("fcn", "mixture")}
    assert findings.position(table, titles, "mixture") == text


def test_a_single_position_or_length_is_not_compared() -> None:
    titles = {"fcn": TITLES["fcn"]}
    one = by("position", [2], [9], fcn=[2.0])
    text = "Every test character is the second of its name"
    assert findings.position(one, titles, "fcn") == text
    one = by("length", [1], [9], fcn=[2.0])
    assert findings.length(one, titles, "fcn") == "Every test name has 1 character"


@pytest.mark.parametrize(
    ("fcn", "mixture", "text"),
    [
        ([3, 2, 1], [3, 2, 1], "Names {} are, on average, easier to predict than shorter ones"),
        ([1, 2, 3], [1, 2, 3], "Names {} are, on average, harder to predict than shorter ones"),
        ([1, 1, 1], [1, 1, 1.001], "Names {} are, on average, as hard to predict as shorter ones"),
        (
            [1, 2, 3],
            [3, 2, 1],
            "For the mixture, names {} are, on average, easier to predict than shorter ones",
        ),
    ],
)
def test_long_and_short_names_are_compared(
    fcn: list[float], mixture: list[float], text: str
) -> None:
    table = by("length", [4, 5, 7], [10, 60, 40], fcn=fcn, mixture=mixture)
    titles = {name: TITLES[name] for name in ("fcn", "mixture")}
    expected = text.format("of more than 5 characters")
    assert findings.length(table, titles, "mixture") == expected


@given(
    rows=st.lists(st.tuples(st.integers(1, 500), st.floats(0, 5)), min_size=2, max_size=20),
)
@few
def test_any_lengths_can_be_compared(rows: list[tuple[int, float]]) -> None:
    windows, losses = map(list, zip(*rows, strict=True))
    table = by("length", list(range(1, len(rows) + 1)), windows, fcn=losses)
    text = findings.length(table, {"fcn": "GRU"}, "fcn")
    found = re.fullmatch(
        r"Names of more than (\d+) characters? are, on average, (easier|harder|as hard) "
        r"to predict .* ones",
        text,
    )
    assert found
    long = table["length"] > int(found[1])
    assert 0 < long.sum() < len(table)
    means = [
        np.average(table["fcn"][part], weights=table["windows"][part]) for part in (~long, long)
    ]
    difference = means[0] - means[1]
    expected = {
        "easier": difference > 0,
        "harder": difference < 0,
        "as hard": abs(difference) < 0.011,
    }
    assert expected[found[2]]


def wrong(*rows: tuple[str, str, int]) -> list[dict[str, Any]]:
    return [{"actual": a, "predicted": p, "windows": n, "share": 0.5} for a, p, n in rows]


@pytest.mark.parametrize(
    ("worst", "text"),
    [
        (
            wrong(("E", "A", 5), ("I", "A", 3)),
            "The most frequent mistake of the mixture is “A” instead of “E”",
        ),
        (
            wrong(("E", "A", 5), ("I", "A", 5), ("B", "C", 2)),
            "The most frequent mistakes of the mixture are “A” instead of “E” and "
            "“A” instead of “I”",
        ),
        (
            wrong(("(end)", "A", 5)),
            "The most frequent mistake of the mixture is “A” instead of the end of a name",
        ),
        (
            wrong((" ", "(rest)", 5)),
            "The most frequent mistake of the mixture is a rare character instead of “␣”",
        ),
        (wrong(*[("E", p, 1) for p in "ABC"]), "The mixture makes no mistake twice"),
        (wrong(*[("E", p, 2) for p in "ABC"]), "No mistake of the mixture stands out"),
        ([], "The mixture predicts every test character correctly"),
    ],
)
def test_the_most_frequent_mistake_is_named(worst: list[dict[str, Any]], text: str) -> None:
    isolated = findings.mistake("Mixture", worst)
    assert re.sub("[\u2068\u2069]", "", isolated) == text
    assert isolated.count("\u2068") == isolated.count("\u2069") == isolated.count("“")


def test_calibration_is_described_at_eighty_percent() -> None:
    table = pd.DataFrame({"confidence": [0.3, 0.74, 0.94], "accuracy": [0.3, 0.765, 0.96]})
    text = "When the mixture is 74% sure, it is right 76% of the time"
    assert findings.calibration("Mixture", table) == text
    one = pd.DataFrame({"confidence": [0.2], "accuracy": [0.0]})
    assert findings.calibration("GRU", one) == (
        "When the GRU is 20% sure, it is right 0% of the time"
    )


def test_the_best_and_the_worst_calibration_are_named() -> None:
    assert findings.calibrated({"GRU": 0.012, "WaveNet": 0.086, "Mixture": 0.007}) == (
        "On average, the mixture is off by 0.7 percentage points (the least) and the WaveNet by "
        "8.6 (the most)."
    )
    assert (
        findings.calibrated({"GRU": 0.01}) == "The model is 1.0 percentage points off on average."
    )
    assert findings.calibrated({"GRU": 0.01, "WaveNet": 0.0101}) == (
        "All models are 1.0 percentage points off on average."
    )


@pytest.mark.parametrize(
    ("novel", "text"),
    [
        (
            {"WaveNet": 0.7, "Hybrid": 0.82, "Kneser-Ney": 0.65},
            "The hybrid generates the most new names (82%), Kneser-Ney the fewest (65%)",
        ),
        (
            {"WaveNet": 0.82, "Hybrid": 0.821, "Kneser-Ney": 0.6},
            "The WaveNet and the hybrid generate the most new names (82%), "
            "Kneser-Ney the fewest (60%)",
        ),
        (
            {"WaveNet": 1.0, "GRU": 1.0, "LSTM": 1.0, "Hybrid": 0.99},
            "The hybrid generates the fewest new names (99%)",
        ),
        (
            {"WaveNet": 0.8, "GRU": 0.8, "LSTM": 0.8, "Hybrid": 0.9, "Mixture": 0.9},
            "The hybrid and the mixture generate the most new names (90%)",
        ),
        (
            {f"Net {n}": 0.8 if n % 2 else 0.9 for n in range(6)},
            "80% to 90% of the names from a model are new",
        ),
        ({"WaveNet": 0.82, "Hybrid": 0.821}, "82% of the names from every model are new"),
        ({"WaveNet": 1.0}, "100% of the names from the WaveNet are new"),
        ({"WaveNet": 0.001}, "Less than 1% of the names from the WaveNet are new"),
    ],
)
def test_new_names_are_compared(novel: dict[str, float], text: str) -> None:
    assert findings.novelty(novel) == text


def test_the_closest_characters_are_found() -> None:
    embedding = np.array([[9, 9], [1, 0], [0, 1], [0.1, 1], [-1, -1.01], [5, 5.01]], "f4")
    text, similarity = findings.closest(embedding, "ABCDE", ["A", "B", "C", "D", "(rest)"]) or (
        "",
        0,
    )
    assert re.sub("[\u2068\u2069]", "", text) == "“B” and “C”"
    assert similarity == pytest.approx(1 / np.sqrt(1.01))
    assert findings.closest(embedding, "ABCDE", ["A", "(end)"]) is None
    assert findings.closest(np.zeros((3, 2), "f4"), "AB", ["A", "B"]) is not None


def test_the_most_similar_characters_are_named() -> None:
    pairs = {"WaveNet": ("“C” and “K”", 0.7), "Mixture": ("“I” and “Y”", 0.6), "GRU": None}
    assert findings.embedding(pairs) == "To the WaveNet, “C” and “K” are the most similar"
    assert findings.embedding({"GRU": None}) == "A model has a vector for each character"


@pytest.mark.parametrize(
    ("block_size", "text"),
    [
        (1, "With one character of context, there is nothing to merge"),
        (2, "One merge turns 2 characters into one vector"),
        (8, "Three merges turn 8 characters into one vector"),
        (2048, "11 merges turn 2048 characters into one vector"),
    ],
)
def test_merges_are_counted(block_size: int, text: str) -> None:
    assert findings.tree(block_size) == text


def test_names_and_characters_are_counted() -> None:
    assert findings.data(31704, 240829) == "31,704 names give 240,829 characters to predict"
    assert findings.data(1, 2) == "1 name gives 2 characters to predict"
