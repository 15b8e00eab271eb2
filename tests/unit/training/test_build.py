"""The model of a section of params.yaml, built before it is trained, or refused in a line."""

import pytest
import torch
from torch import Tensor, nn

from charlm.core.params import load_params
from charlm.models.base import LanguageModel
from charlm.models.fcn import FCN
from stages.training import build_model
from tests.helpers import ROOT, refused, small_corpus

CORPUS = small_corpus(8)


@pytest.fixture(autouse=True)
def in_the_project(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


class Own(LanguageModel):
    """Takes what the section of the fully connected net holds, and more of its kind."""

    def __init__(self, vocab_size: int, block_size: int, **options: object) -> None:
        super().__init__()
        self.table = nn.Embedding(vocab_size, vocab_size)

    def forward(self, contexts: Tensor) -> Tensor:
        logits: Tensor = self.table(contexts[:, -1])
        return logits


def test_a_model_has_the_arguments_of_its_section_and_weights_of_the_seed() -> None:
    params = load_params()
    model = build_model("fcn", FCN, params, CORPUS)
    sizes = {"vocab_size": len(CORPUS.vocabulary), "block_size": 8}
    assert model.hyperparameters == {**sizes, **params.arguments("fcn")}
    torch.manual_seed(99)
    again = build_model("fcn", FCN, params, CORPUS)
    assert torch.equal(again.hidden.weight, model.hidden.weight)
    other = build_model("fcn", FCN, params.model_copy(update={"seed": 2}), CORPUS)
    assert not torch.equal(other.hidden.weight, model.hidden.weight)


@pytest.mark.parametrize("kind", [AssertionError, KeyError, ValueError, TypeError, RuntimeError])
def test_what_a_constructor_refuses_is_told_in_a_line(kind: type[Exception]) -> None:
    """Of torch's own too: nn.MultiheadAttention asserts that its heads divide its channels."""

    class Picky(Own):
        def __init__(self, vocab_size: int, block_size: int, **options: object) -> None:
            raise kind("4 channels are too few")

    with refused("params.yaml", "the constructor of Picky refuses it: ", "4 channels are too few"):
        build_model("fcn", Picky, load_params(), CORPUS)


def test_what_could_not_be_saved_is_refused_before_it_is_trained() -> None:
    with refused("params.yaml", "Own could not be saved and built again"):  # not in charlm.models
        build_model("fcn", Own, load_params(), CORPUS)


def test_a_constructor_that_needs_real_numbers_is_left_its_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As it is first counted without memory, on a device that has none."""

    class Deciding(FCN):
        def __init__(self, vocab_size: int, block_size: int, **options: object) -> None:
            super().__init__(vocab_size, block_size)
            assert torch.rand(3).sum().item() >= 0

    monkeypatch.setattr("stages.training.checkpoint.refuse_unsavable", lambda *_: None)
    assert build_model("fcn", Deciding, load_params(), CORPUS)
