"""Breakdowns of a model's errors, compared with plain counting."""

from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from charlm.data.corpus import Corpus
from charlm.data.windows import every_window
from charlm.evaluation import analysis
from charlm.models.base import LanguageModel
from tests.helpers import ARCHITECTURES, NAME_LISTS, few, small_corpus, small_model

CORPUS = small_corpus()
WINDOWS = every_window(CORPUS)


@ARCHITECTURES
def test_predictions_are_the_most_likely_tokens(architecture: type[LanguageModel]) -> None:
    model = small_model(CORPUS, architecture)
    contexts, _ = WINDOWS.batch(slice(None))
    with torch.no_grad():
        highest = model(contexts).softmax(1).max(1)
    predicted, confidence = analysis.predictions(model, WINDOWS)
    assert torch.equal(predicted, highest.indices)
    torch.testing.assert_close(confidence, highest.values)


@given(names=NAME_LISTS, block_size=st.sampled_from([1, 2, 8]), data=st.data())
@few
def test_positions_and_lengths_match_the_names(
    names: list[str], block_size: int, data: st.DataObject
) -> None:
    every = every_window(Corpus.from_names(names, block_size))
    expected = [(i, len(name)) for name in names for i in range(1, len(name) + 2)]
    chosen = data.draw(st.lists(st.booleans(), min_size=len(every), max_size=len(every)))
    found = analysis.positions(every.where(torch.tensor(chosen)))
    pairs = list(zip(found["position"].tolist(), found["length"].tolist(), strict=True))
    assert pairs == [pair for pair, wanted in zip(expected, chosen, strict=True) if wanted]


def test_the_mean_is_over_the_windows_of_each_position() -> None:
    position = analysis.positions(WINDOWS)["position"]
    losses = {"a": torch.arange(len(WINDOWS)).float(), "b": torch.ones(len(WINDOWS))}
    table = analysis.mean_by(position, losses, "position")
    assert list(table.columns) == ["model", "position", "windows", "loss"]
    assert list(dict.fromkeys(table["model"])) == ["a", "b"]
    for model, rows in table.groupby("model"):
        assert list(rows["position"]) == sorted(set(position.tolist()))
        assert rows["windows"].sum() == len(WINDOWS)
        for row in rows.itertuples():
            its = losses[model][torch.from_numpy(position == row.position)].double()
            assert row.windows == len(its)
            assert row.loss == pytest.approx(its.mean().item())


@given(data=st.data(), size=st.integers(2, 40))
@few
def test_mistakes_are_counted(data: st.DataObject, size: int) -> None:
    corpus = Corpus.from_names(["".join(chr(ord("A") + i) for i in range(size))], 1)
    labels = ["(end)", *corpus.vocabulary.characters]
    token = st.integers(0, size)
    pairs = data.draw(st.lists(st.tuples(token, token), min_size=1, max_size=200))
    targets, predicted = torch.tensor(pairs).T
    table = analysis.mistakes(predicted, targets, corpus.vocabulary)
    frequency = Counter(target for target, _ in pairs)
    by_rank = sorted(range(size + 1), key=lambda token: -frequency[token])
    told_apart = set(by_rank[: analysis.MOST_FREQUENT])
    expected = Counter(
        tuple(labels[token] if token in told_apart else "(rest)" for token in pair)
        for pair in pairs
    )
    assert {(row.actual, row.predicted): row.windows for row in table.itertuples()} == expected
    first = [label for label in [*labels, "(rest)"] if label in set(table["actual"])]
    assert list(dict.fromkeys(table["actual"])) == first


def test_rare_characters_are_grouped() -> None:
    corpus = Corpus.from_names(["".join(chr(0x4E00 + i) for i in range(500))], 1)
    tokens = torch.arange(501)
    table = analysis.mistakes(tokens.roll(1), tokens, corpus.vocabulary)
    assert len(set(table["actual"])) == analysis.MOST_FREQUENT + 1
    assert table["windows"].sum() == 501


@given(
    st.lists(st.tuples(st.floats(0.015625, 1, width=32), st.booleans()), min_size=1, max_size=100)
)
@few
def test_calibration_has_bins_of_equal_size(pairs: list[tuple[float, bool]]) -> None:
    confidence = torch.tensor([probability for probability, _ in pairs])
    correct = torch.tensor([right for _, right in pairs])
    table = analysis.calibration(confidence, correct)
    assert len(table) == min(analysis.BINS, len(pairs))
    assert table["windows"].sum() == len(pairs)
    assert table["windows"].max() - table["windows"].min() <= 1
    assert table["confidence"].is_monotonic_increasing
    total = (table["accuracy"] * table["windows"]).sum()
    assert total == pytest.approx(sum(right for _, right in pairs))
    mean = (table["confidence"] * table["windows"]).sum() / len(pairs)
    assert mean == pytest.approx(confidence.double().mean().item())
