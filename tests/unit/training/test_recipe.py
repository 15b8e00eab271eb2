"""Every training option, compared with torch, and resumed in the middle."""

import copy
import json
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim import lr_scheduler

import charlm.training.trainer
from charlm.core.params import Recipe
from charlm.core.randomness import derive_seed
from charlm.data.permutation import Permutation
from charlm.data.splits import Part
from charlm.fast.running import mean_loss
from charlm.models.base import LanguageModel
from charlm.models.compact import CompactWaveNet
from charlm.models.fcn import FCN
from charlm.models.wavenet import WaveNet
from charlm.training.trainer import Trainer
from tests.helpers import assert_same, refused, small_corpus, small_model, small_split

CORPUS = small_corpus()
WINDOWS = small_split(CORPUS)
TRAIN, VAL = WINDOWS[Part.TRAIN], WINDOWS[Part.VAL]
EPOCHS = 6
PLAIN = Recipe(lr=0.1, batch_size=32, epochs=EPOCHS)
BATCHES = -(-len(TRAIN) // PLAIN.batch_size)

WAYS: dict[str, dict[str, Any]] = {
    "momentum": {"momentum": 0.9},
    "sgd with decay": {"weight_decay": 0.01},
    "adamw": {"optimizer": "adamw", "lr": 0.01, "weight_decay": 0.1},
    "muon": {"optimizer": "muon", "lr": 0.01, "momentum": 0.9, "weight_decay": 0.1},
    "clipped": {"clip_norm": 0.3},
    "lambda": {"scheduler": "lambda"},
    "step": {"scheduler": "step", "lr_every": 2, "lr_factor": 0.5},
    "linear": {"scheduler": "linear"},
    "plateau": {"scheduler": "plateau", "lr_every": 1, "lr": 1.5},
    "onecycle": {"scheduler": "onecycle"},
    "best": {"keep": "best", "lr": 1.5},
    "patience": {"patience": 2, "lr": 1.5, "keep": "best"},
    "averaged": {"average": 0.9},
    "all of it": {
        "optimizer": "muon",
        "lr": 0.02,
        "momentum": 0.9,
        "weight_decay": 0.1,
        "clip_norm": 0.5,
        "scheduler": "onecycle",
        "average": 0.9,
        "keep": "best",
    },
}
EVERY_WAY = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)


def recipe(**options: Any) -> Recipe:
    return Recipe(**{"lr": 0.1, "batch_size": 32, "epochs": EPOCHS, **options})


def trainer(
    way: dict[str, Any], architecture: type[LanguageModel] = WaveNet, **options: Any
) -> Trainer:
    """Return a Trainer of a new model, always with the same initial weights."""
    model = small_model(CORPUS, architecture, **options)
    return Trainer(model, TRAIN, VAL, recipe(**way), seed=1)


def trained(way: dict[str, Any], architecture: type[LanguageModel] = WaveNet) -> Trainer:
    done = trainer(way, architecture)
    list(done.run(EPOCHS))
    return done


@EVERY_WAY
@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("architecture", [WaveNet, CompactWaveNet])
def test_every_option_resumes_to_the_same_bits_after_any_interruption(
    way: dict[str, Any],
    dropout: float,
    architecture: type[LanguageModel],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(charlm.training.trainer, "REPORT_EVERY", 3)
    if architecture is CompactWaveNet:  # diverges where others only oscillate
        way = {**way, "lr": min(way.get("lr", PLAIN.lr), 0.2)}
    whole = trainer(way, architecture, dropout=dropout)
    states: list[dict[str, Any]] = []
    for _ in whole.run(EPOCHS, lambda _: states.append(copy.deepcopy(whole.state_dict()))):
        states.append(copy.deepcopy(whole.state_dict()))  # noqa: PERF401
    for state in states[:: len(states) // 4]:
        second = trainer(way, architecture, dropout=dropout)
        second.load_state_dict(copy.deepcopy(state))
        list(second.run(EPOCHS))
        assert_same(second, whole)


@EVERY_WAY
def test_torch_saves_and_loads_a_state_without_running_code(
    way: dict[str, Any], tmp_path: Any
) -> None:
    first = trainer(way)
    list(first.run(2))
    torch.save(first.state_dict(), tmp_path / "state")
    second = trainer(way)
    second.load_state_dict(torch.load(tmp_path / "state", weights_only=True))
    list(first.run(EPOCHS))
    list(second.run(EPOCHS))
    assert_same(second, first)


@EVERY_WAY
def test_every_option_learns_and_has_an_effect(way: dict[str, Any]) -> None:
    done = trained(way)
    losses = [epoch.train_loss for epoch in done.history]
    assert min(losses) < losses[0]
    if set(way) - {"lr", "keep", "patience"}:
        plain = trained({"lr": way["lr"]} if "lr" in way else {})
        assert [e.val_loss for e in done.history] != [e.val_loss for e in plain.history]


def plain_loop(
    model: LanguageModel, optimizer: torch.optim.Optimizer, scheduler: Any, kind: str, clip: float
) -> tuple[list[float], list[float]]:
    """Return the validation losses and final learning rates of all epochs, using only torch."""
    contexts, targets = TRAIN.batch(slice(None))
    val_contexts, val_targets = VAL.batch(slice(None))
    losses, rates = [], []
    for epoch in range(1, EPOCHS + 1):
        order = Permutation(len(targets), derive_seed(1, f"shuffle/{epoch}"))(
            torch.arange(len(targets))
        )
        for index in order.split(PLAIN.batch_size):
            optimizer.zero_grad()
            F.cross_entropy(model(contexts[index]), targets[index]).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            if kind == "onecycle" and len(rates) < EPOCHS * BATCHES:
                scheduler.step()
        with torch.no_grad():
            losses.append(F.cross_entropy(model(val_contexts), val_targets).item())
        if kind == "plateau":
            scheduler.step(losses[-1])
        elif scheduler and kind != "onecycle":
            scheduler.step()
    return losses, rates[BATCHES - 1 :: BATCHES]


SCHEDULERS: dict[str, Any] = {
    "lambda": lambda o: lr_scheduler.LambdaLR(o, lambda e: 1.0 if e < EPOCHS / 2 else 0.1),
    "step": lambda o: lr_scheduler.StepLR(o, step_size=2, gamma=0.5),
    "linear": lambda o: lr_scheduler.LinearLR(o, 1.0, 0.1, total_iters=EPOCHS),
    "plateau": lambda o: lr_scheduler.ReduceLROnPlateau(o, factor=0.1, patience=1),
    "onecycle": lambda o: lr_scheduler.OneCycleLR(
        o, o.param_groups[0]["lr"], total_steps=EPOCHS * BATCHES, cycle_momentum=False
    ),
}


@pytest.mark.parametrize("name", ["momentum", "sgd with decay", "adamw", "clipped", *SCHEDULERS])
def test_an_option_matches_torch(name: str) -> None:
    way = WAYS[name]
    model = small_model(CORPUS, FCN)
    settings = recipe(**way)
    if settings.optimizer == "adamw":
        optimizer: torch.optim.Optimizer = torch.optim.AdamW(
            model.parameters(), settings.lr, weight_decay=settings.weight_decay
        )
    else:
        optimizer = torch.optim.SGD(
            model.parameters(),
            settings.lr,
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
        )
    scheduler = SCHEDULERS[name](optimizer) if name in SCHEDULERS else None
    losses, rates = plain_loop(model, optimizer, scheduler, name, settings.clip_norm or math.inf)
    done = trained(way, FCN)
    assert [epoch.lr for epoch in done.history] == pytest.approx(rates)
    assert [epoch.val_loss for epoch in done.history] == pytest.approx(losses, abs=1e-4)


def test_the_plateau_scheduler_lowers_the_learning_rate() -> None:
    rates = [epoch.lr for epoch in trained(WAYS["plateau"], FCN).history]
    assert rates[0] == 1.5
    assert rates[-1] < 1.5


@pytest.mark.parametrize(("epochs", "batch_size"), [(1, 10_000), (1, 32), (2, 10_000), (3, 64)])
@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_a_schedule_of_any_length_runs_without_a_warning(
    scheduler: Any, epochs: int, batch_size: int, recwarn: pytest.WarningsRecorder
) -> None:
    settings = recipe(scheduler=scheduler, epochs=epochs, batch_size=batch_size)
    training = Trainer(small_model(CORPUS), TRAIN, VAL, settings, seed=1)
    rates = [epoch.lr for epoch in training.run(epochs)]
    assert len(rates) == epochs
    assert all(0 < rate <= settings.lr * 1.0001 for rate in rates)
    assert [str(w.message) for w in recwarn] == []


def test_the_best_weights_are_those_of_the_lowest_validation_loss() -> None:
    done = trained({"keep": "best", "lr": 1.5}, FCN)
    losses = [epoch.val_loss for epoch in done.history]
    assert losses[-1] > min(losses), "the last would be as good"
    done.model.load_state_dict(done.weights())
    assert mean_loss(done.model, VAL) == min(losses)


def test_the_last_weights_are_kept_by_default() -> None:
    done = trained({"lr": 1.5}, FCN)
    assert mean_loss(done.model, VAL) == done.history[-1].val_loss
    assert all(torch.equal(done.weights()[k], v) for k, v in done.model.state_dict().items())


def test_patience_ends_a_training_that_stops_improving() -> None:
    done = trainer({"patience": 2, "lr": 1.5, "epochs": 40}, FCN)
    history = list(done.run(40))
    losses = [epoch.val_loss for epoch in history]
    assert len(history) == losses.index(min(losses)) + 1 + 2 < 40
    assert done.out_of_patience
    assert list(done.run(40)) == [], "nor does it go on when it is taken up"


def test_averaged_weights_are_a_moving_average_and_are_validated() -> None:
    done = trainer({"average": 0.9, "lr": 1.0, "epochs": 2}, FCN)
    steps = 0
    averages = {k: v.clone() for k, v in done.model.state_dict().items()}
    step = done._step

    def stepping() -> None:
        nonlocal steps
        step()
        steps += 1
        share = 1 - min(0.9, (1 + steps) / (10 + steps))
        for name, value in done.model.state_dict().items():
            averages[name] += share * (value - averages[name])

    done._step = stepping
    last = list(done.run(2))[-1]
    assert steps == 2 * BATCHES
    for name, value in done.weights().items():
        torch.testing.assert_close(value, averages[name], rtol=0, atol=1e-6)
    assert not torch.equal(done.weights()["output.weight"], done.model.output.weight)
    done.model.load_state_dict(done.weights())
    assert mean_loss(done.model, VAL) == last.val_loss


@pytest.mark.parametrize("architecture", [FCN, WaveNet, CompactWaveNet])
def test_dropout_changes_training_and_not_evaluation(architecture: type[LanguageModel]) -> None:
    dropping = trainer({}, architecture, dropout=0.5)
    plain = trainer({}, architecture)
    assert mean_loss(dropping.model, VAL) == pytest.approx(mean_loss(plain.model, VAL), abs=1e-6)
    first, other = next(dropping.run(1)), next(plain.run(1))
    assert first.train_loss != other.train_loss
    again = trainer({}, architecture, dropout=0.5)
    torch.manual_seed(99)  # no global generator of torch affects it
    assert next(again.run(1)) == first


@pytest.mark.parametrize("architecture", [FCN, WaveNet])
def test_layer_normalization_comes_before_the_tanh(architecture: type[LanguageModel]) -> None:
    model = small_model(CORPUS, architecture, norm="layer")
    contexts = TRAIN.batch(slice(0, 20))[0].long()
    norms = [model.norm] if architecture is FCN else model.norms
    x = model.embedding.weight[contexts]  # (N, T, C)
    levels = [model.hidden] if architecture is FCN else model.tree
    for level, norm in zip(levels, norms, strict=True):
        x = x.reshape(len(x), -1, level.in_features)
        before = F.linear(x, level.weight, level.bias)
        x = torch.tanh(F.layer_norm(before, before.shape[-1:], norm.weight, norm.bias))
    logits = F.linear(x[:, 0], model.output.weight, model.output.bias)
    torch.testing.assert_close(model(contexts), logits, rtol=0, atol=1e-5)
    done = trainer({}, architecture, norm="layer")
    history = list(done.run(EPOCHS))
    assert history[-1].val_loss < history[0].val_loss


def test_divergence_is_reported_with_the_current_learning_rate() -> None:
    training = trainer({"lr": 1e37, "scheduler": "linear"}, FCN)
    with refused("diverged in epoch 1", "1e+37"):
        list(training.run(EPOCHS))


def test_a_history_has_plain_numbers() -> None:
    history: list[dict[str, Tensor]] = trained(WAYS["onecycle"], FCN).state_dict()["history"]
    assert json.loads(json.dumps(history)) == history
