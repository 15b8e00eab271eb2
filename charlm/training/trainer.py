"""Training, an epoch at a time."""

import copy
import gc
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from charlm.core.errors import InputError
from charlm.core.randomness import derive_seed
from charlm.core.recipe import Recipe
from charlm.data.permutation import Permutation
from charlm.data.windows import Windows
from charlm.fast.capture import Captured
from charlm.fast.devices import widest
from charlm.fast.dropout import drop_by, dropouts_of
from charlm.fast.gradients import TreeGradients
from charlm.fast.losses import Loss, cross_entropy_loss, summed_loss
from charlm.models.base import LanguageModel
from charlm.training.distributed import Group
from charlm.training.optimizers import MovingAverage, bare_step, clip, optimizer_of
from charlm.training.schedulers import Schedule

REPORT_EVERY = 100
"""Batches between two reports to `on_batches`, and two looks at whether the loss is finite."""

AT_ONCE = 64
"""Batches cut out of the stream at a time, which costs little more than one."""

AT_ONCE_ON_GPU = 1 << 22
"""Windows cut out at a time there, of about 80 bytes each."""

ALONE = Group()


@dataclass(frozen=True)
class Epoch:
    """What one pass over the training windows came to.

    Attributes:
        epoch: its number, from 1.
        train_loss: mean cross-entropy over its batches, each taken before its own
            update, in nats per character.
        val_loss: mean cross-entropy over the validation windows after its last
            update, in nats per character.
        lr: learning rate of its last update.
    """

    epoch: int
    train_loss: float
    val_loss: float
    lr: float


class Trainer:
    """Trains one model; can be stopped after any batch and taken up again.

    The order of the batches comes from `seed` and the number of the epoch alone,
    so there is no generator whose state would have to be kept.

    Several processes may train it together, each with a Trainer of its own: of each batch
    they take a share, and then make the same step. All of them have to do the same calls.

    Args:
        loss: what it lowers; the losses of `history` are cross-entropy on validation, whatever it
            is, and this one on training.

    Attributes:
        history: the finished epochs.
        batches_done: how many batches of the unfinished epoch are done.
    """

    def __init__(
        self,
        model: LanguageModel,
        train: Windows,
        val: Windows,
        recipe: Recipe,
        *,
        seed: int,
        group: Group = ALONE,
        loss: Loss = cross_entropy_loss,
    ) -> None:
        self.model = model
        self.train = train
        self.val = val
        self.recipe = recipe
        self.group = group
        self.seed = seed
        self.loss = loss
        self._parameters = list(model.parameters())
        self.optimizer = optimizer_of(recipe, model)
        self._step = bare_step(self.optimizer)
        self._schedule = Schedule(self.optimizer, recipe, self.batches_per_epoch)
        self._average = MovingAverage(model, recipe.average) if recipe.average else None
        self._best: dict[str, Tensor] = {}
        self._dropouts = dropouts_of(model)
        self.history: list[Epoch] = []
        self.batches_done = 0
        self._parallel = group.wrap(model)
        written_out = loss is cross_entropy_loss and group.size == 1 and TreeGradients.suit(model)
        self._gradients: Callable[[Tensor, Tensor, float], Tensor] = (
            TreeGradients(model) if written_out else self._backward
        )
        # A recording repeats what it once did: nothing that changes from step to step is in one.
        alike = recipe == Recipe(lr=recipe.lr, batch_size=recipe.batch_size, epochs=recipe.epochs)
        recorded = alike and not self._dropouts and group.size == 1
        on_gpu = model.embedding.weight.device.type == "cuda"
        self._update = Captured(self._take_step) if on_gpu and recorded else self._take_step
        # Of this process's share their losses in sum, read now and then only: reading waits
        # for the device.
        device = train.starts.device
        self._total = torch.zeros((), dtype=widest(device), device=device)

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
        """The number of the epoch with the lowest validation loss, the first one of equals."""
        return min(self.history, key=lambda epoch: epoch.val_loss).epoch

    @property
    def out_of_patience(self) -> bool:
        """Whether the validation loss has not become better for so long that training stops."""
        patience = self.recipe.patience
        return bool(patience and self.history and len(self.history) - self.best_epoch >= patience)

    def run(
        self, epochs: int, on_batches: Callable[[int], None] = lambda count: None
    ) -> Iterator[Epoch]:
        """Go on until `epochs` are done in all, or patience is over, yielding each as it ends.

        Args:
            epochs: the number of epochs at which to stop, at most the recipe's.
            on_batches: called now and then with the number of batches done since;
                `state_dict` may be called then, in the midst of an epoch.

        Raises:
            InputError: the loss is no longer a finite number. On a CPU found at the
                latest `REPORT_EVERY` batches later, and before `on_batches` is called
                again; on a GPU at the end of the epoch.
        """
        gc.freeze()  # or Python looks through all that torch has defined every few hundred steps
        validated = self._average.model if self._average else self.model
        for number in range(len(self.history) + 1, epochs + 1):
            if self.out_of_patience:
                break
            self._train_epoch(number, on_batches)
            train_loss = self._total_of_all().item() / len(self.train)
            val_loss = self.group.sum(summed_loss(validated, self.group.share_of(self.val)))
            epoch = Epoch(number, train_loss, val_loss.item() / len(self.val), self.lr)
            self._refuse_unless_finite(number, epoch.train_loss + epoch.val_loss)
            self.history.append(epoch)
            self._schedule.epoch_done(epoch.val_loss)
            if self.recipe.keep == "best" and self.best_epoch == number:
                self._best = copy.deepcopy(validated.state_dict())
            self.batches_done = 0
            self._total.zero_()
            yield epoch

    def _train_epoch(self, number: int, on_batches: Callable[[int], None]) -> None:
        """What is left of one pass over the training windows in random order."""
        order = Permutation(len(self.train), derive_seed(self.seed, f"shuffle/{number}"))
        self.model.train()
        for contexts, targets, count in self._batches(order):
            done = self.batches_done
            if self._schedule.by_batch and (number, done) != (1, 0):
                self._schedule.batch_done()
            if self._dropouts:
                key = derive_seed(self.seed, f"dropout/{number}/{done}")
                drop_by(self._dropouts, key, self.group.rank)
                if self._total.device.type != "cpu":  # which drops by a generator of its own
                    torch.manual_seed(key + self.group.rank)
            self._update(contexts, targets, count)
            done = self.batches_done = done + 1
            if self._average:
                self._average.update((number - 1) * self.batches_per_epoch + done)
            if done % REPORT_EVERY == 0 or done == self.batches_per_epoch:
                if self._total.device.type == "cpu":  # a GPU would be waited for
                    self._refuse_unless_finite(number, self._total_of_all().item())
                on_batches((done - 1) % REPORT_EVERY + 1)

    def _take_step(self, contexts: Tensor, targets: Tensor, count: int) -> None:
        """A step of the optimizer by this process's share of a batch of `count` windows."""
        # The mean over the processes is then the gradient of the batch's mean loss.
        self._total += self._gradients(contexts, targets, self.group.size / count)
        if self.recipe.clip_norm:
            clip(self._parameters, self.recipe.clip_norm)
        self._step()

    def _backward(self, contexts: Tensor, targets: Tensor, of_each: float) -> Tensor:
        """The losses in sum, and the gradients where each of the losses counts `of_each`."""
        shared = self.model.share(contexts)
        loss = self.loss(self._parallel(shared), shared, contexts, targets)
        for parameter in self._parameters:
            parameter.grad = None
        loss.backward(loss.new_full((), of_each))  # type: ignore[no-untyped-call]
        return loss.detach()

    def _batches(self, order: Permutation) -> Iterator[tuple[Tensor, Tensor, int]]:
        """The batches of an epoch that are still to do.

        Yields this process's share of the contexts (n, T) and of the targets (n,), and how many
        targets all processes together have.
        """
        size, device = self.recipe.batch_size, self._total.device
        # A GPU works out as much of the order as its memory has room for: it is waited for then.
        at_once = size * (AT_ONCE if device.type == "cpu" else max(1, AT_ONCE_ON_GPU // size))
        for start in range(self.batches_done * size, len(self.train), at_once):
            end = min(start + at_once, len(self.train))
            numbers = torch.arange(start, end, device=device)
            if device.type == "cpu":  # by NumPy, in half the time
                places = torch.from_numpy(order(numbers.numpy()))
            else:
                places = order(numbers)
            every = self.train.batch(places)
            for contexts, targets in zip(*(torch.split(part, size) for part in every), strict=True):
                yield self.group.share(contexts), self.group.share(targets), len(targets)

    def _total_of_all(self) -> Tensor:
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
        """What training leaves, as the model's `state_dict`: the last ones or the best, averages
        where there are any."""
        if self._best:
            return self._best
        return (self._average.model if self._average else self.model).state_dict()

    def state_dict(self) -> dict[str, Any]:
        """All that a new Trainer, built from the same arguments, needs to go on.

        Raises InputError where the loss is no longer finite: nobody could go on from there.
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
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up the state that `state_dict` returned."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self._schedule.load_state_dict(state["schedule"])
        if self._average:
            self._average.model.load_state_dict(state["average"])
        self._best = state["best"]
        self.history = [Epoch(**epoch) for epoch in state["history"]]
        self.batches_done = state["batches_done"]
        if self.group.first:
            self._total.copy_(state["total"])
