"""The training loop."""

import copy
import gc
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from charlm.core.errors import InputError
from charlm.core.params import Recipe
from charlm.core.randomness import derive_seed
from charlm.data.permutation import Permutation
from charlm.data.windows import Windows
from charlm.fast.capture import Captured, Step
from charlm.fast.devices import widest
from charlm.fast.running import Runner, mean_over_members, summed_loss, unchanged
from charlm.training.distributed import Group
from charlm.training.optimizers import MovingAverage, bare_step, clip, optimizer_of
from charlm.training.schedulers import Schedule

REPORT_EVERY = 100
"""Batches between calls of `on_batches`, and between checks that the loss is finite."""

NUMBERS_AT_ONCE = 1 << 19
"""Number of tokens and targets to extract from the stream at once, in shuffled order."""

NUMBERS_AT_ONCE_ON_A_GPU = 1 << 25
"""The same on a GPU: more, because shuffling waits for the device."""

ALONE = Group()


@dataclass(frozen=True)
class Epoch:
    """The results of one pass over the training windows.

    Attributes:
        epoch: number of the epoch, from 1.
        train_loss: mean cross-entropy over the training windows, each measured before the update
            with its batch, in nats per character.
        val_loss: mean cross-entropy over the validation windows at the end of the epoch, in nats
            per character.
        lr: learning rate of the last update.
    """

    epoch: int
    train_loss: float
    val_loss: float
    lr: float


class Trainer:
    """Trains a model. Training can be stopped after any batch and resumed.

    The order of the batches and the randomness in the model depend only on `seed`, the epoch and
    the batch: torch's global generator is seeded before each batch, so that no generator state has
    to be saved.

    Several processes can train a model together, each with its own Trainer. Each process computes
    the gradient on a part of each batch, and all take the same step. All must make the same calls.

    Args:
        model: a module that maps contexts (N, T) to logits (N, V).
        train: the training windows. Their targets can be distributions over tokens (N, V).
        val: the validation windows.
        recipe: the training settings.
        seed: determines the order of the batches and the randomness in the model.
        group: the processes that train together.
        fast: False to run the model as plain PyTorch (see `charlm.fast.running.Runner`).
        log: called with a line if the model cannot run on the fast path.

    Attributes:
        history: the finished epochs.
        batches_done: number of finished batches in the current epoch.
    """

    def __init__(
        self,
        model: nn.Module,
        train: Windows,
        val: Windows,
        recipe: Recipe,
        *,
        seed: int,
        group: Group = ALONE,
        fast: bool = True,
        log: Callable[[str], None] = print,
    ) -> None:
        self.model = model
        self.train = train
        self.val = val
        self.recipe = recipe
        self.group = group
        self.seed = seed
        self._parameters = list(model.parameters())
        self.optimizer = optimizer_of(recipe, model)
        self._step = bare_step(self.optimizer)
        self._schedule = Schedule(self.optimizer, recipe, self.batches_per_epoch)
        self._average = MovingAverage(model, recipe.average) if recipe.average else None
        self._best: dict[str, Tensor] = {}
        self.history: list[Epoch] = []
        self.batches_done = 0
        self.runner = Runner(model, fast, log)
        self._validated = Runner(self._average.model, fast, log) if self._average else self.runner
        self._update: Step = self._take_step
        # Sum of the losses in this process's part of the epoch. Reading it waits for the device.
        device = train.starts.device
        cpu = device.type == "cpu"  # torch.manual_seed is slow, because it also looks for GPUs
        self._seed_generators = torch.default_generator.manual_seed if cpu else torch.manual_seed
        self._total = torch.zeros((), dtype=widest(device), device=device)
        self._total_as_float = 0.0

    @property
    def batches_per_epoch(self) -> int:
        return -(-len(self.train) // self.recipe.batch_size)

    @property
    def lr(self) -> float:
        """The learning rate of the last update."""
        rate: float = self.optimizer.param_groups[0]["lr"]
        return rate

    @property
    def best_epoch(self) -> int:
        """The first epoch with the lowest validation loss."""
        return min(self.history, key=lambda epoch: epoch.val_loss).epoch

    @property
    def out_of_patience(self) -> bool:
        """Whether the validation loss has not improved for `patience` epochs."""
        patience = self.recipe.patience
        return bool(patience and self.history and len(self.history) - self.best_epoch >= patience)

    def run(
        self, epochs: int, on_batches: Callable[[int], None] = lambda count: None
    ) -> Iterator[Epoch]:
        """Train until `epochs` epochs are done in total, or patience runs out; yield each epoch.

        Args:
            epochs: the total number of epochs, at most the recipe's.
            on_batches: called every `REPORT_EVERY` batches with the number of batches since the
                last call. It can call `state_dict`.

        Raises:
            InputError: the loss is not finite. On a CPU, this is detected within `REPORT_EVERY`
                batches, before `on_batches` is called; on a GPU, at the end of the epoch.
        """
        gc.freeze()  # otherwise each garbage collection scans all objects of torch
        self.choose_path()
        for number in range(len(self.history) + 1, epochs + 1):
            if self.out_of_patience:
                break
            self._train_epoch(number, on_batches)
            train_loss = self._total_of_all().item() / len(self.train)
            self._seed_model(self._key_of(number, self.batches_per_epoch))
            for runner in (self.runner, self._validated):
                self.group.broadcast_buffers(runner.model)
            val_loss = self.group.sum(summed_loss(self._validated, self.group.shard_of(self.val)))
            epoch = Epoch(number, train_loss, val_loss.item() / len(self.val), self.lr)
            self._refuse_unless_finite(number, epoch.train_loss + epoch.val_loss)
            self.history.append(epoch)
            self._schedule.epoch_done(epoch.val_loss)
            if self.recipe.keep == "best" and self.best_epoch == number:
                self._best = copy.deepcopy(self._validated.model.state_dict())
            self.batches_done = 0
            self._total.zero_()
            yield epoch

    def _train_epoch(self, number: int, on_batches: Callable[[int], None]) -> None:
        """Train on the remaining batches of an epoch, in random order."""
        self.model.train()
        # Computed all at once, because one by one between the steps takes ten times as long.
        keys = [self._key_of(number, batch) for batch in range(self.batches_per_epoch)]
        for contexts, targets, count in self._batches(self._order(number)):
            done = self.batches_done
            if self._schedule.by_batch and (number, done) != (1, 0):
                self._schedule.batch_done()
            self._seed_model(keys[done])
            self._update(contexts, targets, count)
            done = self.batches_done = done + 1
            if self._average:
                self._average.update((number - 1) * self.batches_per_epoch + done)
            if done % REPORT_EVERY == 0 or done == self.batches_per_epoch:
                if self._total.device.type == "cpu":  # on a GPU this would wait for the device
                    self._refuse_unless_finite(number, self._total_of_all().item())
                on_batches((done - 1) % REPORT_EVERY + 1)

    def _take_step(self, contexts: Tensor, targets: Tensor, count: int) -> None:
        """Take a step on this process's part of a batch of `count` windows."""
        for parameter in self._parameters:
            parameter.grad = None
        with self.runner:  # makes matrix products portable
            logits = self.runner(contexts, self._key, targets)
            loss = mean_over_members(logits, lambda out: self.summed_loss(out, contexts, targets))
            (loss / count).backward()
        self.group.sum_gradients(self._parameters)
        clip(self._parameters, self.recipe.clip_norm)
        self._step()
        self._add_to_total(loss)

    def summed_loss(self, logits: Any, contexts: Tensor, targets: Tensor) -> Any:
        """Return the summed loss of a batch: logits (N, V), contexts (N, T) and targets (N,).

        Override this to minimize another loss. The logits are a tensor, or
        `charlm.fast.rows.Rows`, which `dense()` converts to a tensor.
        """
        return F.cross_entropy(logits, targets, reduction="sum")

    def _key_of(self, epoch: int, batch: int) -> int:
        """Return the seed of the randomness in the model, different for each batch and process."""
        return derive_seed(self.seed, f"dropout/{epoch}/{batch}/{self.group.rank}")

    def _seed_model(self, key: int) -> None:
        self._key = key
        self._seed_generators(key)

    def choose_path(self) -> None:
        """Choose the fast or the plain path on the first batch, unless a resumed state did."""
        if not self.runner.path:
            contexts, targets, _ = next(self._batches(self._order(1)))
            self.model.train()
            self._seed_model(self._key_of(0, 0))
            self.runner.check(contexts, targets)
            self.runner.load_state_dict(self.group.broadcast(self.runner.state_dict()))
        self._validated.load_state_dict(self.runner.state_dict())
        captured = isinstance(self._update, Captured)
        if self._total.device.type == "cuda" and not captured and self._same_every_step():
            self._update = Captured(self._take_step)

    def check_last_batch(self) -> None:
        """Raise InputError if the model fails on the last batch of an epoch, but not on others.

        For example, BatchNorm fails on a batch with a single window.
        """
        last = len(self.train) % self.recipe.batch_size
        contexts, _, _ = next(self._batches(self._order(1)))
        own = contexts[: len(range(self.group.rank, last, self.group.size))].long()
        if not len(own):
            return
        with unchanged(self.model), torch.no_grad():
            self.model.train()(contexts.long())
            try:
                self.model(own)
            except Exception as error:
                raise InputError(
                    f"the model fails on the last batch of an epoch, whose size is {last} "
                    f"({error}); change batch_size by one"
                ) from None

    def _same_every_step(self) -> bool:
        """Return whether a step can be captured, because only the batch differs between steps."""
        recipe = self.recipe
        alike = recipe == Recipe(lr=recipe.lr, batch_size=recipe.batch_size, epochs=recipe.epochs)
        contexts, _, _ = next(self._batches(self._order(1)))
        return alike and self.group.size == 1 and self.runner.is_capturable(contexts)

    def _order(self, epoch: int) -> Permutation:
        return Permutation(len(self.train), derive_seed(self.seed, f"shuffle/{epoch}"))

    def _batches(self, order: Permutation) -> Iterator[tuple[Tensor, Tensor, int]]:
        """Yield the remaining batches of an epoch.

        A batch is this process's part of the contexts (n, T) and of the targets (n,), and the
        number of targets in all processes together.
        """
        size, device = self.recipe.batch_size, self._total.device
        numbers = NUMBERS_AT_ONCE if device.type == "cpu" else NUMBERS_AT_ONCE_ON_A_GPU
        chunk = max(1, numbers // self.train.numbers // size) * size  # of whole batches
        for start in range(self.batches_done * size, len(self.train), chunk):
            end = min(start + chunk, len(self.train))
            places = torch.arange(start, end, device=device)
            if device.type == "cpu":  # NumPy is twice as fast
                indices = torch.from_numpy(order(places.numpy()))
            else:
                indices = order(places)
            every = self.train.batch(indices)
            for contexts, targets in zip(*(torch.split(part, size) for part in every), strict=True):
                yield self.group.shard(contexts), self.group.shard(targets), len(targets)

    def _add_to_total(self, loss: Any) -> None:
        if isinstance(loss, Tensor):
            self._total += loss.detach()
        else:  # adding tensors would take as long as a layer
            self._total_as_float += loss.item()

    def _total_of_all(self) -> Tensor:
        self._total += self._total_as_float
        self._total_as_float = 0.0
        return self.group.sum(self._total)

    def _refuse_unless_finite(self, number: int, loss: float) -> None:
        if math.isfinite(loss):
            return
        stop = f", or stop after epoch {number - 1}" if number > 1 else ""
        raise InputError(
            f"training diverged in epoch {number}: the loss is no longer finite; "
            f"lower the learning rate (now {self.lr:g}){stop}"
        )

    def weights(self) -> dict[str, Tensor]:
        """Return the result of training as a `state_dict` of the model.

        These are the last or the best weights, averaged if the recipe says so.
        """
        if self._best:
            return self._best
        return (self._average.model if self._average else self.model).state_dict()

    def state_dict(self) -> dict[str, Any]:
        """Return the state from which a new Trainer with the same arguments can resume.

        Raises InputError if the loss is not finite, because resuming would be pointless.
        """
        total = self._total_of_all()
        self._refuse_unless_finite(len(self.history) + 1, total.item())
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self._schedule.state_dict(),
            "average": self._average.model.state_dict() if self._average else {},
            "best": self._best,
            "history": [asdict(epoch) for epoch in self.history],
            "batches_done": self.batches_done,
            "total": total,
            "runner": self.runner.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume from a state returned by `state_dict`."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self._schedule.load_state_dict(state["schedule"])
        if self._average:
            self._average.model.load_state_dict(state["average"])
        self._best = state["best"]
        self.history = [Epoch(**epoch) for epoch in state["history"]]
        self.batches_done = state["batches_done"]
        self.runner.load_state_dict(state["runner"])
        if self.group.first:
            self._total.copy_(state["total"])
