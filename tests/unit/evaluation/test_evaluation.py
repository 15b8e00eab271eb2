"""Losses, the metrics computed from them, and the count baselines."""

import json
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import charlm.fast.running
from charlm.data.corpus import Corpus
from charlm.data.splits import Part
from charlm.data.windows import Windows, every_window
from charlm.evaluation.baselines import CountModel, count_models
from charlm.evaluation.metrics import FEW_WINDOWS, as_text, score, summarize
from charlm.fast.running import CHUNK, batched_logits, mean_loss
from charlm.models.base import LanguageModel
from charlm.report.figures import COUNT_MODELS
from tests.helpers import ARCHITECTURES, NAME_LISTS, few, small_corpus, small_model, small_split

CORPUS = small_corpus()
WINDOWS = every_window(CORPUS)
MODEL = small_model(CORPUS)
V = len(CORPUS.vocabulary)
CHUNKS = pytest.mark.parametrize("chunk", [1, 7, 64, len(WINDOWS), CHUNK])


def all_losses(model: LanguageModel, windows: Windows) -> Tensor:
    """Return the loss of every window, (W,), computed in one go."""
    contexts, targets = windows.batch(slice(None))
    with torch.no_grad():
        log_probs = torch.log_softmax(model(contexts), dim=1)
    return -log_probs[torch.arange(len(targets)), targets]


def test_the_tested_chunk_sizes_leave_a_remainder() -> None:
    assert len(WINDOWS) % 7
    assert len(WINDOWS) % 64
    assert len(WINDOWS) < CHUNK


@CHUNKS
def test_every_window_comes_once_and_in_order(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(charlm.fast.running, "CHUNK", chunk)
    batches = list(batched_logits(MODEL, WINDOWS))
    assert torch.equal(torch.cat([targets for _, targets in batches]), WINDOWS.targets().long())
    assert all(len(logits) == len(targets) <= chunk for logits, targets in batches)
    assert sum(len(targets) for _, targets in batches) == len(WINDOWS)


@CHUNKS
@ARCHITECTURES
def test_the_mean_loss_is_over_all_windows(
    architecture: type[LanguageModel], chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(charlm.fast.running, "CHUNK", chunk)
    model = small_model(CORPUS, architecture)
    expected = all_losses(model, WINDOWS).mean().item()
    assert mean_loss(model, WINDOWS) == pytest.approx(expected, abs=1e-5)


@CHUNKS
def test_every_window_has_its_own_score(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(charlm.fast.running, "CHUNK", chunk)
    losses, correct = score(MODEL, WINDOWS)
    torch.testing.assert_close(losses, all_losses(MODEL, WINDOWS))
    contexts, targets = WINDOWS.batch(slice(None))
    assert torch.equal(correct, MODEL(contexts).argmax(1) == targets)
    assert 0 < correct.sum() < len(WINDOWS)


@pytest.mark.parametrize("training", [True, False])
def test_measuring_uses_evaluation_mode_and_restores_the_mode(training: bool) -> None:
    model = small_model(CORPUS).train(training)
    modes = []
    model.register_forward_hook(lambda *_: modes.append(model.training))
    mean_loss(model, WINDOWS)
    score(model, WINDOWS)
    assert set(modes) == {False}
    assert len(modes) >= 2
    assert model.training is training


def test_measuring_computes_no_gradients() -> None:
    losses, _ = score(MODEL, WINDOWS)
    assert not losses.requires_grad
    assert all(parameter.grad is None for parameter in MODEL.parameters())


def scores(test_losses: list[float], hits: list[bool]) -> dict[Part, tuple[Tensor, Tensor]]:
    return {
        Part.TRAIN: (torch.tensor([1.0, 2.0]), torch.tensor([True, True])),
        Part.VAL: (torch.tensor([1.0, 5.0]), torch.tensor([True, True])),
        Part.TEST: (torch.tensor(test_losses), torch.tensor(hits)),
    }


def test_the_metrics_match_a_calculation_by_hand() -> None:
    metrics = summarize(scores([1.0, 2.0, 3.0, 4.0], [True, False, False, False]), parameters=7)
    deviation = math.sqrt((1.5**2 + 0.5**2 + 0.5**2 + 1.5**2) / 3)
    assert metrics == {
        "train_loss": 1.5,
        "val_loss": 3.0,
        "test_loss": 2.5,
        "test_loss_stderr": round(deviation / math.sqrt(4), 6),
        "test_perplexity": round(math.exp(2.5), 6),
        "test_bits_per_character": round(2.5 / math.log(2), 6),
        "test_accuracy": 0.25,
        "parameters": 7,
        "memorized": True,
    }


def test_a_single_test_window_has_no_spread() -> None:
    metrics = summarize(scores([2.0], [True]), parameters=1)
    assert metrics["test_loss_stderr"] == 0
    assert metrics["test_accuracy"] == 1


@pytest.mark.parametrize(
    ("windows", "note"),
    [
        (1, ["the test set has only 1 window, so these losses say little; use more names"]),
        (99, ["the test set has only 99 windows, so these losses say little; use more names"]),
        (FEW_WINDOWS, []),
    ],
)
def test_losses_on_a_small_test_set_come_with_a_note(windows: int, note: list[str]) -> None:
    measured = {"net": summarize(scores([1.0, 3.0], [True, False]), parameters=1234)}
    line = "net        test loss 2.0000 ± 1, 1,234 parameters"
    assert as_text(measured, windows).splitlines() == [line, *note]


def test_the_mean_loss_is_computed_in_double_precision() -> None:
    many = torch.tensor([2.0**24, 1.0, 1.0, 1.0])  # single precision cannot represent their mean
    losses = scores([1.0], [True]) | {Part.TRAIN: (many, many > 0)}
    assert summarize(losses, parameters=1)["train_loss"] == 2.0**22 + 0.75


@pytest.mark.parametrize("loss", [700.0, 800.0, 1e6])
def test_a_huge_loss_can_still_be_summarized(loss: float) -> None:
    metrics = summarize(scores([loss, loss], [False, False]), parameters=1)
    assert metrics["test_loss"] == loss
    json.dumps(metrics)


def table(model: CountModel) -> torch.Tensor:
    """Return the probabilities of the next token, (V, V), with a row for each previous token."""
    every = torch.arange(model.vocab_size)
    pairs = torch.cartesian_prod(every, every)
    return model.log_probs(*pairs.T).exp().reshape(model.vocab_size, -1)


def test_the_loss_of_the_uniform_model_is_the_log_of_the_vocabulary_size() -> None:
    uniform = count_models(WINDOWS, V)["uniform"]
    losses, chances = uniform.score(WINDOWS)
    torch.testing.assert_close(losses, torch.full_like(losses, math.log(V)))
    torch.testing.assert_close(chances, torch.full_like(chances, 1 / V))
    metrics = summarize(dict.fromkeys(Part, (losses, chances)), uniform.parameters)
    assert metrics["test_loss"] == pytest.approx(math.log(V), abs=1e-6)
    assert metrics["test_perplexity"] == pytest.approx(V, abs=1e-4)
    assert metrics["test_accuracy"] == pytest.approx(1 / V, abs=1e-6)
    assert metrics["parameters"] == 0


def test_the_counts_of_a_tiny_corpus_match_a_calculation_by_hand() -> None:
    # Pairs: end-a, a-b, b-end in "ab"; end-b, b-end in "b". All 9 pairs start with a count of 1.
    windows = every_window(Corpus.from_names(["ab", "b"], block_size=2))
    models = count_models(windows, 3)
    bigram = torch.tensor([[1 / 5, 2 / 5, 2 / 5], [1 / 4, 1 / 4, 2 / 4], [3 / 5, 1 / 5, 1 / 5]])
    unigram = torch.tensor([[3 / 8, 2 / 8, 3 / 8]]).expand(3, 3)
    torch.testing.assert_close(table(models["bigram"]), bigram.double())
    torch.testing.assert_close(table(models["unigram"]), unigram.double())
    assert [models[name].parameters for name in ("uniform", "unigram", "bigram")] == [0, 3, 9]
    losses, chances = models["bigram"].score(windows)
    probabilities = [2 / 5, 2 / 4, 3 / 5, 2 / 5, 3 / 5]  # in the order of the windows
    assert losses.tolist() == pytest.approx([-math.log(p) for p in probabilities])
    assert chances.tolist() == [0.5, 1, 1, 0.5, 1]  # at the start, a and b are equally likely
    _, chances = models["unigram"].score(windows)
    assert chances.tolist() == [0, 0.5, 0.5, 0.5, 0.5]  # the end and b are equally likely


@few
@given(NAME_LISTS, st.integers(1, 4))
def test_every_row_of_a_count_model_is_a_distribution(names: list[str], block_size: int) -> None:
    corpus = Corpus.from_names(names, block_size)
    vocab_size = len(corpus.vocabulary)
    models = count_models(every_window(corpus), vocab_size).values()
    for model in (model for model in models if isinstance(model, CountModel)):
        assert (table(model) > 0).all()
        torch.testing.assert_close(table(model).sum(1), torch.ones(vocab_size, dtype=torch.float64))


def test_only_the_training_windows_are_counted() -> None:
    windows = every_window(Corpus.from_names(["ab", "ab", "ba"], block_size=2))
    of_the_first = windows.where(torch.arange(len(windows)) < 3)
    counted = table(count_models(of_the_first, 3)["bigram"])
    assert counted[2].tolist() == pytest.approx([2 / 4, 1 / 4, 1 / 4])  # no pair b-a
    losses, _ = count_models(of_the_first, 3)["bigram"].score(windows)
    assert losses.isfinite().all()
    without_its_end = windows.where(torch.arange(len(windows)) < 2)
    counted = table(count_models(without_its_end, 3)["unigram"])
    assert counted[0].tolist() == pytest.approx([1 / 5, 2 / 5, 2 / 5])


def test_counting_beats_chance_and_bigrams_beat_unigrams() -> None:
    train = small_split(CORPUS)[Part.TRAIN]
    losses = {name: model.score(train)[0].mean() for name, model in count_models(train, V).items()}
    assert losses["bigram"] < losses["unigram"] < losses["uniform"]


def test_every_count_model_has_a_title() -> None:
    assert list(count_models(WINDOWS, V)) == list(COUNT_MODELS)


def test_a_net_with_zero_output_scores_like_the_uniform_model() -> None:
    model = small_model(CORPUS)
    with torch.no_grad():
        for parameter in model.output.parameters():
            parameter.zero_()
    assert mean_loss(model, WINDOWS) == pytest.approx(math.log(V), abs=1e-6)
    contexts, targets = WINDOWS.batch(slice(None))
    assert F.cross_entropy(model(contexts), targets).item() == pytest.approx(math.log(V), abs=1e-5)
