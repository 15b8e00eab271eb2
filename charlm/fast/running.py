"""Run a model on batches: on distinct rows if the results are the same, else as plain PyTorch.

N batch, T context length, V vocabulary, W windows.
"""

import copy
import inspect
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
import torch._functorch.utils as functorch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from charlm.core.errors import is_out_of_memory
from charlm.data.windows import Windows
from charlm.fast import ngrams, rules  # noqa: F401  fill RULES
from charlm.fast.devices import widest
from charlm.fast.products import PortableProducts
from charlm.fast.rows import Contexts, Leaves, NoRuleError, Rows, StandIn

CHUNK = 4096
"""Windows per forward pass without gradients, to limit memory."""

CHECKED = 256
"""Number of contexts on which to compare the fast and the plain path."""

SLOWER = "2 to 5"
"""Slowdown of a step as plain PyTorch, measured by `benchmarks.steps`."""

GRADIENT = "a different gradient of "

LOSS_TOLERANCE = 1e-5
GRADIENT_TOLERANCE = 1e-3
"""Differences that rounding can cause: in the loss, and relative to the norm of a gradient."""


@dataclass(frozen=True)
class ExecutionPath:
    """How a model runs, determined on the first batch.

    Attributes:
        fast: whether it runs on distinct rows.
        mixed: whether torch can compute weights from other weights on the fast path.
    """

    fast: bool
    mixed: bool = True


PLAIN = ExecutionPath(fast=False)


class Runner:
    """Runs a model on batches of contexts, on the fast path if its results are correct.

    On a CPU, the fast path runs the model itself, but on `Contexts` instead of a tensor, so that
    each distinct row is computed once. The first batch is compared with plain PyTorch. If the
    results differ by more than rounding, or the model calls a function without a rule, the model
    runs as plain PyTorch from then on. On both paths, matrix products give the same bytes on every
    x86-64 processor.

    Args:
        model: a module that maps contexts (N, T) to logits (N, V).
        fast: False to run the model as plain PyTorch.
        log: called with a line if the model cannot run on the fast path on a CPU.

    Attributes:
        path: how the model runs; None before the first batch.
    """

    def __init__(
        self,
        model: nn.Module,
        fast: bool = True,
        log: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.model = model
        on_cpu = all(
            p.device.type == "cpu" and p.dtype == torch.float32 for p in model.parameters()
        )
        self.path: ExecutionPath | None = None if fast and on_cpu else PLAIN
        self.leaves_out = takes_targets(model)
        self.log = log
        self._has_buffers = any(True for _ in model.buffers())
        self._products: AbstractContextManager[Any] = nullcontext()
        self._leaves: Leaves = {}

    @property
    def device(self) -> torch.device:
        """The device of the model."""
        return next((p.device for p in self.model.parameters()), torch.device("cpu"))

    def __call__(
        self, contexts: Tensor, key: int | None = None, targets: Tensor | None = None
    ) -> Any:
        """Return logits (N, V) of contexts (N, T), as a tensor or as `Rows`.

        Call this only inside `with runner:`.

        Args:
            contexts: (N, T) tokens.
            key: 63-bit seed for dropout on the fast path; None to disable dropout there.
            targets: (N,) the targets, for a model that leaves each window out of its counts in
                training.
        """
        also = [targets] if self.leaves_out and targets is not None else []
        if (self.path or self.check(contexts)).fast:
            before = _copied_buffers(self.model) if self._has_buffers else []
            try:
                return self.model(Contexts(contexts, key, self._leaves), *also)
            except Exception as error:  # in a branch not taken on the first batch
                self._give_up(_reason(error))
                _restore(before)
                self.__exit__(None, None, None)
                self.__enter__()
        return self.model(contexts.long(), *also)

    def state_dict(self) -> dict[str, bool]:
        """Return the path; empty before the first batch."""
        return asdict(self.path) if self.path else {}

    def load_state_dict(self, state: dict[str, bool]) -> None:
        """Use the path of another runner, so that the first batch is not compared again."""
        self.path = ExecutionPath(**state) if state else None

    def _give_up(self, reason: str) -> ExecutionPath:
        self.path = PLAIN
        self.log(
            f"{title_of(self.model)}: runs as plain PyTorch, because {reason}; "
            f"a step can take {SLOWER} times as long as on the fast path"
        )
        return PLAIN

    def logits(self, contexts: Tensor, targets: Tensor | None = None) -> Tensor:
        """Return logits (N, V) of contexts (N, T) as a tensor, without gradients.

        With targets (N,), a model with n-gram counts leaves each window out of its counts.
        """
        with torch.no_grad(), self:
            logits = self(contexts, targets=targets)
            return logits.dense() if isinstance(logits, Rows) else logits

    def __enter__(self) -> None:
        """Make matrix products portable during a forward and a backward pass."""
        path = self.path or PLAIN
        if path.fast and not path.mixed and torch.get_num_threads() == 1:
            self._products = np.errstate(all="ignore")  # infinities show up in the loss
        elif self.device.type == "cpu":
            self._products = _on_cpu(path.mixed)
        else:
            self._products = nullcontext()
        self._products.__enter__()

    def __exit__(self, *error: Any) -> None:
        self._products.__exit__(*error)

    def check(self, contexts: Tensor, targets: Tensor | None = None) -> ExecutionPath:
        """Compare the fast and the plain path on contexts (N, T); choose one and return it.

        With targets (N,), losses and gradients are compared; otherwise, logits. Both paths use the
        same random numbers, dropout is disabled, and buffers are restored.
        """
        if self.path:
            return self.path
        if any(m._backward_hooks or m._backward_pre_hooks for m in self.model.modules()):
            return self._give_up("a module has a backward hook")
        contexts = contexts[:CHECKED]
        targets = None if targets is None else targets[:CHECKED]
        try:
            wanted = torch.set_grad_enabled(targets is not None)
            with unchanged(self.model), np.errstate(all="ignore"), wanted, _no_custom_functions():
                stand_in = Contexts(contexts)
                found = self._outcome(stand_in, targets)
        except Exception as error:
            return self._give_up(_reason(error))
        with unchanged(self.model), PortableProducts(), _NoDropout():
            expected = self._outcome(contexts.long(), targets)
        different = _first_difference(found, expected)
        if different is None and targets is not None:
            different = self._difference_in_evaluation(contexts)
        if different:
            return self._give_up(f"the fast path computes {different}")
        self.path = ExecutionPath(fast=True, mixed=stand_in.tape.mixed)
        return self.path

    def _difference_in_evaluation(self, contexts: Tensor) -> str | None:
        """Return what the fast path computes differently in evaluation mode, or None."""
        modes = [(module, module.training) for module in self.model.modules()]
        self.model.eval()
        try:
            with unchanged(self.model), np.errstate(all="ignore"), torch.no_grad():
                found = self._outcome(Contexts(contexts), None)
            with unchanged(self.model), PortableProducts():
                expected = self._outcome(contexts.long(), None)
        except Exception as error:  # if this is a bug in the model, plain PyTorch raises it, too
            return f"nothing in evaluation ({_reason(error)})"
        finally:
            for module, mode in modes:
                module.training = mode
        different = _first_difference(found, expected)
        return different and f"{different} in evaluation"

    def is_capturable(self, contexts: Tensor) -> bool:
        """Return whether every training step runs the same operations, so that it can be captured.

        This runs a copy on the CPU. Steps are the same if every function that depends on the
        contexts has a rule, dropout is off, and no random numbers are drawn.
        """
        with torch.no_grad():
            stand_in = Contexts(contexts[:CHECKED].cpu())
        before = torch.get_rng_state()
        if self.leaves_out:  # counts are looked up on the CPU
            return False
        try:
            copied = copy.deepcopy(self.model).cpu().train()
            with torch.no_grad(), torch.random.fork_rng(devices=[]):
                copied(stand_in)
                return not stand_in.tape.drops and torch.equal(torch.get_rng_state(), before)
        except Exception:
            return False

    def _outcome(self, contexts: Any, targets: Tensor | None) -> dict[str, Tensor]:
        """Return the results of one path: the logits, or the loss, gradients and buffers."""
        if targets is None:
            with torch.no_grad():
                logits = self.model(contexts)
            return {"different logits": logits.dense() if isinstance(logits, Rows) else logits}
        named = dict(self.model.named_parameters())
        before = {name: parameter.grad for name, parameter in named.items()}
        for parameter in named.values():
            parameter.grad = None
        try:
            logits = self.model(contexts, *([targets] if self.leaves_out else []))
            loss = mean_over_members(logits, lambda out: F.cross_entropy(out, targets))
            loss.backward()
            outcome = {"a different loss": loss.detach().double()}
            for name, parameter in named.items():
                grad = parameter.grad
                outcome[f"{GRADIENT}{name}"] = torch.zeros_like(parameter) if grad is None else grad
            for name, buffer in self.model.named_buffers():
                outcome[f"a different buffer {name}"] = buffer.detach().clone()
            return outcome
        finally:
            for name, parameter in named.items():
                parameter.grad = before[name]


def _reason(error: Exception) -> str:
    """Return why a model cannot run on the fast path. A bug in it is raised by plain PyTorch.

    Raises the error itself if it comes from the machine (memory, disk, an incomplete installation).
    The path, which affects the last digits of the losses, must depend only on the model.
    """
    if isinstance(error, OSError | ImportError) or is_out_of_memory(error):
        raise error
    if isinstance(error, NoRuleError):
        return f"the fast path does not support {error}"
    first, *_ = str(error).splitlines() or [""]
    return f"the fast path fails ({type(error).__name__}: {first})"


def _first_difference(found: dict[str, Tensor], expected: dict[str, Tensor]) -> str | None:
    """Return the name of the first tensor that differs by more than rounding, or None."""
    expected = {name: tensor.double() for name, tensor in expected.items()}
    norms = {name: tensor.norm().item() for name, tensor in expected.items()}
    gradients = [norm for name, norm in norms.items() if name.startswith(GRADIENT)]
    largest = max(gradients, default=0.0)
    for name, tensor in expected.items():
        if name not in found or found[name].shape != tensor.shape:
            return name
        if torch.equal(found[name].double(), tensor):  # also handles infinities
            continue
        if name == "a different loss":
            allowed = LOSS_TOLERANCE * max(1.0, abs(tensor.item()))
        else:
            # The gradient of a parameter without any effect is pure rounding error.
            allowed = GRADIENT_TOLERANCE * (norms[name] + GRADIENT_TOLERANCE * largest)
        if not (found[name].double() - tensor).norm().item() <= allowed:
            return name
    return None


@contextmanager
def _on_cpu(mixed: bool) -> Iterator[None]:
    """Compute in one thread, because the rounding of sums can depend on the number of threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with np.errstate(all="ignore"), PortableProducts() if mixed else nullcontext():
            yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def unchanged(model: nn.Module) -> Iterator[None]:
    """Restore parameters, buffers and the state of torch's generator after the block."""
    buffers = _copied_buffers(model)
    parameters = [(parameter, parameter.detach().clone()) for parameter in model.parameters()]
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        _restore(buffers)
        with torch.no_grad():
            for parameter, before in parameters:
                if not torch.equal(parameter, before):
                    parameter.copy_(before)


@contextmanager
def _no_custom_functions() -> Iterator[None]:
    """Raise NoRuleError for an autograd.Function of the model, whose backward would be ignored.

    This replaces a function that `torch.autograd.Function.apply` passes its arguments through.
    """

    def refuse(args: tuple[Any, ...]) -> tuple[Any, ...]:
        if any(isinstance(arg, StandIn) for arg in args):
            raise NoRuleError("an autograd.Function")
        return original(args)

    original = functorch.unwrap_dead_wrappers
    functorch.unwrap_dead_wrappers = refuse
    try:
        yield
    finally:
        functorch.unwrap_dead_wrappers = original


def _copied_buffers(model: nn.Module) -> list[tuple[nn.Module, str, Tensor, Tensor]]:
    """Return the buffers of all modules, each with its module, name and a copy."""
    return [
        (module, name, buffer, buffer.clone())
        for module in model.modules()
        for name, buffer in module._buffers.items()
        if buffer is not None
    ]


@torch.no_grad()
def _restore(buffers: list[tuple[nn.Module, str, Tensor, Tensor]]) -> None:
    for module, name, buffer, before in buffers:
        module._buffers[name] = buffer
        if not torch.equal(buffer, before):
            buffer.copy_(before)


class _NoDropout(TorchFunctionMode):
    """Disables dropout, even in training mode."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        return args[0] if func is F.dropout else func(*args, **(kwargs or {}))


def members_of(logits: Any) -> list[Any]:
    """Return logits (N, V) as a list, with one item per member if they come from an ensemble."""
    return logits if isinstance(logits, list) else [logits]


def mean_over_members(logits: Any, loss_of: Callable[[Any], Any]) -> Any:
    """Return the mean loss over the members of an ensemble, or the loss of a single model."""
    first, *others = map(loss_of, members_of(logits))
    return sum(others, first) / (1 + len(others)) if others else first


def takes_targets(model: nn.Module) -> bool:
    """Return whether `forward` takes targets, to leave windows out of the model's counts."""
    return "targets" in inspect.signature(model.forward).parameters


def title_of(model: nn.Module) -> str:
    return str(getattr(model, "title", "")) or type(model).__name__


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model in evaluation mode; restore its mode after the block."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


Model = nn.Module | Runner
"""A model, or its runner."""


def as_runner(model: Model) -> Runner:
    return model if isinstance(model, Runner) else Runner(model)


def batched_logits(
    model: Model, windows: Windows, leave_out: bool = False
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield logits (N, V) and targets (N,) of all windows in order, in evaluation mode.

    With `leave_out`, a model with n-gram counts leaves each window out of its counts.
    """
    runner = as_runner(model)
    with evaluating(runner.model):
        for start in range(0, len(windows), CHUNK):
            contexts, targets = windows.batch(slice(start, start + CHUNK))
            yield runner.logits(contexts, targets if leave_out else None), targets


def losses(model: Model, windows: Windows) -> Tensor:
    """Return the cross-entropy (W,) of each window in nats, on the CPU."""
    parts = [
        F.cross_entropy(logits, targets, reduction="none").cpu()
        for logits, targets in batched_logits(model, windows)
    ]
    return torch.cat(parts) if parts else torch.empty(0)


@torch.no_grad()
def summed_loss(model: Model, windows: Windows) -> Tensor:
    """Return the summed cross-entropy of all windows in nats, on their device."""
    runner = as_runner(model)
    device = windows.starts.device
    total = torch.zeros((), dtype=widest(device), device=device)
    with evaluating(runner.model):
        for start in range(0, len(windows), CHUNK):
            contexts, targets = windows.batch(slice(start, start + CHUNK))
            with runner:
                loss = F.cross_entropy(runner(contexts), targets, reduction="sum")
            total += loss.detach()
    return total


def mean_loss(model: Model, windows: Windows) -> float:
    """Return the mean cross-entropy over all windows, in nats per character."""
    return summed_loss(model, windows).item() / len(windows)
