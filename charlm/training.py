"""Training by stochastic gradient descent, an epoch at a time."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F

from charlm.corpus import Windows
from charlm.errors import InputError
from charlm.losses import mean_loss
from charlm.models.base import LanguageModel
from charlm.randomness import generator

REPORT_EVERY = 100
"""Batches between two reports to `on_batches`."""


@dataclass(frozen=True)
class Epoch:
    """What one pass over the training windows came to.

    Attributes:
        epoch: its number, from 1.
        train_loss: mean cross-entropy over its batches, each taken before its own
            update, in nats per character.
        val_loss: mean cross-entropy over the validation windows after its last
            update, in nats per character.
    """

    epoch: int
    train_loss: float
    val_loss: float


class Trainer:
    """Trains one model; can be stopped after any epoch and taken up again.

    The order of the batches comes from `seed` and the number of the epoch alone,
    so there is no generator whose state would have to be kept.
    """

    def __init__(
        self,
        model: LanguageModel,
        train: Windows,
        val: Windows,
        *,
        lr: float,
        batch_size: int,
        seed: int,
    ) -> None:
        self.model = model
        self.train = train
        self.val = val
        self.batch_size = batch_size
        self.seed = seed
        self.optimizer = torch.optim.SGD(model.parameters(), lr=lr)
        self.history: list[Epoch] = []

    @property
    def batches_per_epoch(self) -> int:
        return -(-len(self.train) // self.batch_size)

    def run(
        self, epochs: int, on_batches: Callable[[int], None] = lambda count: None
    ) -> Iterator[Epoch]:
        """Go on until `epochs` epochs are done in all, yielding each as it ends.

        Args:
            epochs: the number of epochs at which to stop.
            on_batches: called now and then with the number of batches done since.

        Raises:
            InputError: the loss is no longer a finite number.
        """
        for number in range(len(self.history) + 1, epochs + 1):
            train_loss = self._train_epoch(number, on_batches)
            epoch = Epoch(number, train_loss, mean_loss(self.model, self.val))
            if not (torch.tensor([epoch.train_loss, epoch.val_loss]).isfinite().all()):
                lr = self.optimizer.param_groups[0]["lr"]
                raise InputError(
                    f"training diverged in epoch {number}: the loss is no longer finite; "
                    f"lower the learning rate (now {lr:g})"
                )
            self.history.append(epoch)
            yield epoch

    def _train_epoch(self, number: int, on_batches: Callable[[int], None]) -> float:
        """One pass over the training windows in random order; the mean loss on the way."""
        device = self.train.starts.device
        shuffle = generator(self.seed, f"shuffle/{number}")
        order = torch.randperm(len(self.train), generator=shuffle).to(device)
        total = torch.zeros((), device=device)  # read once an epoch: reading waits for the device
        self.model.train()
        for step, index in enumerate(torch.split(order, self.batch_size), start=1):
            contexts, targets = self.train.batch(index)  # (N, T), (N,)
            loss = F.cross_entropy(self.model(contexts), targets)
            self.optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            total += loss.detach() * len(index)
            if step % REPORT_EVERY == 0:
                on_batches(REPORT_EVERY)
        on_batches(self.batches_per_epoch % REPORT_EVERY)
        return total.item() / len(self.train)

    def state_dict(self) -> dict[str, Any]:
        """All that a new Trainer, built from the same arguments, needs to go on."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "history": [asdict(epoch) for epoch in self.history],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up the state that `state_dict` returned."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.history = [Epoch(**epoch) for epoch in state["history"]]
