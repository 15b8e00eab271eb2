"""The models that combine others: the hybrid of counts and a net, and the mixture."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from charlm.core.params import Recipe
from charlm.core.randomness import seeded
from charlm.data import checkpoint
from charlm.data.splits import Part
from charlm.data.windows import Windows
from charlm.evaluation.metrics import score
from charlm.fast.running import Runner, losses, mean_loss
from charlm.models.base import build, count_parameters
from charlm.models.fcn import FCN
from charlm.models.hybrid import Hybrid
from charlm.models.kneser_ney import KneserNey
from charlm.models.mixture import Mixture
from charlm.training.counting import NGrams
from charlm.training.mixing import SMALLEST, mixture_weights
from charlm.training.trainer import Trainer
from tests.helpers import small_corpus, small_split

CORPUS = small_corpus(block_size=8)
WINDOWS = small_split(CORPUS)
V = len(CORPUS.vocabulary)
MEMBERS = pytest.mark.parametrize("members", [1, 3])
RECIPE = Recipe(lr=0.02, batch_size=16, epochs=4, optimizer="muon", average=0.9)


def hybrid(**options: float) -> Hybrid:
    """Return a new hybrid that has counted the training windows."""
    with seeded(1, "init"):
        model = Hybrid(V, 8, 12, **options)
    model.counts.tables = NGrams(WINDOWS[Part.TRAIN], V, 8).tables(8)
    return model


def trainer_of(model: Hybrid, recipe: Recipe = RECIPE, *, fast: bool = True) -> Trainer:
    return Trainer(model, WINDOWS[Part.TRAIN], WINDOWS[Part.VAL], recipe, seed=1, fast=fast)


def by_hand(model: Hybrid, windows: Windows) -> Tensor:
    """Return the mean training loss of all members, with each window left out of the counts."""
    contexts, targets = windows.batch(slice(None))
    log_probs, level = model.counts.look_up(contexts.long(), [2, 4, 8], targets)
    each = [its_logits(its, contexts.long(), log_probs, level) for its in model.corrections]
    return torch.stack([F.cross_entropy(logits, targets) for logits in each]).mean()


def its_logits(its: Any, contexts: Tensor, log_probs: Tensor, level: Tensor) -> Tensor:
    """Return the logits of a member."""
    x = its.net.features(contexts) + its.level.weight[level]
    joined = torch.cat([x, *log_probs.exp().sqrt().unbind(1)], dim=1)
    value, gate = (
        F.linear(
            joined,
            torch.cat([of_net.weight, of_counts.weight], dim=1),
            of_net.bias + of_counts.bias,
        )
        for of_net, of_counts in (its.value, its.gate)
    )
    x = x + value * gate
    logits = F.linear(x, its.net.embedding.weight, its.net.bias)
    return logits + torch.einsum("nk,nkv->nv", its.trust(x), log_probs)


@MEMBERS
def test_a_training_step_leaves_its_windows_out_of_the_counts(members: int) -> None:
    windows = WINDOWS[Part.TRAIN]
    recipe = Recipe(lr=0.5, batch_size=len(windows), epochs=1)
    trained, expected = hybrid(members=members), hybrid(members=members)
    (epoch,) = trainer_of(trained, recipe).run(1)
    loss = by_hand(expected, windows)
    loss.backward()
    assert epoch.train_loss == pytest.approx(loss.item(), abs=1e-5)
    for ours, its in zip(trained.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(ours, its - 0.5 * its.grad, rtol=1e-4, atol=1e-6)


def test_evaluation_does_not_leave_windows_out_of_the_counts() -> None:
    model = hybrid()
    contexts, targets = WINDOWS[Part.TRAIN].batch(slice(None))
    counted = mean_loss(model, WINDOWS[Part.TRAIN])
    assert counted == pytest.approx(
        F.cross_entropy(model(contexts.long()), targets).item(), abs=1e-5
    )
    assert counted < by_hand(model, WINDOWS[Part.TRAIN]).item() - 0.5


@MEMBERS
def test_the_fast_path_and_plain_torch_train_a_hybrid_alike(members: int) -> None:
    every = []
    for fast in (True, False):
        trainer = trainer_of(hybrid(members=members), fast=fast)
        every.append([(epoch.train_loss, epoch.val_loss) for epoch in trainer.run(4)])
        assert trainer.runner.path is not None
        assert trainer.runner.path.fast == fast
    np.testing.assert_allclose(*every, rtol=0, atol=1e-4)


def test_scoring_with_leave_out_works_for_every_model_that_counts() -> None:
    model, windows = hybrid(), WINDOWS[Part.TRAIN]
    expected = by_hand(model, windows).item()
    losses, _ = score(model, windows, leave_out=True)
    assert losses.mean().item() == pytest.approx(expected, abs=1e-5)
    counts = KneserNey(V, 8)
    counts.tables = model.counts.tables
    contexts, targets = windows.batch(slice(None))
    members = [("kneser_ney", counts.hyperparameters), ("hybrid", model.hyperparameters)]
    mixture = Mixture(V, 8, members)
    mixture.members[0].load_state_dict(counts.state_dict())
    mixture.members[1].load_state_dict(model.state_dict())
    each = [its(contexts.long(), targets).softmax(1) for its in (counts, model)]
    wanted = F.nll_loss(((each[0] + each[1]) / 2).log(), targets).item()
    losses, _ = score(mixture, windows, leave_out=True)
    assert losses.mean().item() == pytest.approx(wanted, abs=1e-5)
    counted, _ = score(mixture, windows)
    assert counted.mean().item() < wanted - 0.3


def test_members_train_independently_and_their_probabilities_are_averaged() -> None:
    three = hybrid(members=3)
    recipe = RECIPE.model_copy(update={"optimizer": "sgd", "average": 0.0})
    single = [hybrid() for _ in range(3)]
    for model, its in zip(single, three.corrections, strict=True):
        model.corrections[0].load_state_dict(its.state_dict())
        # Each member of an ensemble has a third of the loss, which equals a third of the rate.
        list(trainer_of(model, recipe.model_copy(update={"lr": recipe.lr / 3})).run(4))
    list(trainer_of(three, recipe).run(4))
    contexts, _ = WINDOWS[Part.VAL].batch(slice(None))
    with torch.no_grad():
        each = [model.eval()(contexts.long()).softmax(1) for model in single]
        found = three.eval()(contexts.long())
    torch.testing.assert_close(found, torch.stack(each).mean(0).log(), rtol=0, atol=1e-4)
    assert (each[0] - each[1]).abs().max() > 0.01


def test_a_hybrid_starts_near_the_counts_and_improves() -> None:
    counts = KneserNey(V, 8)
    model = hybrid()
    counts.tables = model.counts.tables
    trainer = trainer_of(model)
    first = mean_loss(model, WINDOWS[Part.VAL])
    assert first < mean_loss(counts, WINDOWS[Part.VAL]) + 0.3
    history = list(trainer.run(4))
    assert history[-1].train_loss < history[0].train_loss


def test_a_hybrid_resumes_to_the_same_bytes() -> None:
    whole = trainer_of(hybrid(dropout=0.2))
    list(whole.run(4))
    begun = trainer_of(hybrid(dropout=0.2))
    list(begun.run(2))
    state = copy.deepcopy(begun.state_dict())
    resumed = trainer_of(hybrid(dropout=0.2))
    resumed.load_state_dict(state)
    list(resumed.run(4))
    for name, tensor in whole.weights().items():
        assert torch.equal(tensor, resumed.weights()[name]), name


def test_a_hybrid_is_saved_with_its_counts(tmp_path) -> None:
    model = hybrid()
    path = tmp_path / "hybrid.safetensors"
    checkpoint.save(path, model, CORPUS.vocabulary)
    loaded = checkpoint.load_for(path, CORPUS, build)
    val = WINDOWS[Part.VAL]
    assert torch.equal(losses(Runner(loaded), val), losses(Runner(model), val))
    net = sum(parameter.numel() for parameter in model.parameters())
    assert count_parameters(loaded) == net + len(model.counts.tables.counts)


def mixture(weights: list[float]) -> Mixture:
    """Return a mixture of a fully connected net, counts and a hybrid."""
    members = [FCN(V, 8), KneserNey(V, 8), hybrid()]
    members[1].tables = NGrams(WINDOWS[Part.TRAIN], V, 3).tables(3)
    kinds = ("fcn", "kneser_ney", "hybrid")
    described = [(kind, its.hyperparameters) for kind, its in zip(kinds, members, strict=True)]
    model = Mixture(V, 8, described)
    for own, its in zip(model.members, members, strict=True):
        own.load_state_dict(its.state_dict())
    model.weights = torch.tensor(weights)
    return model


def test_a_mixture_is_the_weighted_mean_of_the_probabilities(tmp_path) -> None:
    model = mixture([0.5, 0.2, 0.3])
    contexts, _ = WINDOWS[Part.VAL].batch(slice(None))
    each = [member(contexts.long()).softmax(1) for member in model.members]
    expected = 0.5 * each[0] + 0.2 * each[1] + 0.3 * each[2]
    torch.testing.assert_close(model(contexts.long()).exp(), expected)
    runner = Runner(model)
    torch.testing.assert_close(runner.logits(contexts).exp(), expected, rtol=1e-4, atol=1e-6)
    assert runner.path is not None
    assert runner.path.fast
    path = tmp_path / "mixture.safetensors"
    checkpoint.save(path, model, CORPUS.vocabulary)
    loaded = checkpoint.load_for(path, CORPUS, build)
    torch.testing.assert_close(loaded(contexts.long()), model(contexts.long()), rtol=0, atol=0)


def test_the_weights_maximize_the_likelihood() -> None:
    """Compare with every pair of weights in steps of a hundredth."""
    generator = np.random.default_rng(0)
    probs = generator.uniform(0.01, 1, (2, 500)) ** [[2], [1.5]]
    found = mixture_weights(probs)
    assert found.sum() == pytest.approx(1)
    grid = [np.log(w * probs[0] + (1 - w) * probs[1]).mean() for w in np.linspace(0, 1, 101)]
    assert np.log(found @ probs).mean() >= max(grid) - 1e-6


def test_a_model_that_adds_nothing_is_left_out() -> None:
    generator = np.random.default_rng(0)
    good = generator.uniform(0.3, 1, (1, 400))
    probs = np.concatenate([good, good * 0.1, good * 0.5])
    assert mixture_weights(probs).tolist() == [1, 0, 0]
    assert mixture_weights(good).tolist() == [1]
    many = generator.uniform(0.1, 1, (40, 400))
    weights = mixture_weights(many)
    assert weights[weights > 0].min() >= SMALLEST
    assert weights.sum() == pytest.approx(1)


def test_equal_models_have_equal_weights() -> None:
    probs = np.full((3, 10), 0.2)
    assert mixture_weights(probs) == pytest.approx(np.full(3, 1 / 3))
