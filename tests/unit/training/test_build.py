"""Building the model of a section of params.yaml, or refusing it in one line."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from charlm.core.params import load_params
from charlm.models.base import LanguageModel
from charlm.models.fcn import FCN
from stages.training import build_model
from tests.helpers import ROOT, in_a_module, refused, small_corpus

CORPUS = small_corpus(8)


@pytest.fixture(autouse=True)
def in_the_project(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


class Own(LanguageModel):
    """A model with the arguments of the fully connected net's section, and any others."""

    def __init__(self, vocab_size: int, block_size: int, **options: object) -> None:
        super().__init__()
        self.table = nn.Embedding(vocab_size, vocab_size)

    def forward(self, contexts: Tensor) -> Tensor:
        logits: Tensor = self.table(contexts[:, -1])
        return logits


def test_the_section_and_the_seed_determine_the_model() -> None:
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
def test_an_error_in_a_constructor_is_reported_in_one_line(kind: type[Exception]) -> None:
    """For example, torch's own: nn.MultiheadAttention asserts that heads divide channels."""

    class Picky(Own):
        def __init__(self, vocab_size: int, block_size: int, **options: object) -> None:
            raise kind("4 channels are too few")

    line = Picky.__init__.__code__.co_firstlineno + 1
    with refused(
        "params.yaml",
        "the constructor of Picky raises an error",
        f"(tests/unit/training/test_build.py, line {line})",
        "4 channels are too few",
    ):
        build_model("fcn", Picky, load_params(), CORPUS)


def test_a_model_that_cannot_be_saved_is_refused_before_training() -> None:
    with refused("test_build.py: Own cannot be saved and rebuilt"):  # not in charlm.models
        build_model("fcn", Own, load_params(), CORPUS)


def test_a_mistake_in_forward_is_not_reported_as_one_in_saving(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Wrong(Own):
        def forward(self, contexts: Tensor) -> Tensor:
            return self.tabel(contexts[:, -1])  # type: ignore[operator]

    in_a_module(monkeypatch, Wrong)
    line = Wrong.forward.__code__.co_firstlineno + 1
    with refused(f"test_build.py, line {line}: ", "'Wrong' object has no attribute 'tabel'"):
        build_model("fcn", Wrong, load_params(), CORPUS)


def test_weights_independent_of_the_seed_are_refused() -> None:
    class Drawn(Own):
        def __init__(self, vocab_size: int, block_size: int, **options: object) -> None:
            super().__init__(vocab_size, block_size)
            self.table.weight.data *= np.random.rand()

    with refused("params.yaml", "Drawn draws random numbers from Python's or NumPy's generator"):
        build_model("fcn", Drawn, load_params(), CORPUS)


def test_a_constructor_may_need_real_values(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At first, parameters are counted on the meta device, without memory."""

    class Deciding(FCN):
        def __init__(
            self,
            vocab_size: int,
            block_size: int,
            embed_dim: int,
            hidden_dim: int,
            norm: str,
            dropout: float,
        ) -> None:
            super().__init__(vocab_size, block_size, embed_dim, hidden_dim, norm, dropout)
            assert torch.rand(3).sum().item() >= 0

    in_a_module(monkeypatch, Deciding)
    assert build_model("fcn", Deciding, load_params(), CORPUS)
