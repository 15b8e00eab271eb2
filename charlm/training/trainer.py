"""Training, an epoch at a time."""

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
from charlm.fast.running import Runner, summed_loss
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
    """Trains one model; can be stopped after any batch and resumed.

    The order of the batches, and what is random in the model, come from `seed`, the number of the
    epoch and that of the batch alone, so there is no generator whose state would have to be kept;
    torch's global generator is seeded anew before each batch.

    Several processes may train it together, each with a Trainer of its own: of each batch
    they take a share, and then make the same step. All of them have to do the same calls.

    Args:
        model: any module from contexts (N, T) to logits (N, V).
        fast: False to run the model as plain PyTorch (see `charlm.fast.running.Runner`).
        log: gets a line if the model cannot be run in the fast way.

    Attributes:
        history: the finished epochs.
        batches_done: how many batches of the unfinished epoch are done.
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
        self._parameters = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = optimizer_of(recipe, model)
        self._step = bare_step(self.optimizer)
        self._schedule = Schedule(self.optimizer, recipe, self.batches_per_epoch)
        self._average = MovingAverage(model, recipe.average) if recipe.average else None
        self._best: dict[str, Tensor] = {}
        self.history: list[Epoch] = []
        self.batches_done = 0
        self.runner = Runner(model, fast, log if group.first else lambda line: None)
        self._validated = Runner(self._average.model, fast) if self._average else self.runner
        self._update: Step = self._take_step
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
        self.choose_way()
        for number in range(len(self.history) + 1, epochs + 1):
            if self.out_of_patience:
                break
            self._train_epoch(number, on_batches)
            train_loss = self._total_of_all().item() / len(self.train)
            for runner in (self.runner, self._validated):
                self.group.share_buffers(runner.model)
            val_loss = self.group.sum(summed_loss(self._validated, self.group.share_of(self.val)))
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
        """What is left of one pass over the training windows in random order."""
        self.model.train()
        for contexts, targets, count in self._batches(self._order(number)):
            done = self.batches_done
            if self._schedule.by_batch and (number, done) != (1, 0):
                self._schedule.batch_done()
            self._seed_batch(number, done)
            self._update(contexts, targets, count)
            done = self.batches_done = done + 1
            if self._average:
                self._average.update((number - 1) * self.batches_per_epoch + done)
            if done % REPORT_EVERY == 0 or done == self.batches_per_epoch:
                if self._total.device.type == "cpu":  # a GPU would be waited for
                    self._refuse_unless_finite(number, self._total_of_all().item())
                on_batches((done - 1) % REPORT_EVERY + 1)

    def _take_step(self, contexts: Tensor, targets: Tensor, count: int) -> None:
        """Make a step on this process's share of a batch of `count` windows."""
        for parameter in self._parameters:
            parameter.grad = None
        with self.runner.products():
            logits = self.runner(contexts, self._key)
            loss = self.summed_loss(logits, contexts, targets)
            (loss / count).backward()
        self.group.sum_gradients(self._parameters)
        clip(self._parameters, self.recipe.clip_norm)
        self._step()
        self._total += loss.detach()

    def summed_loss(self, logits: Any, contexts: Tensor, targets: Tensor) -> Any:
        """Compute the loss of a batch in sum, from logits (N, V) of contexts (N, T).

        A subclass may lower another loss than that of the targets (N,); the logits are a tensor,
        or `charlm.fast.rows.Rows`, whose `dense()` is one.
        """
        return F.cross_entropy(logits, targets, reduction="sum")

    def _seed_batch(self, epoch: int, batch: int) -> None:
        """Let what is random in the model depend on the seed, the epoch and the batch alone."""
        self._key = derive_seed(self.seed, f"dropout/{epoch}/{batch}/{self.group.rank}")
        if self._total.device.type == "cpu":
            torch.default_generator.manual_seed(self._key)
        else:
            torch.manual_seed(self._key)

    def choose_way(self) -> None:
        """Decide how the model is run, on the first batch, unless a resumed state has decided."""
        if self.runner.fast is None:
            contexts, targets, _ = next(self._batches(self._order(1)))
            self.model.train()
            self.runner.check(contexts, targets)
            self.runner.fast = self.group.from_first(self.runner.fast)
        self._validated.fast = self.runner.fast
        if self._total.device.type == "cuda" and self._same_every_step():
            self._update = Captured(self._take_step)

    def _same_every_step(self) -> bool:
        """Whether a step can be recorded and repeated: nothing changes but the batch."""
        recipe = self.recipe
        alike = recipe == Recipe(lr=recipe.lr, batch_size=recipe.batch_size, epochs=recipe.epochs)
        contexts, _, _ = next(self._batches(self._order(1)))
        return alike and self.group.size == 1 and self.runner.repeats(contexts)

    def _order(self, epoch: int) -> Permutation:
        return Permutation(len(self.train), derive_seed(self.seed, f"shuffle/{epoch}"))

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
            "fast": self.runner.fast,
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
        self.runner.fast = state["fast"]
        if self.group.first:
            self._total.copy_(state["total"])
