"""torch's optimizers, without what torch wraps around them.

Their methods import torch's compiler, to tell it that they are not to be compiled; that takes a
second, in a program that compiles nothing. And each step is recorded for a profiler, which takes
longer than a step of models as small as these. Measured gain: EXPERIMENTS.md, 2026-11-24 and
2026-11-25.
"""

import inspect
from collections.abc import Callable, Iterable

import torch
from torch.optim import Optimizer

for _name in ("add_param_group", "load_state_dict", "state_dict"):
    _method = inspect.unwrap(getattr(Optimizer, _name))
    # Where torch looks for the method as the compiler has marked it, before it imports that.
    setattr(_method, "__dynamo_disable", _method)


def sgd(parameters: Iterable[torch.nn.Parameter], lr: float) -> Optimizer:
    """Stochastic gradient descent: each step takes `lr` times the gradient off each parameter."""
    return torch.optim.SGD(parameters, lr=lr, foreach=False)


def bare_step(optimizer: Optimizer) -> Callable[[], None]:
    """A function that does what `optimizer.step()` does, and calls no hooks."""
    step = inspect.unwrap(type(optimizer).step)

    @torch.no_grad()
    def bare() -> None:
        step(optimizer)

    return bare
