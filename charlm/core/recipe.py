"""How a model is trained: what a training stage's parameters come to."""

from dataclasses import dataclass
from typing import Literal

OptimizerName = Literal["sgd", "adamw", "muon"]
SchedulerName = Literal["none", "lambda", "step", "linear", "plateau", "onecycle"]
NormName = Literal["none", "layer"]
InitName = Literal["torch", "xavier", "kaiming"]
Keep = Literal["last", "best"]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All that decides a training beside the model, the data and the seed.

    What has a default here is off, or as the course has it.

    Attributes:
        lr: learning rate; the highest one, where it is scheduled.
        batch_size: windows to a step.
        epochs: passes over the training windows, at most.
        init: which of `charlm.training.initialization`.
        optimizer: which of `charlm.training.optimizers`.
        momentum: of SGD and Muon.
        beta1: the first decay rate of AdamW, of the gradient.
        beta2: the second, of its square.
        weight_decay: of SGD the factor of the L2 penalty's gradient; else the share of a weight
            that is taken off in a step, over the learning rate.
        clip_norm: the length to which a longer gradient, of all parameters together, is cut.
        scheduler: which of `charlm.training.schedulers`.
        lr_factor: what a scheduler multiplies the learning rate by.
        lr_every: epochs between two steps of StepLR, and of ReduceLROnPlateau the epochs without
            a better validation loss that it waits for.
        warmup: the share of a training in which OneCycleLR raises the learning rate.
        keep: whether the weights after the last epoch, or those with the lowest validation loss,
            are what training leaves.
        patience: epochs without a better validation loss after which training stops.
        average: the decay rate of the moving average of the weights that is validated and kept
            in their place; 0 for none.
    """

    lr: float
    batch_size: int
    epochs: int
    init: InitName = "torch"
    optimizer: OptimizerName = "sgd"
    momentum: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.999
    weight_decay: float = 0.0
    clip_norm: float | None = None
    scheduler: SchedulerName = "none"
    lr_factor: float = 0.1
    lr_every: int = 10
    warmup: float = 0.3
    keep: Keep = "last"
    patience: int | None = None
    average: float = 0.0
