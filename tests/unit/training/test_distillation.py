"""Distillation: training on a teacher's predictions."""

import pytest
import torch
import torch.nn.functional as F

from charlm.core.params import Recipe
from charlm.core.randomness import seeded
from charlm.data.splits import Part
from charlm.fast.running import Runner, mean_loss
from charlm.models.compact import CompactWaveNet
from charlm.models.kneser_ney import KneserNey
from charlm.training import distillation
from charlm.training.counting import count
from charlm.training.distillation import TaughtWindows, taught
from charlm.training.trainer import Trainer
from tests.helpers import small_corpus, small_split

CORPUS = small_corpus(block_size=8)
WINDOWS = small_split(CORPUS)
TRAIN = WINDOWS[Part.TRAIN]
V = len(CORPUS.vocabulary)


def counts() -> KneserNey:
    model = KneserNey(V, 8)
    count(model, TRAIN)
    return model


def student() -> CompactWaveNet:
    with seeded(1, "init"):
        return CompactWaveNet(V, 8, channels=12)


def lessons(share: float = 0.75) -> TaughtWindows:
    return taught(TRAIN, counts(), V, share)


def test_targets_are_the_teachers_predictions_and_the_actual_token() -> None:
    contexts, targets = TRAIN.batch(slice(None))
    left_out = counts()(contexts.long(), targets).exp()  # from the counts
    wanted = 0.75 * left_out + 0.25 * F.one_hot(targets, V)
    some = torch.tensor([5, 0, 17])
    for chosen in (slice(None), some):
        found_contexts, found = lessons().batch(chosen)
        assert torch.equal(found_contexts, contexts[chosen])
        torch.testing.assert_close(found, wanted[chosen].float(), rtol=0, atol=1e-3)
    assert left_out[range(len(targets)), targets].log().mean() < -2  # to the counts, a new name


def test_predictions_are_computed_again_if_there_are_too_many_to_store(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stored = lessons().batch(torch.tensor([5, 0, 17]))[1]
    monkeypatch.setattr(distillation, "STORED", len(TRAIN) * V - 1)
    again = lessons()
    assert again.predictions is None
    assert torch.equal(again.batch(torch.tensor([5, 0, 17]))[1], stored)


def test_a_teacher_runs_on_its_given_path() -> None:
    plain = Runner(counts(), fast=False)
    given = taught(TRAIN, plain, V, 0.75)
    assert given.teacher is plain
    torch.testing.assert_close(given.batch(slice(None))[1], lessons().batch(slice(None))[1])


def test_a_step_minimizes_the_mean_cross_entropy() -> None:
    trained, expected = student(), student()
    recipe = Recipe(lr=0.5, batch_size=len(TRAIN), epochs=1, distill=0.75)
    trainer = Trainer(trained, lessons(), WINDOWS[Part.VAL], recipe, seed=1)
    (epoch,) = trainer.run(1)
    assert trainer.runner.path
    assert trainer.runner.path.fast
    contexts, probs = lessons().batch(slice(None))
    loss = -(probs * expected(contexts.long()).log_softmax(1)).sum(1).mean()
    loss.backward()
    assert epoch.train_loss == pytest.approx(loss.item(), abs=1e-5)
    assert epoch.val_loss == pytest.approx(mean_loss(trained, WINDOWS[Part.VAL]), abs=1e-6)
    for ours, its in zip(trained.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(ours, its - 0.5 * its.grad, rtol=1e-4, atol=1e-6)


def test_a_student_becomes_like_its_teacher() -> None:
    """Train almost only on its predictions."""
    recipe = Recipe(lr=0.02, batch_size=16, epochs=40, optimizer="muon", distill=0.99)
    model = student()
    first = lessons(0.99).batch(slice(None))

    def distance() -> float:
        contexts, probs = first
        return F.kl_div(model(contexts.long()).log_softmax(1), probs, reduction="batchmean").item()

    before = distance()
    list(Trainer(model, lessons(0.99), WINDOWS[Part.VAL], recipe, seed=1).run(40))
    assert distance() < before / 4
