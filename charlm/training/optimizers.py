"""Optimizers without torch's overhead, gradient clipping, and averages of the weights.

torch's optimizers import torch's compiler, which takes a second, only to exclude themselves from
compilation. They also record each step for the profiler, which takes longer than the step itself
for models as small as these. Measurements: EXPERIMENTS.md, 2026-11-24 and 2026-11-25.
"""

import copy
import inspect
import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from charlm.core.compiled import Floats
from charlm.core.errors import InputError
from charlm.core.params import Recipe
from charlm.fast import kernels
from charlm.fast.devices import for_numpy

Matrix = TypeVar("Matrix", Tensor, Floats)

for _name in ("add_param_group", "load_state_dict", "state_dict"):
    _method = inspect.unwrap(getattr(Optimizer, _name))
    # torch looks for the excluded method here before it imports the compiler.
    setattr(_method, "__dynamo_disable", _method)


def optimizer_of(recipe: Recipe, model: nn.Module) -> Optimizer:
    """Return the optimizer that a recipe specifies, for all parameters of a model.

    sgd: w -= lr u, with u = momentum u + gradient + weight_decay w.
    adamw: Loshchilov and Hutter (2019), algorithm 2.
    muon: `Muon` for the weights of hidden layers, AdamW for all other parameters.

    Raises InputError if the model has sparse gradients and the recipe is not plain SGD.
    """
    plain = recipe.optimizer == "sgd" and not (recipe.weight_decay or recipe.clip_norm)
    if not plain and any(getattr(module, "sparse", False) for module in model.modules()):
        raise InputError(
            "sparse=True requires optimizer sgd without weight_decay and clip_norm; remove "
            "sparse=True"
        )
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
    """Return all weight matrices except those of the embedding and the output layer."""
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
    """Muon for parameter groups with a momentum, AdamW for all others.

    Muon orthogonalizes the update of SGD with Nesterov momentum (Jordan et al. 2024,
    https://kellerjordan.github.io/posts/muon). The update is scaled to the RMS of AdamW's updates
    (Liu et al. 2025, equation 4), so that both can share a learning rate and a weight decay. This
    equals torch's Muon with `match_rms_adamw`, except that torch multiplies in bfloat16.

    On a CPU, a step of AdamW is one compiled loop. It is ten times as fast as torch's dozen
    operations, and its rounding does not depend on the number of threads.
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
    """Update a parameter with AdamW: Loshchilov and Hutter (2019), algorithm 2."""
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
    _lerp(mean, gradient, 1 - momentum)
    ahead = gradient.clone(memory_format=torch.contiguous_format)
    _lerp(ahead, mean, momentum)
    direction = orthogonal(ahead)
    kept, rate = 1 - lr * group["weight_decay"], lr * 0.2 * max(ahead.shape) ** 0.5
    if for_numpy(parameter):  # single-threaded, so rounding does not depend on the threads
        numbers = parameter.numpy()
        numbers *= np.float32(kept)
        numbers -= np.float32(rate) * direction.numpy()
    else:
        parameter.mul_(kept).add_(direction, alpha=-rate)


def orthogonal(matrix: Tensor) -> Tensor:
    """Return a matrix (A, B) with the same singular vectors, and singular values of 0.7 to 1.2.

    Five steps of the quintic Newton-Schulz iteration of Jordan et al. (2024).
    """
    if for_numpy(matrix):  # NumPy's products give the same bytes on every processor
        return torch.from_numpy(_newton_schulz(matrix.detach().numpy()))
    return _newton_schulz(matrix)


def _newton_schulz(matrix: Matrix) -> Matrix:
    """Orthogonalize a NumPy array or a torch tensor."""
    x: Any = matrix / ((matrix * matrix).sum() ** 0.5 + 1e-7)
    if x.shape[0] > x.shape[1]:
        return _newton_schulz(matrix.T).T
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * (gram @ gram.T)) @ x
    orthogonalized: Matrix = x
    return orthogonalized


def _lerp(tensor: Tensor, target: Tensor, weight: float) -> None:
    """Interpolate a tensor linearly toward a target, in place."""
    if for_numpy(tensor):
        kernels.lerp(*_flat(tensor, target), np.float32(weight))
    else:
        tensor.lerp_(target, weight)


def _flat(*tensors: Tensor) -> list[Floats]:
    """Return each tensor as a flat NumPy array that shares its memory."""
    return [tensor.detach().numpy().reshape(-1) for tensor in tensors]


def clip(parameters: Sequence[nn.Parameter], max_norm: float | None) -> None:
    """Clip the gradient norm of all parameters together to `max_norm`, unless it is None.

    Pascanu et al. (2013), algorithm 1.
    """
    if max_norm is None:
        return
    grads = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if not all(map(for_numpy, grads)):
        torch.nn.utils.clip_grad_norm_(parameters, max_norm)
        return
    gradients = _flat(*grads)
    norm = math.sqrt(sum(float(np.dot(gradient, gradient)) for gradient in gradients))
    if norm > max_norm:
        for gradient in gradients:
            np.multiply(gradient, np.float32(max_norm / norm), out=gradient)


class MovingAverage:
    """An exponential moving average of a model's weights (Polyak and Juditsky 1992).

    The decay at step t is min(decay, (1 + t) / (10 + t)), so that the initial weights are forgotten
    quickly.

    Attributes:
        model: a copy of the model with the averaged weights.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        try:
            self.model = copy.deepcopy(model)
        except Exception as error:
            raise InputError(
                "training.average needs a model that can be copied; do not keep results of forward "
                f"in its attributes ({type(error).__name__}: {error})"
            ) from None
        self._decay = decay
        self._current = model
        self._parameters = list(zip(self.model.parameters(), model.parameters(), strict=True))
        self._has_buffers = any(True for _ in model.buffers())

    @torch.no_grad()
    def update(self, steps: int) -> None:
        """Update the average with the weights after `steps` steps."""
        weight = 1 - min(self._decay, (1 + steps) / (10 + steps))
        pairs: list[tuple[Tensor, Tensor]] = [*self._parameters]
        if self._has_buffers:  # looked up each time, because a model can replace them
            pairs += zip(self.model.buffers(), self._current.buffers(), strict=True)
        for average, current in pairs:
            if average.is_floating_point():
                _lerp(average, current, weight)
            else:  # a counter
                average.copy_(current)


def bare_step(optimizer: Optimizer) -> Callable[[], None]:
    """Return a function that does the same as `optimizer.step()`, without hooks or profiling."""
    step = inspect.unwrap(type(optimizer).step)
    (group, *_) = optimizer.param_groups
    plain = not (group["momentum"] or group["weight_decay"])
    if isinstance(optimizer, torch.optim.SGD) and plain:
        return partial(_plain_sgd, optimizer)

    @torch.no_grad()
    def bare() -> None:
        step(optimizer)

    return bare


def _plain_sgd(optimizer: Optimizer) -> None:
    """Take a step of SGD without momentum for all parameters in one call."""
    (group,) = optimizer.param_groups
    pairs = [(p, grad) for p in group["params"] if (grad := p.grad) is not None]
    with torch.no_grad():
        torch._foreach_add_(*zip(*pairs, strict=True), alpha=-group["lr"])
