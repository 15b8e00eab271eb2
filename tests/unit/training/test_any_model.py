"""Training models in plain PyTorch, with the same guarantees as for the course's models."""

import hashlib
import io
import json
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import charlm.training.trainer
from charlm.core.params import Recipe
from charlm.data import checkpoint
from charlm.data.splits import Part
from charlm.fast.running import PLAIN, mean_loss
from charlm.models.base import LanguageModel
from charlm.models.compact import CompactWaveNet
from charlm.models.fcn import FCN
from charlm.models.wavenet import WaveNet
from charlm.training.trainer import Trainer
from tests.helpers import assert_same, refused, run_python, small_corpus, small_split
from tests.models import (
    GRU,
    BatchNormOfChannelsWaveNet,
    BatchNormWaveNet,
    CausalTransformer,
    new_model,
)

CORPUS = small_corpus(8)
WINDOWS = small_split(CORPUS)
TRAIN, VAL = WINDOWS[Part.TRAIN], WINDOWS[Part.VAL]
V, T = len(CORPUS.vocabulary), CORPUS.block_size
EPOCHS = 2
BATCH_SIZE = 30


class Noisy(WaveNet):
    """A model that is random in training only, without dropout."""

    def forward(self, contexts: Tensor) -> Tensor:
        x: Any = super().forward(contexts)
        return x * (1 + 0.1 * torch.rand(()).item()) if self.training else x


class Annealed(WaveNet):
    """A model that is random, and has dropout, from the fourth batch on."""

    def __init__(self, vocab_size: int, block_size: int, hidden_dim: int) -> None:
        super().__init__(vocab_size, block_size, hidden_dim=hidden_dim)
        self.register_buffer("steps", torch.tensor(0))

    def forward(self, contexts: Tensor) -> Tensor:
        x: Any = super().forward(contexts)
        if not self.training:
            return x
        self.steps += 1
        late = self.steps.item() > 3
        return F.dropout(x, 0.3 if late else 0.0) * (1 + 0.1 * torch.rand(()).item() * late)


class Switching(BatchNormWaveNet):
    """A model that calls a function without a rule from the fourth batch on."""

    def forward(self, contexts: Tensor) -> Tensor:
        x: Any = super().forward(contexts)
        return x if self.norms[0].num_batches_tracked.item() < 4 else x.cumsum(1)


SMALL = {"hidden_dim": 12}
KINDS: dict[str, tuple[type[LanguageModel], dict[str, Any]]] = {
    "batch norm of rows": (BatchNormWaveNet, SMALL),
    "batch norm of channels": (BatchNormOfChannelsWaveNet, SMALL),
    "batch norm and dropout": (BatchNormWaveNet, {**SMALL, "dropout": 0.3}),
    "dropout": (WaveNet, {**SMALL, "dropout": 0.3}),
    "layer norm": (WaveNet, {**SMALL, "norm": "layer"}),
    "a random factor": (Noisy, SMALL),
    "a random factor later": (Annealed, SMALL),
    "another path later": (Switching, SMALL),
    "transformer": (CausalTransformer, {}),
    "GRU": (GRU, {}),
}
EVERY_KIND = pytest.mark.parametrize("kind", KINDS)
WITH_BATCH_NORM = pytest.mark.parametrize("kind", [name for name in KINDS if "batch" in name])


def trainer(kind: str, *, seed: int = 1, fast: bool = True, **options: Any) -> Trainer:
    architecture, sizes = KINDS[kind]
    recipe = Recipe(**{"lr": 0.1, "batch_size": BATCH_SIZE, "epochs": EPOCHS, **options})
    model = new_model(architecture, V, T, **sizes)
    return Trainer(model, TRAIN, VAL, recipe, seed=seed, fast=fast, log=lambda line: None)


def trained(kind: str, **options: Any) -> Trainer:
    done = trainer(kind, **options)
    list(done.run(done.recipe.epochs))
    return done


def through_a_file(state: dict[str, Any]) -> dict[str, Any]:
    """Return a state after saving it to a file and loading it."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    loaded: dict[str, Any] = torch.load(file, weights_only=True)
    return loaded


class BatchNormNet(FCN):
    """A net with BatchNorm, which needs at least two windows."""

    def __init__(self, vocab_size: int, block_size: int) -> None:
        super().__init__(vocab_size, block_size, hidden_dim=5)
        self.norm = torch.nn.BatchNorm1d(5)


@pytest.mark.parametrize("over", [0, 1, 2])
def test_a_last_batch_that_is_too_small_is_refused_before_training(over: int) -> None:
    size = next(n for n in range(2, len(TRAIN) + 1) if len(TRAIN) % n == over)
    model = new_model(BatchNormNet, V, T)
    recipe = Recipe(lr=0.1, batch_size=size, epochs=1)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    own = Trainer(model, TRAIN, VAL, recipe, seed=1)
    if over != 1:
        own.check_last_batch()
        list(own.run(1))
        return
    with refused(
        "fails on the last batch of an epoch, whose size is 1 (", "change batch_size by one"
    ):
        own.check_last_batch()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@EVERY_KIND
def test_only_the_seed_determines_the_training(kind: str) -> None:
    first = trained(kind)
    torch.manual_seed(99)
    torch.rand(7)
    second = trained(kind)
    assert_same(second, first)
    assert trained(kind, seed=2).history != first.history


@EVERY_KIND
@pytest.mark.parametrize("average", [0.0, 0.9])
def test_training_stopped_after_any_batch_resumes_to_the_same_bits(
    kind: str, average: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(charlm.training.trainer, "REPORT_EVERY", 1)
    whole = trainer(kind, average=average)
    states: list[dict[str, Any]] = []
    for _ in whole.run(EPOCHS, lambda _: states.append(through_a_file(whole.state_dict()))):
        states.append(through_a_file(whole.state_dict()))  # noqa: PERF401
    assert len(states) == EPOCHS * (whole.batches_per_epoch + 1)
    for state in states:
        second = trainer(kind, average=average)
        torch.manual_seed(5)
        second.load_state_dict(state)
        list(second.run(EPOCHS))
        assert_same(second, whole)


@WITH_BATCH_NORM
def test_buffers_are_averaged_too_and_counters_are_copied(kind: str) -> None:
    done = trainer(kind, average=0.9)
    averages = {name: value.clone() for name, value in done.model.state_dict().items()}
    update, steps = done._average.update, []  # type: ignore[union-attr]

    def updating(step: int) -> None:
        steps.append(step)
        share = 1 - min(0.9, (1 + step) / (10 + step))
        for name, value in done.model.state_dict().items():
            if value.is_floating_point():
                averages[name] += share * (value - averages[name])
            else:
                averages[name] = value.clone()
        update(step)

    done._average.update = updating  # type: ignore[union-attr, method-assign]
    last = list(done.run(EPOCHS))[-1]
    assert steps == list(range(1, EPOCHS * done.batches_per_epoch + 1))
    counters = 0
    for name, value in done.weights().items():
        torch.testing.assert_close(value, averages[name], rtol=1e-5, atol=1e-6)
        counters += not value.is_floating_point()
    assert counters == len(done.model.norms)
    assert done.weights()["norms.0.num_batches_tracked"] == len(steps)
    done.model.load_state_dict(done.weights())
    assert mean_loss(done.model, VAL) == last.val_loss


@WITH_BATCH_NORM
def test_validation_with_averages_is_as_good_as_without(kind: str) -> None:
    """With the statistics of the initial weights, the loss would be far off."""
    plain, averaged = trained(kind, epochs=6), trained(kind, epochs=6, average=0.9)
    assert averaged.history[-1].val_loss < plain.history[0].val_loss
    assert averaged.history[-1].val_loss == pytest.approx(plain.history[-1].val_loss, abs=0.1)


@WITH_BATCH_NORM
def test_the_best_weights_have_their_buffers(kind: str) -> None:
    done = trainer(kind, lr=1.5, epochs=8, keep="best")
    buffers = []
    for _ in done.run(8):
        state = done.model.state_dict()
        buffers.append({name: value.clone() for name, value in state.items() if "running" in name})
    losses = [epoch.val_loss for epoch in done.history]
    best = losses.index(min(losses))
    assert best < len(losses) - 1, "the last would be as good"
    assert all(torch.equal(done.weights()[name], value) for name, value in buffers[best].items())
    done.model.load_state_dict(done.weights())
    assert mean_loss(done.model, VAL) == min(losses)


WAYS: dict[str, dict[str, Any]] = {
    "sgd": {"momentum": 0.9, "weight_decay": 0.01},
    "adamw": {"optimizer": "adamw", "lr": 0.01, "weight_decay": 0.1},
    "muon": {"optimizer": "muon", "lr": 0.01, "momentum": 0.9},
    "clipped": {"clip_norm": 0.3},
    "lambda": {"scheduler": "lambda"},
    "step": {"scheduler": "step", "lr_every": 1, "lr_factor": 0.5},
    "linear": {"scheduler": "linear"},
    "plateau": {"scheduler": "plateau", "lr_every": 1, "lr": 0.3},
    "onecycle": {"scheduler": "onecycle"},
    "patience": {"patience": 2, "keep": "best"},
    "xavier": {"init": "xavier"},
}


@pytest.mark.parametrize("kind", ["transformer", "GRU", "batch norm of rows"])
@pytest.mark.parametrize("way", WAYS)
def test_every_training_option_works_for_any_model(
    kind: str, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(charlm.training.trainer, "REPORT_EVERY", 3)
    whole = trainer(kind, epochs=3, **WAYS[way])
    states: list[dict[str, Any]] = []
    for _ in whole.run(3, lambda _: states.append(through_a_file(whole.state_dict()))):
        pass
    losses = [epoch.train_loss for epoch in whole.history]
    assert min(losses) < losses[0]
    second = trainer(kind, epochs=3, **WAYS[way])
    second.load_state_dict(states[len(states) // 2])
    list(second.run(3))
    assert_same(second, whole)


# Changes to a model take part in training.


class WithGELU(WaveNet):
    def forward(self, contexts: Tensor) -> Tensor:
        x = self.embedding(contexts)
        for linear in self.tree:
            N, P, C = x.shape
            x = F.gelu(linear(x.view(N, P // 2, 2 * C)))
        logits: Tensor = self.output(x.squeeze(1))
        return logits


def weights_of(architecture: type[LanguageModel]) -> dict[str, Tensor]:
    model = new_model(architecture, V, T, **SMALL)
    recipe = Recipe(lr=0.1, batch_size=BATCH_SIZE, epochs=EPOCHS)
    done = Trainer(model, TRAIN, VAL, recipe, seed=1, log=lambda line: None)
    list(done.run(EPOCHS))
    return done.weights()


def test_a_function_added_to_forward_changes_the_training() -> None:
    plain, changed = weights_of(WaveNet), weights_of(WithGELU)
    assert plain.keys() == changed.keys()
    for name, weight in plain.items():
        assert not torch.equal(weight, changed[name]), name


@WITH_BATCH_NORM
def test_the_weights_of_batch_norm_are_trained_and_saved(kind: str, tmp_path: Any) -> None:
    before = trainer(kind).model.state_dict()
    done = trained(kind)
    checkpoint.save(tmp_path / "model", done.model, CORPUS.vocabulary)
    saved = checkpoint.load_weights({"it": tmp_path / "model"})["it"].tensors
    norms = [name for name in before if name.startswith("norms.")]
    assert len(norms) == 5 * 3
    for name in norms:
        assert not torch.equal(torch.from_numpy(saved[name]), before[name]), name


@pytest.mark.parametrize("architecture", [FCN, WaveNet, CompactWaveNet])
def test_without_the_fast_path_the_losses_are_the_same_within_rounding(
    architecture: type[LanguageModel],
) -> None:
    histories = []
    for fast in (True, False):
        model = new_model(architecture, V, T)
        recipe = Recipe(lr=0.1, batch_size=BATCH_SIZE, epochs=1)
        done = Trainer(model, TRAIN, VAL, recipe, seed=1, fast=fast)
        histories += list(done.run(1))
        assert done.runner.path.fast is fast
    ours, plain = histories
    assert ours.train_loss == pytest.approx(plain.train_loss, rel=1e-5)
    assert ours.val_loss == pytest.approx(plain.val_loss, rel=1e-5)


@pytest.mark.parametrize("kind", ["batch norm of rows", "batch norm of channels", "layer norm"])
def test_norms_are_the_same_without_the_fast_path(kind: str) -> None:
    ours, plain = trained(kind, epochs=1), trained(kind, epochs=1, fast=False)
    assert ours.runner.path.fast
    assert ours.history[0].val_loss == pytest.approx(plain.history[0].val_loss, rel=1e-4)


def test_a_model_may_start_to_draw_random_numbers_later() -> None:
    done = trained("a random factor later")
    assert done.runner.path.fast
    assert done.model.steps.item() > 3


def test_leaving_the_fast_path_in_mid_batch_keeps_the_statistics_right() -> None:
    ours, plain = (trained("another path later", epochs=1, fast=fast) for fast in (True, False))
    assert ours.runner.path == PLAIN
    for name, buffer in plain.model.named_buffers():
        torch.testing.assert_close(dict(ours.model.named_buffers())[name], buffer)
    assert ours.model.norms[0].num_batches_tracked == ours.batches_per_epoch > 3
    assert ours.history[0].train_loss == pytest.approx(plain.history[0].train_loss, rel=1e-5)


LARGE = {
    "transformer": {"channels": 128},
    "GRU": {"channels": 128},
    "dropout": {"hidden_dim": 128, "dropout": 0.3},
    "batch norm of rows": {"hidden_dim": 128},
    "layer norm": {"hidden_dim": 128, "norm": "layer"},
}
"""Large enough for torch to split the work among threads."""


def digests(threads: int, fast: bool) -> str:
    """Return a digest of the weights after training."""
    torch.set_num_threads(threads)
    sums = {}
    for kind, sizes in LARGE.items():
        recipe = Recipe(lr=0.1, batch_size=100, epochs=2, optimizer="muon", clip_norm=1.0)
        model = new_model(KINDS[kind][0], V, T, **sizes)
        list(Trainer(model, TRAIN, VAL, recipe, seed=1, fast=fast, log=str).run(2))
        for name, weight in model.state_dict().items():
            sums[f"{kind}, {name}"] = hashlib.md5(weight.numpy().tobytes()).hexdigest()
    return json.dumps(sums)


@pytest.mark.parametrize("fast", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_any_number_of_threads_gives_the_same_bytes(fast: bool) -> None:
    code = "from tests.unit.training.test_any_model import digests; print(digests({}, {}))"
    one, two = (run_python(code.format(threads, fast)) for threads in (1, 2))
    assert json.loads(one) == json.loads(two)
