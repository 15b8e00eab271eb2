"""Ensembles, and a model distilled from one."""

import sys

import pandas as pd
import pytest
import torch
import torch.nn.functional as F

from charlm.core.params import Recipe
from charlm.data.splits import Part
from charlm.models.base import LanguageModel
from charlm.models.compact import CompactWaveNet
from charlm.training.trainer import Trainer
from experiments import ensemble
from tests.conftest import ROOT, Project
from tests.helpers import small_corpus, small_model, small_split

CORPUS = small_corpus(8)
WINDOWS = small_split(CORPUS)
V = len(CORPUS.vocabulary)


def model(seed: int) -> LanguageModel:
    return small_model(CORPUS, CompactWaveNet, seed)


def test_an_ensemble_gives_the_mean_of_the_probabilities() -> None:
    teacher = ensemble.Teacher([model(1), model(2)])
    contexts, targets = WINDOWS[Part.VAL].batch(slice(None))
    with torch.no_grad():
        expected = (model(1)(contexts.long()).softmax(1) + model(2)(contexts.long()).softmax(1)) / 2
    torch.testing.assert_close(teacher(contexts), expected)
    loss = F.nll_loss(expected.log(), targets).item()
    assert teacher.loss(WINDOWS[Part.VAL]) == pytest.approx(loss, rel=1e-5)


def test_a_lesson_is_what_the_teacher_says() -> None:
    teacher = ensemble.Teacher([model(1)])
    lessons = ensemble.Lessons(teacher, WINDOWS[Part.TRAIN])
    contexts, _ = WINDOWS[Part.TRAIN].batch(torch.arange(len(WINDOWS[Part.TRAIN])).flip(0))
    torch.testing.assert_close(lessons(contexts), teacher(contexts))


def test_taught_what_follows_a_pupil_learns_as_anybody() -> None:
    recipe = Recipe(lr=0.1, batch_size=16, epochs=2)
    contexts, targets = WINDOWS[Part.TRAIN].batch(slice(None))
    seen: dict[tuple[int, ...], int] = {}
    for context, target in zip(contexts.tolist(), targets.tolist(), strict=True):
        seen.setdefault(tuple(context), target)
    alike = [seen[tuple(c)] == t for c, t in zip(contexts.tolist(), targets.tolist(), strict=True)]
    train = WINDOWS[Part.TRAIN].where(torch.tensor(alike))  # one target for each context

    def lessons(contexts: torch.Tensor) -> torch.Tensor:
        return F.one_hot(torch.tensor([seen[tuple(c)] for c in contexts.tolist()]), V).float()

    histories = []
    for kind in (Trainer, ensemble.taught_by(lessons)):
        trainer = kind(model(1), train, WINDOWS[Part.VAL], recipe, seed=1)
        histories.append([(epoch.train_loss, epoch.val_loss) for epoch in trainer.run(2)])
    for one, other in zip(*histories, strict=True):
        assert one == pytest.approx(other, rel=1e-4)


def test_the_table_has_means_over_the_seeds() -> None:
    runs = pd.DataFrame(
        {"model": "A", "parameters": 1234, "val_loss": loss, "test_loss": loss - 0.1}
        for loss in (2.0, 2.2)
    )
    assert (
        ensemble.table(runs).splitlines()[2] == "| A | 1,234 | 2.1000 ± 0.1414 | 2.0000 ± 0.1414 |"
    )


def test_an_ensemble_of_none_is_refused_in_one_line() -> None:
    ran = Project(ROOT).run(sys.executable, "-m", "experiments.ensemble", "--members", "0", code=1)
    assert ran.text == "error: --members is 0; give 1 or more\n"


def test_a_list_that_does_not_exist_is_refused_in_one_line() -> None:
    command = [sys.executable, "-m", "experiments.ensemble", "--names", "nope.txt"]
    ran = Project(ROOT).run(*command, code=1)
    assert ran.text == "error: --names nope.txt does not exist; give the path of a list\n"
