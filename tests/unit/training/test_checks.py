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
from charlm.training.checks import check_forward, construct
from tests.helpers import ANY_MODEL, refused
from tests.models import new_model

V, T = 11, 8


def model_of(forward: Callable[[Any, Tensor], Any]) -> LanguageModel:
    class Student(LanguageModel):
        def __init__(self, vocab_size: int, block_size: int) -> None:
            super().__init__()
            self.table = nn.Embedding(vocab_size, vocab_size)
            self.norm = nn.BatchNorm1d(vocab_size)

    Student.forward = forward  # type: ignore[method-assign, assignment]
    return Student(V, T)


@ANY_MODEL
def test_the_models_there_are_pass(architecture: type[LanguageModel]) -> None:
    check_forward(new_model(architecture, V, T), V, T)


def test_it_leaves_the_generator_as_it_was() -> None:
    model = model_of(lambda self, x: self.table(x[:, -1]) + torch.rand(V))
    generator = torch.get_rng_state()
    check_forward(model, V, T)
    assert torch.equal(torch.get_rng_state(), generator)


@pytest.mark.parametrize(
    ("forward", "wrong"),
    [
        (lambda self, x: self.table(x), "returns (64, 8, 11) of torch.float32;"),
        (lambda self, x: self.table(x[:, -1])[:, :5], "returns (64, 5) of torch.float32;"),
        (lambda self, x: self.table(x[:, -1]).argmax(1), "returns (64,) of torch.int64;"),
        (lambda self, x: x[:, :1].expand(-1, V), "returns (64, 11) of torch.int64;"),
        (lambda self, x: None, "returns a NoneType;"),
        (lambda self, x: (self.table(x[:, -1]), x), "returns a tuple;"),
        (lambda self, x: self.table(x[:, -1:]).squeeze(), "returns (11,) of torch.float32;"),
    ],
)
def test_what_is_no_logits_is_refused(forward: Callable[[Any, Tensor], Any], wrong: str) -> None:
    with refused("test_checks.py: forward of Student ", wrong, "it must compute logits ("):
        check_forward(model_of(forward), V, T)


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
            "computes NaN for a context of nothing but padding (token 0); handle it",
        ),
        (nan_in_evaluation, "computes NaN"),
        (replacing, "replaces a parameter, which is then not trained"),
    ],
)
def test_what_cannot_be_trained_is_refused(forward: Callable[..., Any], wrong: str) -> None:
    with refused("test_checks.py: forward of Student ", wrong):
        check_forward(model_of(forward), V, T)


def test_parameters_that_forward_does_not_use_are_named() -> None:
    """They would be counted and saved, but never trained."""
    lines: list[str] = []
    check_forward(model_of(lambda self, x: self.table(x[:, -1])), V, T, lines.append)
    assert lines == [
        "Student: norm.weight, norm.bias will not be trained: forward of Student does not use them"
    ]
    lines.clear()
    check_forward(model_of(lambda self, x: self.norm(self.table(x[:, -1]))), V, T, lines.append)
    assert lines == []


def test_an_error_of_the_backward_pass_is_reported_too() -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        logits = self.table(x[:, -1]).exp()
        return logits.mul_(logits)

    with refused("test_checks.py: forward of Student raises an error: ", "inplace operation"):
        check_forward(model_of(forward), V, T)


@pytest.mark.parametrize("draw", [random.random, np.random.rand])
def test_random_numbers_that_no_seed_determines_are_refused(draw: Callable[[], float]) -> None:
    model = model_of(lambda self, x: self.table(x[:, -1]) * draw())
    with refused("test_checks.py: Student draws random numbers from Python's or NumPy's"):
        check_forward(model, V, T)


def test_an_error_has_the_line_of_the_models_file() -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        return nn.functional.linear(self.table(x), torch.ones(2, 3))  # in torch

    line = forward.__code__.co_firstlineno + 1
    said = f"tests/unit/training/test_checks.py, line {line}: forward of Student raises an error: "
    with refused(said, "mat1 and mat2 shapes cannot be multiplied"):
        check_forward(model_of(forward), V, T)


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
def test_an_error_is_found_in_whichever_step(forward: Callable[..., Any], said: str) -> None:
    with refused("test_checks.py", "forward of Student raises an error: ", said):
        check_forward(model_of(forward), V, T)


def test_an_error_from_elsewhere_has_the_file_alone() -> None:
    kind = type(model_of(lambda self, x: x))
    with refused("constructor of Student raises an error (tests/unit/training/test_checks.py): "):
        construct(kind, {"vocab_size": V})


def test_weights_that_are_drawn_later_are_refused() -> None:
    class Lazy(LanguageModel):
        def __init__(self, vocab_size: int) -> None:
            super().__init__()
            self.output = nn.LazyLinear(vocab_size)

    with refused("Lazy has lazy layers, whose weights no seed determines; give the sizes"):
        construct(Lazy, {"vocab_size": V})
