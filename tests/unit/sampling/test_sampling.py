"""Drawing names, and how likely a name is."""

import itertools
import unicodedata
from itertools import compress

import numpy as np
import pytest
import torch

from charlm.core.randomness import generator
from charlm.data.corpus import END, Corpus, Vocabulary
from charlm.data.splits import Part, split_windows
from charlm.fast.running import Runner, as_runner
from charlm.models.base import LanguageModel
from charlm.sampling import sampler as sampling
from charlm.sampling.sampler import (
    describe_samples,
    draw,
    name_log_likelihoods,
    sample_names,
    training_names,
)
from tests.helpers import ANY_MODEL, NAMES, refused, small_corpus, small_model
from tests.unit.sampling.exact import (
    exact_probabilities,
    is_distributed_as,
    next_log_probs,
    tiny_model,
)

CORPUS = small_corpus()
VOCABULARY = CORPUS.vocabulary
MODEL = small_model(CORPUS)


def sample(
    model: LanguageModel | Runner = MODEL, count: int = 200, seed: int = 1, **options
) -> list[str]:
    vocabulary = options.pop("vocabulary", VOCABULARY)
    size = as_runner(model).model.hyperparameters["block_size"]
    source = generator(seed, "sample")
    return sample_names(model, vocabulary, count, block_size=size, generator=source, **options)


def likelihoods(model: LanguageModel, vocabulary: Vocabulary, names: list[str]) -> torch.Tensor:
    return name_log_likelihoods(model, vocabulary, names, model.hyperparameters["block_size"])


def biased_to_end(bias: float) -> LanguageModel:
    """Return a model that ends a name always, or never."""
    model = small_model(CORPUS)
    with torch.no_grad():
        model.output.bias[END] = bias
    return model


@pytest.mark.parametrize("temperature", [0.6, 1.0, 2.0])
def test_names_are_drawn_with_the_probabilities_of_the_model(temperature: float) -> None:
    vocabulary = Vocabulary("ab")
    model = tiny_model(vocabulary, block_size=2)
    exact = exact_probabilities(model, vocabulary, 3, temperature)
    assert sum(exact.values()) == pytest.approx(1)

    def chi_square(drawn_at: float) -> float:
        count = 20_000
        names = sample(model, count, vocabulary=vocabulary, max_length=3, temperature=drawn_at)
        assert set(names) <= set(exact)
        return sum(
            (names.count(name) - count * probability) ** 2 / (count * probability)
            for name, probability in exact.items()
        )

    assert len(exact) == 2 + 4 + 8  # 13 degrees of freedom: above 40 for one seed in ten thousand
    assert chi_square(temperature) < 40
    assert chi_square(1.2 * temperature) > 100  # with a wrong temperature


def test_a_lower_temperature_favors_likely_characters() -> None:
    likeliest = VOCABULARY.characters[next_log_probs(MODEL, [])[1:].argmax()]

    def share(temperature: float) -> float:
        names = sample(count=2000, temperature=temperature, max_length=1)
        return names.count(likeliest) / len(names)

    assert share(0.01) == 1
    assert share(0.01) > share(0.2) > share(1.0) > share(5.0)
    assert share(100.0) == pytest.approx(1 / len(VOCABULARY.characters), abs=0.02)


@pytest.mark.parametrize("temperature", [1e-30, 1e-300])
def test_a_tiny_temperature_chooses_the_most_likely_characters(temperature: float) -> None:
    names = sample(count=3, temperature=temperature, max_length=5)
    assert names == sample(count=3, temperature=1e-3, max_length=5)
    assert len(set(names)) == 1


def test_only_the_seed_determines_the_names() -> None:
    torch.manual_seed(3)
    first = sample()
    torch.manual_seed(4)
    state = torch.get_rng_state()
    assert sample() == first
    assert torch.equal(torch.get_rng_state(), state)
    assert sample(seed=2) != first


@pytest.mark.parametrize("count", [1, 2, 77])
def test_the_requested_number_of_names_is_drawn(count: int) -> None:
    assert len(sample(count=count)) == count


@ANY_MODEL
def test_names_are_drawn_from_any_model(architecture: type[LanguageModel]) -> None:
    names = sample(small_model(CORPUS, architecture))
    assert set("".join(names)) <= set(VOCABULARY.characters)
    assert len(set(names)) > 100


@pytest.mark.parametrize("max_length", [1, 2, 5, 30])
def test_names_are_drawn_together_and_shared_contexts_are_computed_once(max_length: int) -> None:
    model = small_model(CORPUS)
    sizes: list[int] = []
    model.register_forward_hook(lambda _, inputs, __: sizes.append(len(inputs[0])))
    names = sample(Runner(model, fast=False), count=500, max_length=max_length)
    T = CORPUS.block_size
    contexts = [
        {("." * T + name[:length])[-T:] for name in names if len(name) >= length}
        for length in range(max_length)
    ]
    assert sizes == [len(different) for different in contexts if different]
    assert sizes[0] == 1


def test_names_may_be_drawn_in_several_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "AT_ONCE", 64)
    names = sample(count=1000)
    assert len(names) == 1000
    assert len(set(names)) > 800
    whole = likelihoods(MODEL, VOCABULARY, names)
    monkeypatch.undo()
    torch.testing.assert_close(likelihoods(MODEL, VOCABULARY, names), whole)


def test_a_token_with_zero_probability_is_never_drawn() -> None:
    cumulated = torch.tensor([[0.0, 0.25, 0.25, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0, 1.0]])
    place = torch.tensor([0, 1]).repeat(10_000)
    drawn = draw(cumulated.double(), place, generator(1, "draws")).view(-1, 2)
    assert set(drawn[:, 1].tolist()) == {0}
    assert set(drawn[:, 0].tolist()) == {1, 3}
    assert (drawn[:, 0] == 1).double().mean().item() == pytest.approx(0.25, abs=0.02)


@pytest.mark.parametrize("max_length", [1, 3, 10])
def test_no_name_is_longer_than_the_maximum(max_length: int) -> None:
    lengths = {len(name) for name in sample(max_length=max_length)}
    assert max(lengths) == max_length
    assert {len(name) for name in sample(biased_to_end(-1e9), max_length=max_length)} == {
        max_length
    }


def test_no_name_is_empty() -> None:
    assert {len(name) for name in sample(biased_to_end(1e9))} == {1}
    assert min(len(name) for name in sample(count=1000)) == 1


@pytest.mark.parametrize("prefix", ["A", "JEAN-", "Z", "D'", ".", "ANNABERTACLARA"])
def test_every_name_starts_with_the_prefix(prefix: str) -> None:
    names = sample(prefix=prefix)
    assert all(name.startswith(prefix) for name in names)
    assert len(set(names)) > 20


def test_a_prefix_alone_is_a_name() -> None:
    assert set(sample(biased_to_end(1e9), prefix="ANNA")) == {"ANNA"}
    assert set(sample(prefix="ANNA", max_length=4)) == {"ANNA"}


def test_the_prefix_is_the_context_of_the_next_character() -> None:
    names = sample(count=20_000, prefix="AN", max_length=3)
    expected = next_log_probs(MODEL, VOCABULARY.encode("AN")).exp()
    for token, character in enumerate(VOCABULARY.characters, start=1):
        share = names.count(f"AN{character}") / len(names)
        assert share == pytest.approx(expected[token].item(), abs=0.01)
    assert names.count("AN") / len(names) == pytest.approx(expected[END].item(), abs=0.01)


@pytest.mark.parametrize("temperature", [0.7, 1.0])
@pytest.mark.parametrize(
    "prefixes", [["a", "b"], ["a", "ba"], ["abb", "b", "ba"], ["b", "b", "abaa"], ["aa", "bbb"]]
)
def test_several_prefixes_follow_the_distribution_of_the_model(
    prefixes: list[str], temperature: float
) -> None:
    vocabulary = Vocabulary("ab")
    model = tiny_model(vocabulary, block_size=2)
    exact = {
        name: probability
        for name, probability in exact_probabilities(model, vocabulary, 4, temperature).items()
        if name.startswith(tuple(prefixes))
    }
    options = {"prefix": prefixes, "max_length": 4, "temperature": temperature}
    assert is_distributed_as(exact, sample(model, 20_000, vocabulary=vocabulary, **options))
    options["prefix"] = prefixes[-1:]
    assert not is_distributed_as(exact, sample(model, 20_000, vocabulary=vocabulary, **options))


def test_a_prefix_that_starts_with_another_prefix_changes_nothing() -> None:
    for prefixes in (["MA"], ["MA", "MA"], ["MAR", "MA", "MARIE"], ("MAR", "MA")):
        assert sample(prefix=prefixes) == sample(prefix="MA")
    assert sample(prefix=["", "A"]) == sample()
    assert sample(prefix=["A", "BE"]) == sample(prefix=["BE", "A", "AN"])


def test_several_prefixes_work_with_a_tiny_temperature() -> None:
    characters = VOCABULARY.characters
    likeliest = characters[next_log_probs(MODEL, [])[1:].argmax()]
    names = sample(prefix=list(characters), temperature=1e-300)
    assert {name[0] for name in names} == {likeliest}


def test_impossible_prefixes_are_refused() -> None:
    with torch.no_grad():
        model = small_model(CORPUS)
        model.output.bias[1:3] = -torch.inf
    first, second, third = VOCABULARY.characters[:3]
    assert {name[0] for name in sample(model, prefix=[first, third])} == {third}
    with refused("all prefixes have a probability of 0"):
        sample(model, prefix=[first, second])
    with refused("the list of prefixes is empty"):
        sample(prefix=[])


def test_a_prefix_is_normalized_like_the_names() -> None:
    decomposed = unicodedata.normalize("NFD", "É")
    assert len(decomposed) == 2
    assert sample(prefix=decomposed) == sample(prefix="É")


def test_a_prefix_with_unknown_characters_is_refused() -> None:
    with refused("'AßBü'", "'ß'", "'ü'", VOCABULARY.characters):
        sample(prefix="AßBü")


def test_a_prefix_longer_than_max_length_is_refused() -> None:
    with refused("'ANNA' is longer than max_length (3)"):
        sample(prefix="ANNA", max_length=3)


@ANY_MODEL
def test_a_log_likelihood_is_the_sum_over_characters_and_the_end(
    architecture: type[LanguageModel],
) -> None:
    model = small_model(CORPUS, architecture)
    names = ["ANNA", "J", "D'ARCY", "ZOÉ", "ANNA", "Ó.B.", "XXXXXXXXXXXX"]
    expected = []
    for name in names:
        tokens = VOCABULARY.encode(name)
        steps = enumerate([*tokens, END])
        expected.append(sum(next_log_probs(model, tokens[:i])[token].item() for i, token in steps))
    found = likelihoods(model, VOCABULARY, names)
    assert found.dtype == torch.float64
    assert found.tolist() == pytest.approx(expected, abs=1e-5)


def test_the_likelihoods_of_all_names_sum_to_one_minus_the_empty_name() -> None:
    vocabulary = Vocabulary("ab")
    model = tiny_model(vocabulary, block_size=2)
    with torch.no_grad():
        model.output.bias[END] += 3  # so that few names have more than nine characters
    names = [
        "".join(letters) for n in range(1, 10) for letters in itertools.product("ab", repeat=n)
    ]
    total = likelihoods(model, vocabulary, names).exp().sum().item()
    assert total == pytest.approx(1 - next_log_probs(model, [])[END].exp().item(), abs=1e-3)


def test_the_training_names_of_a_split_by_name_are_the_training_set() -> None:
    split = split_windows(CORPUS, "name", 0.5, 0.25, seed=1)
    parts = split.part_of(np.arange(len(NAMES))).tolist()
    expected = {name for name, part in zip(NAMES, parts, strict=True) if part == Part.TRAIN}
    assert training_names(CORPUS, split, {*NAMES, "UNKNOWN"}) == expected
    assert 0 < len(expected) < len(NAMES)
    for name in NAMES:
        assert training_names(CORPUS, split, {name}) == expected & {name}


def test_training_names_of_a_split_by_window_have_a_training_window() -> None:
    corpus = Corpus.from_names(["AB", "C", "D"], block_size=2)
    found = set()
    for seed in range(9):
        split = split_windows(corpus, "window", 0.4, 0.3, seed)
        in_training = split.part_of(np.arange(7)) == Part.TRAIN  # A B . C . D .
        expected = set(compress(["AB", "AB", "AB", "C", "C", "D", "D"], in_training))
        assert training_names(corpus, split, {"AB", "C", "D"}) == expected
        found.add(len(expected))
    assert {2, 3} <= found


def test_descriptions_of_samples_match_a_calculation_by_hand() -> None:
    described = describe_samples(["ANNA", "BO", "ANNA", "EVI"], known={"BO", "PIA"})
    assert described == {"unique": 0.75, "novel": 0.75}
    assert describe_samples(["A", "A", "BC"], known={"A", "BC"}) == {
        "unique": 0.666667,
        "novel": 0.0,
    }
