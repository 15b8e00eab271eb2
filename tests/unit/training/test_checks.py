"""A mistake in a model's file is reported before training, with its line."""

import random
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from charlm.models.base import LanguageModel
from charlm.training.checks import check, construct
from tests.helpers import ANY_MODEL, in_a_module, refused, small_corpus, small_model
from tests.models import BatchNormWaveNet

CORPUS = small_corpus(8)
V, T = len(CORPUS.vocabulary), 8
FILE = "tests/unit/training/test_checks.py"


class Own(LanguageModel):
    """A bigram table that takes one more argument of any kind."""

    def __init__(self, vocab_size: int, block_size: int, option: Any = None) -> None:
        super().__init__()
        self.table = nn.Embedding(vocab_size, vocab_size)

    def forward(self, contexts: Tensor) -> Tensor:
        logits: Tensor = self.table(contexts[:, -1])
        return logits


def check_own(
    monkeypatch: pytest.MonkeyPatch, kind: type[LanguageModel] = Own, *options: Any
) -> list[str]:
    """Check a model of this class, as if a module defined it. Return the logged lines."""
    in_a_module(monkeypatch, kind)
    lines: list[str] = []
    check(kind(V, T, *options), CORPUS.vocabulary, lines.append)
    return lines


Forward = Callable[[Any, Tensor], Any]


def kind_of(forward: Forward) -> type[LanguageModel]:
    class Student(LanguageModel):
        def __init__(self, vocab_size: int, block_size: int) -> None:
            super().__init__()
            self.table = nn.Embedding(vocab_size, vocab_size)
            self.norm = nn.BatchNorm1d(vocab_size)

    Student.forward = forward  # type: ignore[method-assign, assignment]
    return Student


@ANY_MODEL
def test_the_existing_models_pass(
    monkeypatch: pytest.MonkeyPatch, architecture: type[LanguageModel]
) -> None:
    if not architecture.__module__.startswith("charlm.models"):
        in_a_module(monkeypatch, architecture)
    lines: list[str] = []
    check(small_model(CORPUS, architecture), CORPUS.vocabulary, lines.append)
    assert lines == []


def test_neither_the_model_nor_the_generator_is_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    in_a_module(monkeypatch, BatchNormWaveNet)
    model = small_model(CORPUS, BatchNormWaveNet)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    generator = torch.get_rng_state()
    check(model, CORPUS.vocabulary)
    assert torch.equal(torch.get_rng_state(), generator)
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in before.items())


def test_randomness_from_torch_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    noisy = kind_of(lambda self, x: self.norm(self.table(x[:, -1]) + torch.rand(V)))
    assert check_own(monkeypatch, noisy) == []


@pytest.mark.parametrize(
    ("forward", "wrong"),
    [
        (lambda self, x: self.table(x), f"returns (64, 8, {V}) of torch.float32;"),
        (lambda self, x: self.table(x[:, -1])[:, :5], "returns (64, 5) of torch.float32;"),
        (lambda self, x: self.table(x[:, -1]).argmax(1), "returns (64,) of torch.int64;"),
        (lambda self, x: x[:, :1].expand(-1, V), f"returns (64, {V}) of torch.int64;"),
        (lambda self, x: None, "returns a NoneType;"),
        (lambda self, x: (self.table(x[:, -1]), x), "returns a tuple;"),
        (lambda self, x: self.table(x[:, -1:]).squeeze(), f"returns ({V},) of torch.float32;"),
    ],
)
def test_a_result_that_is_not_logits_is_refused(
    monkeypatch: pytest.MonkeyPatch, forward: Forward, wrong: str
) -> None:
    with refused(f"{FILE}: forward of Student ", wrong, "it must compute logits ("):
        check_own(monkeypatch, kind_of(forward))


def nan_in_evaluation(self: Any, x: Tensor) -> Tensor:
    logits: Tensor = self.table(x[:, -1])
    return logits if self.training else logits * torch.nan


def replacing(self: Any, x: Tensor) -> Tensor:
    self.table.weight = nn.Parameter(self.table.weight.detach() * 0.9)
    logits: Tensor = self.table(x[:, -1])
    return logits


@pytest.mark.parametrize(
    ("forward", "wrong"),
    [
        (lambda self, x: self.table(x[:, -1]).detach(), "depends on no trainable parameter"),
        (
            lambda self, x: (self.table(x) * (x > 0)[..., None]).sum(1) / (x > 0).sum(1)[:, None],
            "returns NaN for a context that is all padding (token 0); handle this case",
        ),
        (nan_in_evaluation, "returns NaN"),
        (replacing, "replaces a parameter, so that it is not trained"),
    ],
)
def test_a_model_that_cannot_be_trained_is_refused(
    monkeypatch: pytest.MonkeyPatch, forward: Forward, wrong: str
) -> None:
    with refused(f"{FILE}: forward of Student ", wrong):
        check_own(monkeypatch, kind_of(forward))


def test_parameters_that_forward_does_not_use_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """They would be counted and saved, but never trained."""
    unused = kind_of(lambda self, x: self.table(x[:, -1]))
    assert check_own(monkeypatch, unused) == [
        "Student: norm.weight, norm.bias will not be trained: forward of Student does not use "
        "them, or uses a function without a derivative"
    ]
    assert check_own(monkeypatch, kind_of(lambda self, x: self.norm(self.table(x[:, -1])))) == []


def test_an_error_in_the_backward_pass_is_reported_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        logits = self.table(x[:, -1]).exp()
        return logits.mul_(logits)

    with refused(f"{FILE}: forward of Student raises an error: ", "inplace operation"):
        check_own(monkeypatch, kind_of(forward))


@pytest.mark.parametrize("draw", [random.random, np.random.rand])
def test_random_numbers_independent_of_the_seed_are_refused(
    monkeypatch: pytest.MonkeyPatch, draw: Callable[[], float]
) -> None:
    with refused(f"{FILE}: Student draws random numbers from Python's or NumPy's"):
        check_own(monkeypatch, kind_of(lambda self, x: self.table(x[:, -1]) * draw()))


def test_an_error_has_the_line_in_the_file_of_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        return nn.functional.linear(self.table(x), torch.ones(2, 3))  # fails inside torch

    line = forward.__code__.co_firstlineno + 1
    said = f"{FILE}, line {line}: forward of Student raises an error: "
    with refused(said, "mat1 and mat2 shapes cannot be multiplied"):
        check_own(monkeypatch, kind_of(forward))


def in_evaluation(self: Any, x: Tensor) -> Tensor:
    logits: Tensor = self.table(x[:, -1]) if self.training else self.tabel(x[:, -1])
    return logits


def at_the_second_step(self: Any, x: Tensor) -> Tensor:
    self.kept = getattr(self, "kept", 0) + self.table(x[:, -1])
    return self.kept  # type: ignore[no-any-return]


def stopping(self: Any, x: Tensor) -> Tensor:
    sys.exit()


@pytest.mark.parametrize(
    ("forward", "said"),
    [
        (in_evaluation, "AttributeError: 'Student' object has no attribute 'tabel'"),
        (at_the_second_step, "RuntimeError: Trying to backward through the graph a second time"),
        (stopping, "SystemExit; fix it"),
        (lambda self, x: {}["tanh"], "KeyError: 'tanh'; fix it"),
    ],
)
def test_an_error_in_any_step_is_found(
    monkeypatch: pytest.MonkeyPatch, forward: Forward, said: str
) -> None:
    with refused(FILE, "forward of Student raises an error: ", said):
        check_own(monkeypatch, kind_of(forward))


def test_an_error_from_elsewhere_has_only_the_file() -> None:
    with refused(f"constructor of Student raises an error ({FILE}): "):
        construct(kind_of(lambda self, x: x), {"vocab_size": V})


def test_lazy_layers_are_refused() -> None:
    class Lazy(LanguageModel):
        def __init__(self, vocab_size: int) -> None:
            super().__init__()
            self.output = nn.LazyLinear(vocab_size)

    with refused("Lazy has lazy layers, whose weights cannot be seeded; specify the sizes"):
        construct(Lazy, {"vocab_size": V})


# Models that a checkpoint could not restore.


class Sparse(Own):
    """A model whose state safetensors cannot store."""

    def __init__(self, vocab_size: int, block_size: int) -> None:
        super().__init__(vocab_size, block_size)
        self.register_buffer("mask", torch.eye(3).to_sparse())


class Extra(Own):
    """A model with extra state, which a checkpoint does not store."""

    def get_extra_state(self) -> dict[str, int]:
        return {"steps": 3}

    def set_extra_state(self, state: Any) -> None:
        pass


class Growing(Own):
    """A model whose state does not fit a new one with the same arguments."""

    def __init__(self, vocab_size: int, block_size: int) -> None:
        super().__init__(vocab_size, block_size)
        self.register_buffer("seen", torch.rand(int(torch.randint(2, 10**6, ()))))


ADVICE = (
    "cannot be saved and rebuilt",
    "; its arguments must be numbers, strings or lists of them, and it must be the only model in a "
    "module of charlm/models",
)


@pytest.mark.parametrize("option", [None, 3, 0.5, "layer", True, [1, 2], {"a": [1.5]}], ids=repr)
def test_an_argument_that_json_can_store_is_accepted(
    monkeypatch: pytest.MonkeyPatch, option: Any
) -> None:
    assert check_own(monkeypatch, Own, option) == []


@pytest.mark.parametrize(
    "option",
    [torch.tanh, nn.ReLU(), torch.zeros(2), {1, 2}, float("nan")],
    ids=lambda option: type(option).__name__,
)
def test_an_argument_that_json_cannot_store_is_refused_before_training(
    monkeypatch: pytest.MonkeyPatch, option: Any
) -> None:
    with refused(f"{FILE}: Own ", *ADVICE):
        check_own(monkeypatch, Own, option)


class Overwriting(Own):
    """A model that uses the attribute for its arguments for something else."""

    def __init__(self, vocab_size: int, block_size: int) -> None:
        super().__init__(vocab_size, block_size)
        self.hyperparameters = {"a": 1}


@pytest.mark.parametrize("kind", [Sparse, Extra, Growing, Overwriting])
def test_a_state_that_cannot_be_restored_is_refused(
    monkeypatch: pytest.MonkeyPatch, kind: type[LanguageModel]
) -> None:
    with refused(f"{FILE}: {kind.__name__} ", *ADVICE):
        check_own(monkeypatch, kind)


class Counting(Own):
    """A model that counts its steps in an ordinary attribute, at first without effect."""

    steps = 0

    def forward(self, contexts: Tensor) -> Tensor:
        self.steps += 1
        return super().forward(contexts) * (1 if self.steps < 1000 else 2)


class Averaging(Own):
    """A model whose running mean is a plain tensor instead of a buffer."""

    def __init__(self, vocab_size: int, block_size: int) -> None:
        super().__init__(vocab_size, block_size)
        self.mean = torch.zeros(vocab_size)

    def forward(self, contexts: Tensor) -> Tensor:
        x = super().forward(contexts)
        if self.training:
            self.mean = 0.9 * self.mean + 0.1 * x.mean(0).detach()
        return x - self.mean


class Forgetting(Averaging):
    """A model with a buffer that is not saved."""

    def __init__(self, vocab_size: int, block_size: int) -> None:
        super().__init__(vocab_size, block_size)
        del self.mean
        self.register_buffer("mean", torch.zeros(vocab_size), persistent=False)


class OwnGenerator(Own):
    """A model that draws from its own generator."""

    def __init__(self, vocab_size: int, block_size: int) -> None:
        super().__init__(vocab_size, block_size)
        self.generator = np.random.default_rng(0)

    def forward(self, contexts: Tensor) -> Tensor:
        x = super().forward(contexts)
        return x * float(self.generator.random()) if self.training else x


class Adding(Own):
    """A model that creates a layer when it first runs."""

    def forward(self, contexts: Tensor) -> Tensor:
        if not hasattr(self, "output"):
            self.output = nn.Linear(V, V)
        logits: Tensor = self.output(super().forward(contexts))
        return logits


class ListOfLayers(Own):
    """A model whose layers are in a plain Python list."""

    def __init__(self, vocab_size: int, block_size: int) -> None:
        super().__init__(vocab_size, block_size)
        self.layers = [nn.Linear(vocab_size, vocab_size)]

    def forward(self, contexts: Tensor) -> Tensor:
        logits: Tensor = self.layers[0](super().forward(contexts))
        return logits


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        (Counting, "changes steps, which is not saved; use register_buffer"),
        (Averaging, "use register_buffer for its state"),
        (Forgetting, "use register_buffer for its state"),
        (OwnGenerator, "torch's global generator"),
        (ListOfLayers, "nn.ModuleList for a list of layers"),
        (Adding, "adds parameters or buffers; create them in the constructor"),
    ],
)
def test_a_state_missing_from_checkpoints_is_refused(
    monkeypatch: pytest.MonkeyPatch, kind: type[LanguageModel], why: str
) -> None:
    with refused(f"{FILE}: forward of {kind.__name__} ", why):
        check_own(monkeypatch, kind)


def test_a_model_that_is_not_the_only_one_of_its_module_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with refused("Own", *ADVICE):  # defined here, not in charlm.models
        check(Own(V, T), CORPUS.vocabulary)
    in_a_module(monkeypatch, Own, Sparse)
    with refused("Own", "charlm/models/own.py defines 2 models instead of one"):
        check(Own(V, T), CORPUS.vocabulary)
