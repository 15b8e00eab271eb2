"""Training, compared with a plain loop and with itself."""

import copy
import warnings
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import charlm.training.trainer
from charlm.core.params import Recipe
from charlm.core.randomness import derive_seed
from charlm.data.permutation import Permutation
from charlm.data.splits import Part
from charlm.fast.rows import Rows
from charlm.fast.running import mean_loss
from charlm.models.base import LanguageModel
from charlm.models.compact import CompactWaveNet
from charlm.models.fcn import FCN
from charlm.models.wavenet import WaveNet
from charlm.training.trainer import REPORT_EVERY, Epoch, Trainer
from tests.helpers import (
    ARCHITECTURES,
    assert_same,
    refused,
    small_corpus,
    small_model,
    small_split,
)

CORPUS = small_corpus()
WINDOWS = small_split(CORPUS)
TRAIN, VAL = WINDOWS[Part.TRAIN], WINDOWS[Part.VAL]
BATCH_SIZE = 16


def trainer(
    architecture: type[LanguageModel] = FCN,
    *,
    lr: float = 0.3,
    batch_size: int = BATCH_SIZE,
    seed: int = 1,
    **options: Any,
) -> Trainer:
    """Return a Trainer of a new model, always with the same initial weights."""
    model = small_model(CORPUS, architecture)
    recipe = Recipe(lr=lr, batch_size=batch_size, **{"epochs": 5, **options})
    return Trainer(model, TRAIN, VAL, recipe, seed=seed)


def trained(architecture: type[LanguageModel] = FCN, *, epochs: int = 3, **options) -> Trainer:
    done = trainer(architecture, **options)
    assert len(list(done.run(epochs))) == epochs
    return done


@pytest.mark.parametrize(
    ("architecture", "train_loss", "val_loss"),
    [(FCN, 2.669229, 2.872255), (WaveNet, 2.913536, 2.910469)],
)
def test_the_losses_of_a_small_training_are_pinned(
    architecture: type[LanguageModel], train_loss: float, val_loss: float
) -> None:
    """Any change that should not affect results must keep these values."""
    last = trained(architecture, epochs=3).history[-1]
    assert last.train_loss == pytest.approx(train_loss, abs=1e-5)
    assert last.val_loss == pytest.approx(val_loss, abs=1e-5)


@ARCHITECTURES
def test_training_matches_a_plain_pytorch_loop(architecture: type[LanguageModel]) -> None:
    model = small_model(CORPUS, architecture)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
    contexts, targets = TRAIN.batch(slice(None))
    train_losses, val_losses = [], []
    for epoch in (1, 2, 3):
        shuffle = Permutation(len(targets), derive_seed(1, f"shuffle/{epoch}"))
        order = shuffle(torch.arange(len(targets)))
        losses = []
        for start in range(0, len(targets), BATCH_SIZE):
            index = order[start : start + BATCH_SIZE]
            loss = F.cross_entropy(model(contexts[index].long()), targets[index], reduction="none")
            optimizer.zero_grad()
            loss.mean().backward()
            optimizer.step()
            losses += loss.tolist()
        train_losses.append(sum(losses) / len(losses))
        with torch.no_grad():
            val_contexts, val_targets = VAL.batch(slice(None))
            val_losses.append(F.cross_entropy(model(val_contexts.long()), val_targets).item())

    done = trained(architecture, epochs=3)
    assert [epoch.epoch for epoch in done.history] == [1, 2, 3]
    # The compact WaveNet multiplies products with products, which increases rounding errors.
    slack = 1e-4 if architecture is CompactWaveNet else 1e-6
    assert [e.train_loss for e in done.history] == pytest.approx(train_losses, abs=slack)
    assert [e.val_loss for e in done.history] == pytest.approx(val_losses, abs=slack)
    for mine, plain in zip(done.model.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(mine, plain, rtol=0, atol=3 * slack)


@ARCHITECTURES
def test_any_loss_can_be_minimized(architecture: type[LanguageModel]) -> None:
    """Half the cross-entropy at twice the learning rate gives the same steps."""

    class Halved(Trainer):
        def summed_loss(self, logits: Any, contexts: Tensor, targets: Tensor) -> Any:
            assert contexts.shape == (len(targets), CORPUS.block_size)
            return super().summed_loss(logits, contexts, targets) / 2

    recipe = Recipe(lr=0.6, batch_size=BATCH_SIZE, epochs=5)
    halved = Halved(small_model(CORPUS, architecture), TRAIN, VAL, recipe, seed=1)
    plain = trained(architecture, epochs=3)
    for mine, usual in zip(halved.run(3), plain.history, strict=True):
        assert mine.train_loss == pytest.approx(usual.train_loss / 2, rel=1e-6)
        assert mine.val_loss == pytest.approx(usual.val_loss, rel=1e-6)  # still the cross-entropy


@ARCHITECTURES
def test_a_loss_of_plain_torch_functions_can_be_minimized(
    architecture: type[LanguageModel],
) -> None:
    """The loss is computed on `dense()`, and is the same one, so gradients must agree."""

    class Dense(Trainer):
        def summed_loss(self, logits: Any, contexts: Tensor, targets: Tensor) -> Any:
            assert isinstance(logits, Rows)
            chosen = logits.dense().log_softmax(1).gather(1, targets[:, None])
            return -chosen.sum()

    recipe = Recipe(lr=0.3, batch_size=BATCH_SIZE, epochs=5)
    dense = Dense(small_model(CORPUS, architecture), TRAIN, VAL, recipe, seed=1)
    list(dense.run(2))
    usual = trained(architecture, epochs=2)
    assert [e.train_loss for e in dense.history] == pytest.approx(
        [e.train_loss for e in usual.history], abs=1e-4
    )
    for mine, its in zip(dense.model.parameters(), usual.model.parameters(), strict=True):
        torch.testing.assert_close(mine, its, rtol=0, atol=1e-3)


def test_losses_are_summed_in_double_precision() -> None:
    """Added to the losses of a million windows, a batch's loss loses half its digits in float32."""
    training = trainer()
    training._total += 2**25
    with_it = [training._total.add_(1).item() for _ in range(3)]
    assert with_it == [2**25 + 1, 2**25 + 2, 2**25 + 3]


@ARCHITECTURES
def test_training_lowers_both_losses(architecture: type[LanguageModel]) -> None:
    before = mean_loss(small_model(CORPUS, architecture), VAL)
    history = trained(architecture, epochs=8).history
    assert history[-1].train_loss < history[0].train_loss - 0.3
    assert history[-1].val_loss < before - 0.3


def test_the_training_loss_is_the_mean_over_windows_not_over_batches() -> None:
    still = 1e-30  # a learning rate that leaves every weight unchanged
    all_but_one = len(TRAIN) - 1  # so that the last batch has one window
    untrained = trainer(lr=still, batch_size=all_but_one)
    losses = []
    shuffle = Permutation(len(TRAIN), derive_seed(1, "shuffle/1"))
    order = shuffle(torch.arange(len(TRAIN)))
    with torch.no_grad():
        for index in order.split(all_but_one):
            contexts, targets = TRAIN.batch(index)
            losses.append(F.cross_entropy(untrained.model(contexts), targets).item())
    over_windows = mean_loss(untrained.model, TRAIN)
    assert sum(losses) / len(losses) != pytest.approx(over_windows, abs=1e-2)
    (epoch,) = untrained.run(1)
    assert epoch.train_loss == pytest.approx(over_windows, abs=1e-6)


def test_the_validation_loss_is_computed_after_the_last_update_of_the_epoch() -> None:
    training = trainer()
    for epoch in training.run(3):
        assert epoch.val_loss == mean_loss(training.model, VAL)


@ARCHITECTURES
@pytest.mark.parametrize("interrupted_after", [1, 2, 4])
def test_an_interrupted_training_resumes_to_the_same_bits(
    architecture: type[LanguageModel], interrupted_after: int
) -> None:
    whole = trained(architecture, epochs=5)
    first = trained(architecture, epochs=interrupted_after)
    state = copy.deepcopy(first.state_dict())
    second = trainer(architecture)
    second.load_state_dict(state)
    assert [e.epoch for e in second.run(5)] == list(range(interrupted_after + 1, 6))
    assert_same(second, whole)


def test_a_training_can_be_stopped_in_the_middle_of_run() -> None:
    stopped = trainer()
    for epoch in stopped.run(5):
        if epoch.epoch == 2:
            break
    second = trainer()
    second.load_state_dict(copy.deepcopy(stopped.state_dict()))
    list(second.run(5))
    assert_same(second, trained(epochs=5))


def test_a_finished_training_has_nothing_left_to_run() -> None:
    done = trained(epochs=2)
    before = copy.deepcopy(done.model.state_dict())
    assert list(done.run(2)) == []
    assert all(torch.equal(before[k], v) for k, v in done.model.state_dict().items())


def test_run_yields_the_entries_of_the_history() -> None:
    training = trainer()
    for number, epoch in enumerate(training.run(3), start=1):
        assert isinstance(epoch, Epoch)
        assert epoch.epoch == number == len(training.history)
        assert training.history[-1] is epoch


def test_only_the_seed_determines_the_order_of_batches() -> None:
    torch.manual_seed(3)
    first = trained()
    torch.manual_seed(4)
    assert_same(first, trained())
    assert first.history != trained(seed=2).history


def test_every_epoch_has_its_own_order_of_all_windows() -> None:
    training = trainer()
    training.choose_path()  # looks at the first batch
    seen: list[torch.Tensor] = []
    batch = TRAIN.batch

    class Recording(type(TRAIN)):
        def batch(self, index: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            seen.append(index)
            return batch(index)

    training.train = Recording(TRAIN.stream, TRAIN.block_size, TRAIN.starts)
    list(training.run(2))
    first, second = torch.cat(seen).split(len(TRAIN))
    for order in (first, second):
        assert torch.equal(order.sort().values, torch.arange(len(TRAIN)))
    assert not torch.equal(first, second)


@pytest.mark.parametrize("batch_size", [1, 16, 97, 10_000])
def test_every_batch_is_reported(batch_size: int) -> None:
    training = trainer(batch_size=batch_size)
    assert training.batches_per_epoch == -(-len(TRAIN) // batch_size)
    counts: list[int] = []
    list(training.run(2, counts.append))
    assert sum(counts) == 2 * training.batches_per_epoch
    assert max(counts) <= REPORT_EVERY


@pytest.mark.parametrize(("lr", "shown"), [(1e30, "1e+30"), (1e37, "1e+37")])
def test_divergence_is_reported_with_epoch_and_learning_rate(lr: float, shown: str) -> None:
    training = trainer(lr=lr)
    with refused("diverged in epoch 1", "lower the learning rate", shown):
        list(training.run(3))
    assert training.history == []


@ARCHITECTURES
def test_divergence_is_reported_without_numpy_warnings(
    architecture: type[LanguageModel],
) -> None:
    """The learning rate is so high that a product overflows before the loss does."""
    training = trainer(architecture, lr=1e38, batch_size=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with refused("diverged in epoch 1"):
            list(training.run(1))


def test_divergence_in_a_later_epoch_is_reported_with_that_epoch() -> None:
    training = trained(epochs=2)
    with torch.no_grad():
        training.model.output.bias[0] = torch.nan
    with refused("diverged in epoch 3", "0.3"):
        list(training.run(5))
    assert len(training.history) == 2


@ARCHITECTURES
@pytest.mark.parametrize("stopped_after", [1, 2, 3, 5])
def test_a_training_interrupted_within_an_epoch_resumes_to_the_same_bits(
    architecture: type[LanguageModel], stopped_after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An epoch has 7 batches here, reported after 2, 4, 6 and 7."""
    monkeypatch.setattr(charlm.training.trainer, "REPORT_EVERY", 2)
    size = -(-len(TRAIN) // 7)
    whole = trained(architecture, epochs=3, batch_size=size)
    states: list[dict[str, Any]] = []
    first = trainer(architecture, batch_size=size)
    assert first.batches_per_epoch == 7
    for _ in first.run(3, lambda count: states.append(copy.deepcopy(first.state_dict()))):
        pass
    state = states[stopped_after]
    second = trainer(architecture, batch_size=size)
    second.load_state_dict(state)
    epochs_done, batches_done = divmod(stopped_after, 4)
    assert len(second.history) == epochs_done
    assert second.batches_done == (2, 4, 6, 7)[batches_done]
    counts: list[int] = []
    list(second.run(3, counts.append))
    assert sum(counts) == 7 * (3 - epochs_done) - state["batches_done"]
    assert_same(second, whole)


def test_no_state_of_a_diverged_training_is_reported_within_an_epoch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(charlm.training.trainer, "REPORT_EVERY", 1)
    training = trainer(lr=1e30, batch_size=8)
    reported: list[int] = []
    with refused("diverged in epoch 1"):
        list(training.run(3, reported.append))
    assert len(reported) < training.batches_per_epoch
