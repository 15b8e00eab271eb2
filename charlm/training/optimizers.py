"""Optimizers: torch's, without what torch wraps around them.

Their methods import torch's compiler, to tell it that they are not to be compiled; that takes a
second, in a program that compiles nothing. And each step is recorded for a profiler, which takes
longer than a step of models as small as these. Measured gain: EXPERIMENTS.md, 2026-11-24 and
2026-11-25.
"""

import copy
import inspect
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from charlm.core.compiled import Floats
from charlm.core.params import Recipe
from charlm.fast import kernels
from charlm.fast.devices import for_numpy

Matrix = TypeVar("Matrix", Tensor, Floats)

for _name in ("add_param_group", "load_state_dict", "state_dict"):
    _method = inspect.unwrap(getattr(Optimizer, _name))
    # Where torch looks for the method as the compiler has marked it, before it imports that.
    setattr(_method, "__dynamo_disable", _method)


def optimizer_of(recipe: Recipe, model: nn.Module) -> Optimizer:
    """The optimizer that a recipe names, for all parameters of a model.

    sgd: stochastic gradient descent, w -= lr u with u = momentum u + gradient + weight_decay w.
    adamw: Loshchilov and Hutter (2019), algorithm 2.
    muon: `Muon` for the weights of the hidden layers, AdamW for the rest.
    """
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(
            model.parameters(),
            lr=recipe.lr,
            momentum=recipe.momentum,
            weight_decay=recipe.weight_decay,
            foreach=False,
        )
    hidden = hidden_matrices(model) if recipe.optimizer == "muon" else []
    others = [p for p in model.parameters() if all(p is not matrix for matrix in hidden)]
    groups: list[dict[str, Any]] = [{"params": others}]
    groups += ({"params": [matrix], "momentum": recipe.momentum} for matrix in hidden)
    return Muon(
        groups,
        lr=recipe.lr,
        betas=(recipe.beta1, recipe.beta2),
        weight_decay=recipe.weight_decay,
    )


def hidden_matrices(model: nn.Module) -> list[nn.Parameter]:
    """The matrices between two hidden layers: neither an embedding nor what makes the logits."""
    embeddings = [m.weight for m in model.modules() if isinstance(m, nn.Embedding)]
    vocabulary = embeddings[0].shape[0] if embeddings else 0
    return [
        parameter
        for parameter in model.parameters()
        if parameter.dim() == 2
        and len(parameter) != vocabulary
        and all(parameter is not embedding for embedding in embeddings)
    ]


class Muon(Optimizer):
    """AdamW; and for the groups that have a momentum, momentum whose steps are made orthogonal.

    Jordan et al. (2024), https://kellerjordan.github.io/posts/muon, with Nesterov's momentum. A
    step is as large as one of AdamW's (Liu et al. 2025, equation 4), so that one learning rate and
    one weight decay do for both. As torch's Muon with `match_rms_adamw`, which multiplies in
    bfloat16.

    On a CPU a step of AdamW is one loop, which takes a tenth of the time of torch's dozen
    operations, and rounds the same for any number of threads.
    """

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        weight_decay: float = 0.0,
        eps: float = 1e-8,
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "weight_decay": weight_decay, "eps": eps}
        super().__init__(groups, {"momentum": None, **defaults})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            update = _adamw if group["momentum"] is None else _muon
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                update(parameter, self.state[parameter], group)


def _adamw(parameter: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
    """Loshchilov and Hutter (2019), algorithm 2, for one parameter."""
    gradient = parameter.grad
    assert gradient is not None
    if not state:
        state["step"] = torch.tensor(0.0)
        state["exp_avg"] = torch.zeros_like(parameter)
        state["exp_avg_sq"] = torch.zeros_like(parameter)
    state["step"] += 1
    mean, square, steps = state["exp_avg"], state["exp_avg_sq"], state["step"].item()
    lr, (beta1, beta2), epsilon = group["lr"], group["betas"], group["eps"]
    kept = 1 - lr * group["weight_decay"]
    rate, scale = lr / (1 - beta1**steps), (1 - beta2**steps) ** 0.5
    if for_numpy(parameter):
        numbers = [beta1, beta2, 1 - beta1, 1 - beta2, kept, rate, scale, epsilon]
        kernels.adamw(*_flat(parameter, gradient, mean, square), *map(np.float32, numbers))
    else:
        mean.lerp_(gradient, 1 - beta1)
        square.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        parameter.mul_(kept).addcdiv_(mean, square.sqrt().div_(scale).add_(epsilon), value=-rate)


def _muon(parameter: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
    gradient = parameter.grad
    assert gradient is not None
    if not state:
        state["momentum_buffer"] = torch.zeros_like(parameter)
    mean, momentum, lr = state["momentum_buffer"], group["momentum"], group["lr"]
    _move(mean, gradient, 1 - momentum)
    ahead = gradient.clone(memory_format=torch.contiguous_format)
    _move(ahead, mean, momentum)
    direction = orthogonal(ahead)
    kept, rate = 1 - lr * group["weight_decay"], lr * 0.2 * max(ahead.shape) ** 0.5
    if for_numpy(parameter):  # in passes that threads do not share, as theirs may round otherwise
        numbers = parameter.numpy()
        numbers *= np.float32(kept)
        numbers -= np.float32(rate) * direction.numpy()
    else:
        parameter.mul_(kept).add_(direction, alpha=-rate)


def orthogonal(matrix: Tensor) -> Tensor:
    """A matrix (A, B) with the same singular vectors and singular values near one, 0.7 to 1.2.

    By five steps of the quintic Newton-Schulz iteration of Jordan et al. (2024).
    """
    if for_numpy(matrix):  # whose products are the same on every processor
        return torch.from_numpy(_newton_schulz(matrix.detach().numpy()))
    return _newton_schulz(matrix)


def _newton_schulz(matrix: Matrix) -> Matrix:
    """Of NumPy's arrays or of torch's tensors."""
    x: Any = matrix / ((matrix * matrix).sum() ** 0.5 + 1e-7)
    if x.shape[0] > x.shape[1]:
        return _newton_schulz(matrix.T).T
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * (gram @ gram.T)) @ x
    orthogonalised: Matrix = x
    return orthogonalised


def _move(tensor: Tensor, target: Tensor, share: float) -> None:
    """Move a tensor's numbers in place by a share of their way to the target's."""
    if for_numpy(tensor):
        kernels.move(*_flat(tensor, target), np.float32(share))
    else:
        tensor.lerp_(target, share)


def _flat(*tensors: Tensor) -> list[Floats]:
    """The numbers of each, where they are, in one row."""
    return [tensor.detach().numpy().reshape(-1) for tensor in tensors]


def clip(parameters: Sequence[nn.Parameter], longest: float | None) -> None:
    """Shorten the gradient, of all parameters together, to a length of `longest` at most.

    Pascanu et al. (2013), algorithm 1. None leaves it as it is.
    """
    if longest is None:
        return
    every = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if not all(map(for_numpy, every)):
        torch.nn.utils.clip_grad_norm_(parameters, longest)
        return
    gradients = _flat(*every)
    length = math.sqrt(sum(float(np.dot(gradient, gradient)) for gradient in gradients))
    if length > longest:
        for gradient in gradients:
            np.multiply(gradient, np.float32(longest / length), out=gradient)


class MovingAverage:
    """A model whose weights are the moving average of another's (Polyak and Juditsky 1992).

    After t steps the average moves by 1 - min(decay, (1 + t) / (10 + t)) of its way to the
    weights, so that it forgets the first ones.

    Attributes:
        model: the one with the averages.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = copy.deepcopy(model)
        self._decay = decay
        self._pairs = list(zip(_numbers(self.model), _numbers(model), strict=True))

    @torch.no_grad()
    def update(self, steps: int) -> None:
        """Take in the weights after so many steps."""
        share = 1 - min(self._decay, (1 + steps) / (10 + steps))
        for average, current in self._pairs:
            if average.is_floating_point():
                _move(average, current, share)
            else:  # a counter
                average.copy_(current)


def _numbers(model: nn.Module) -> list[Tensor]:
    """The parameters and the buffers of a model."""
    return [*model.parameters(), *model.buffers()]


def bare_step(optimizer: Optimizer) -> Callable[[], None]:
    """A function that does what `optimizer.step()` does, and calls no hooks."""
    step = inspect.unwrap(type(optimizer).step)

    @torch.no_grad()
    def bare() -> None:
        step(optimizer)

    return bare
