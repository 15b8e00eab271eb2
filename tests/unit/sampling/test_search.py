"""The most probable names, compared with a list of all names."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from charlm.data.corpus import END, Vocabulary
from charlm.sampling import search
from charlm.trained import TrainedModel
from tests.helpers import ANY_MODEL, refused, small_corpus, small_model, taken_or_refused
from tests.unit.sampling.exact import all_names, edits, next_log_probs, tiny_model

VOCABULARY = Vocabulary("abc")
LONGEST = 4
MODELS = [TrainedModel(tiny_model(VOCABULARY, 2, seed), VOCABULARY, 2) for seed in range(3)]


def by_likelihood(model: TrainedModel) -> dict[str, float]:
    """Return all names in descending order of their log-likelihood."""
    found = {}
    for name in all_names(VOCABULARY, LONGEST):
        tokens = VOCABULARY.encode(name)
        found[name] = sum(
            next_log_probs(model.model, tokens[:place])[token].item()
            for place, token in enumerate([*tokens, END])
        )
    return dict(sorted(found.items(), key=lambda item: -item[1]))


EVERY = [by_likelihood(model) for model in MODELS]
TEXTS = st.text("abc", max_size=2)
OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "prefix": st.lists(TEXTS, min_size=1, max_size=3) | TEXTS,
        "suffix": TEXTS,
        "length": st.integers(1, LONGEST) | st.tuples(st.integers(1, 2), st.integers(2, LONGEST)),
        "novel_to": st.lists(st.text("abcz", min_size=1, max_size=LONGEST), max_size=5),
        "unlike": st.integers(1, 3),
    },
)


def meets(name: str, options: dict[str, Any]) -> bool:
    prefix, length = options.get("prefix", ""), options.get("length", (1, LONGEST))
    shortest, longest = (length, length) if isinstance(length, int) else length
    distance = options.get("unlike", 1)
    return (
        name.startswith((prefix,) if isinstance(prefix, str) else tuple(prefix))
        and name.endswith(options.get("suffix", ""))
        and shortest <= len(name) <= longest
        and all(edits(name, other) >= distance for other in options.get("novel_to", []))
    )


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.sampled_from(range(3)), st.integers(1, 130), OPTIONS)
def test_the_most_probable_names_come_first_among_all_names(
    which: int, count: int, options: dict[str, Any]
) -> None:
    if "novel_to" not in options:
        options.pop("unlike", None)
    wanted = [(name, value) for name, value in EVERY[which].items() if meets(name, options)]
    model = MODELS[which]
    parts = [f"only {len(wanted)} of {count} "] if wanted else []
    found = taken_or_refused(
        lambda: model.most_probable(count, max_length=LONGEST, **options), *parts
    )
    if found is None:
        assert len(wanted) < count
        return
    assert [score.name for score in found] == [name for name, _ in wanted[:count]]
    assert [score.log_likelihood for score in found] == pytest.approx(
        [value for _, value in wanted[:count]], abs=1e-5
    )


@ANY_MODEL
def test_the_most_probable_names_of_any_model_have_the_right_scores(architecture: Any) -> None:
    corpus = small_corpus()
    model = TrainedModel(small_model(corpus, architecture), corpus.vocabulary, corpus.block_size)
    found = model.most_probable(5, prefix=["AN", "zoe"], max_length=6)
    assert found == sorted(found, key=lambda score: -score.log_likelihood)
    for score in found:
        (alone,) = model.score(score.name)
        assert score.log_likelihoods == pytest.approx(alone.log_likelihoods, abs=1e-5)
    sampled = {*model.sample(prefix=["AN", "ZOE"], count=2000, max_length=7)}
    names = [score.name for score in found]
    others = [name for name in sampled if len(name) < 7 and name not in names]
    best = max(score.log_likelihood for score in model.score(*others))
    assert best <= found[-1].log_likelihood + 1e-5


def test_names_with_zero_probability_are_not_found() -> None:
    model = tiny_model(VOCABULARY, 2)
    with torch.no_grad():
        model.output.bias[1] = -torch.inf  # the character a
    trained = TrainedModel(model, VOCABULARY, 2)
    found = trained.most_probable(2 + 4, max_length=2)
    assert {score.name for score in found} == {"b", "c", "bb", "bc", "cb", "cc"}
    assert all(math.isfinite(score.log_likelihood) for score in found)
    with refused("a search of all names gave only 6 of 7 names; lower the count to 6 or raise"):
        trained.most_probable(7, max_length=2)
    with refused("gave only 0 of 1 names"):
        trained.most_probable(1, prefix="a", max_length=2)


def test_a_search_that_is_too_large_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "BUDGET", 200)
    with refused("a search of 200 beginnings of names gave only ", "give a longer prefix"):
        MODELS[0].most_probable(10_000)
    with refused("that fit", "shorten the suffix"):
        MODELS[0].most_probable(1000, suffix="a")


@pytest.mark.parametrize("chunk", [1, 2, 7])
def test_the_chunk_size_does_not_matter(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    found = MODELS[1].most_probable(50, max_length=6)
    monkeypatch.setattr(search, "CHUNK", chunk)
    assert [score.name for score in MODELS[1].most_probable(50, max_length=6)] == [
        score.name for score in found
    ]
