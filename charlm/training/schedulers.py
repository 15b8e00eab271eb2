"""Learning rate schedulers of torch, by their names in a recipe."""

from collections.abc import Callable
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LinearLR, OneCycleLR, ReduceLROnPlateau, StepLR

from charlm.core.params import Recipe

BUILDERS: dict[str, Callable[[Optimizer, Recipe, int], Any]] = {
    "lambda": lambda optimizer, recipe, _: LambdaLR(
        optimizer, lambda epoch: recipe.lr_factor if 2 * epoch >= recipe.epochs else 1.0
    ),
    "step": lambda optimizer, recipe, _: StepLR(optimizer, recipe.lr_every, recipe.lr_factor),
    "linear": lambda optimizer, recipe, _: LinearLR(
        optimizer, 1.0, recipe.lr_factor, total_iters=recipe.epochs
    ),
    "plateau": lambda optimizer, recipe, _: ReduceLROnPlateau(
        optimizer, factor=recipe.lr_factor, patience=recipe.lr_every
    ),
    "onecycle": lambda optimizer, recipe, batches: OneCycleLR(
        optimizer,
        recipe.lr,
        total_steps=recipe.epochs * batches,
        pct_start=recipe.warmup,
        cycle_momentum=False,
    ),
}


class Schedule:
    """The schedule of an optimizer's learning rate.

    lambda: multiply by `lr_factor` once, halfway through the epochs.
    step: multiply by `lr_factor` every `lr_every` epochs.
    linear: decrease linearly to `lr_factor` times the initial rate.
    plateau: multiply by `lr_factor` after more than `lr_every` epochs without a lower validation
    loss.
    onecycle: per batch, increase to `lr` during the fraction `warmup` of training, then anneal to
    nearly zero, both along a cosine (Smith and Topin 2018).
    """

    def __init__(self, optimizer: Optimizer, recipe: Recipe, batches_per_epoch: int) -> None:
        build = BUILDERS.get(recipe.scheduler)
        # `bare_step` bypasses `optimizer.step`, and torch would warn that it was not called.
        optimizer._opt_called = True  # type: ignore[attr-defined]
        self._scheduler: Any = build(optimizer, recipe, batches_per_epoch) if build else None
        self.by_batch = recipe.scheduler == "onecycle"
        self._by_loss = recipe.scheduler == "plateau"

    def batch_done(self) -> None:
        """Set the learning rate for the next batch; call it only if `by_batch`."""
        self._scheduler.step()

    def epoch_done(self, val_loss: float) -> None:
        """Set the learning rate for the next epoch."""
        if self._by_loss:
            self._scheduler.step(val_loss)
        elif self._scheduler and not self.by_batch:
            self._scheduler.step()

    def state_dict(self) -> dict[str, Any]:
        state: dict[str, Any] = self._scheduler.state_dict() if self._scheduler else {}
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if self._scheduler:
            self._scheduler.load_state_dict(state)
