"""Running a model on batches: over distinct rows if that computes the same, else as it is.

N batch, T context length, V vocabulary, W windows.
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from charlm.data.windows import Windows
from charlm.fast import rules  # noqa: F401  fills RULES
from charlm.fast.devices import widest
from charlm.fast.products import PortableProducts
from charlm.fast.rows import Contexts, Leaves, NoRuleError, Rows

CHUNK = 4096
"""Windows to a forward pass if no gradient is wanted: fills the cache, not the memory."""

CHECKED = 256
"""Contexts that both ways are compared on."""

SLOWER = "2 to 5"
"""How many times as long a step takes as plain PyTorch, as `benchmarks.steps` measures it."""

LOSS_TOLERANCE = 1e-5
GRADIENT_TOLERANCE = 1e-3
"""How far apart rounding can leave both ways: of the loss, and of a gradient's length."""


class Runner:
    """Runs a model on batches of contexts, in the fastest way that computes what it says.

    On a CPU that is the model itself, run on `Contexts` instead of a tensor, so that each distinct
    row is computed once. On the first batch that is compared with plain PyTorch; if they differ by
    more than rounding, or the model calls a function that has no rule, it is run as plain PyTorch
    from then on. Matrix products give the same bytes on every x86-64 processor both ways.

    Args:
        model: any module from contexts (N, T) to logits (N, V).
        fast: False to run it as plain PyTorch.
        log: gets the line that says why a model is run as plain PyTorch on a CPU.

    Attributes:
        fast: whether distinct rows are computed; None before the first batch.
    """

    def __init__(
        self,
        model: nn.Module,
        fast: bool = True,
        log: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.model = model
        suits = all(p.device.type == "cpu" and p.dtype == torch.float32 for p in model.parameters())
        self.fast: bool | None = None if fast and suits else False
        self._log = log
        self._leaves: Leaves = {}

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next((p.device for p in self.model.parameters()), torch.device("cpu"))

    def __call__(self, contexts: Tensor, key: int | None = None) -> Any:
        """Logits (N, V) of contexts (N, T): a tensor, or `Rows` that stand for one.

        Args:
            key: 63 bits for what is random in the model; None for no dropout.
        """
        if self.fast is None:
            self.check(contexts)
        if self.fast:
            try:
                return self.model(Contexts(contexts, key, self._leaves))
            except NoRuleError as error:  # in a branch that the first batch did not take
                self._give_up(f"there is no fast rule for {error}")
        return self.model(contexts.long())

    def _give_up(self, reason: str) -> None:
        self.fast = False
        self._log(
            f"{title_of(self.model)}: runs as plain PyTorch, since {reason}; "
            f"expect a step to take {SLOWER} times as long as on the fast path"
        )

    def logits(self, contexts: Tensor) -> Tensor:
        """Logits (N, V) of contexts (N, T) as a tensor, without gradients."""
        with torch.inference_mode(), self.products():
            logits = self(contexts)
            return logits.dense() if isinstance(logits, Rows) else logits

    def products(self) -> AbstractContextManager[Any]:
        """The context for a forward and a backward pass, with portable matrix products."""
        if self.fast and torch.get_num_threads() == 1:
            return np.errstate(all="ignore")  # what is infinite is found in the loss
        return _on_cpu(bool(self.fast)) if self.device.type == "cpu" else nullcontext()

    def check(self, contexts: Tensor, targets: Tensor | None = None) -> None:
        """Decide which way to run the model, by comparing both on contexts (N, T).

        With targets (N,) losses and gradients are compared, else logits. Random numbers are the
        same both ways, dropout is off, and buffers are left as they were.
        """
        if self.fast is not None:
            return
        contexts = contexts[:CHECKED]
        targets = None if targets is None else targets[:CHECKED]
        try:
            with _unchanged(self.model), np.errstate(all="ignore"):
                ours = self._outcome(Contexts(contexts), targets)
        except NoRuleError as error:
            self._give_up(f"there is no fast rule for {error}")
            return
        except Exception as error:  # if it is a bug in the model, plain PyTorch raises it too
            self._give_up(f"the fast path fails ({type(error).__name__}: {error})")
            return
        with _unchanged(self.model), PortableProducts(), _NoDropout():
            theirs = self._outcome(contexts.long(), targets)
        different = _first_difference(ours, theirs)
        self.fast = True
        if different:
            self._give_up(f"the fast path computes {different}")

    def repeats(self, contexts: Tensor) -> bool:
        """Whether each pass through the model in training is the same operations on new numbers.

        Found out by running a copy on the CPU: if all that depends on the contexts has a rule, no
        dropout is on and no random number is drawn, there is nothing that could differ.
        """
        copied = copy.deepcopy(self.model).cpu().train()
        stand_in = Contexts(contexts[:CHECKED].cpu())
        before = torch.get_rng_state()
        try:
            with torch.no_grad(), torch.random.fork_rng(devices=[]):
                copied(stand_in)
                return not stand_in.tape.drops and torch.equal(torch.get_rng_state(), before)
        except Exception:
            return False

    def _outcome(self, contexts: Any, targets: Tensor | None) -> dict[str, Tensor]:
        """What one way comes to, by name: logits, or loss, gradients and buffers."""
        if targets is None:
            with torch.no_grad():
                logits = self.model(contexts)
            return {"other logits": logits.dense() if isinstance(logits, Rows) else logits}
        named = dict(self.model.named_parameters())
        before = {name: parameter.grad for name, parameter in named.items()}
        for parameter in named.values():
            parameter.grad = None
        try:
            loss = F.cross_entropy(self.model(contexts), targets)
            loss.backward()  # type: ignore[no-untyped-call]
            outcome = {"another loss": loss.detach().double()}
            for name, parameter in named.items():
                grad = parameter.grad
                outcome[f"another gradient of {name}"] = (
                    torch.zeros_like(parameter) if grad is None else grad
                )
            for name, buffer in self.model.named_buffers():
                outcome[f"another buffer {name}"] = buffer.detach().clone()
            return outcome
        finally:
            for name, parameter in named.items():
                parameter.grad = before[name]


def _first_difference(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> str | None:
    """The name of the first tensor that is further from the other than rounding explains."""
    theirs = {name: tensor.double() for name, tensor in theirs.items()}
    lengths = {name: tensor.norm().item() for name, tensor in theirs.items()}
    largest = max((lengths[name] for name in lengths if name != "another loss"), default=0.0)
    for name, tensor in theirs.items():
        if ours[name].shape != tensor.shape:
            return name
        if name == "another loss":
            allowed = LOSS_TOLERANCE * max(1.0, abs(tensor.item()))
        else:
            # The gradient of what has no effect is nothing but rounding.
            allowed = GRADIENT_TOLERANCE * (lengths[name] + GRADIENT_TOLERANCE * largest)
        if not (ours[name] - tensor).norm().item() <= allowed:
            return name
    return None


@contextmanager
def _on_cpu(fast: bool) -> Iterator[None]:
    """Compute in one thread: sums that threads share out may round otherwise."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with np.errstate(all="ignore") if fast else PortableProducts():
            yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def _unchanged(model: nn.Module) -> Iterator[None]:
    """Give buffers and torch's generator back the state that they have now."""
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)


class _NoDropout(TorchFunctionMode):
    """Leaves dropout out, whether a model is training or not."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        return args[0] if func is F.dropout else func(*args, **(kwargs or {}))


def title_of(model: nn.Module) -> str:
    return str(getattr(model, "title", "")) or type(model).__name__


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model in evaluation mode, and back in the one that it was in."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


Model = nn.Module | Runner
"""What the functions below take: a model, or a runner that has been made for it."""


def as_runner(model: Model) -> Runner:
    return model if isinstance(model, Runner) else Runner(model)


def batched_logits(model: Model, windows: Windows) -> Iterator[tuple[Tensor, Tensor]]:
    """Logits (N, V) and targets (N,) of all windows in order, in chunks, in evaluation mode."""
    runner = as_runner(model)
    with evaluating(runner.model):
        for start in range(0, len(windows), CHUNK):
            contexts, targets = windows.batch(slice(start, start + CHUNK))
            yield runner.logits(contexts), targets


def losses(model: Model, windows: Windows) -> Tensor:
    """(W,) cross-entropy of each window, in nats; on the CPU."""
    each = [
        F.cross_entropy(logits, targets, reduction="none").cpu()
        for logits, targets in batched_logits(model, windows)
    ]
    return torch.cat(each) if each else torch.empty(0)


@torch.inference_mode()
def summed_loss(model: Model, windows: Windows) -> Tensor:
    """Cross-entropy over all windows in sum, in nats, on their device."""
    runner = as_runner(model)
    device = windows.starts.device
    total = torch.zeros((), dtype=widest(device), device=device)
    with evaluating(runner.model):
        for start in range(0, len(windows), CHUNK):
            contexts, targets = windows.batch(slice(start, start + CHUNK))
            with runner.products():
                loss = F.cross_entropy(runner(contexts), targets, reduction="sum")
            total += loss.detach()
    return total


def mean_loss(model: Model, windows: Windows) -> float:
    """Mean cross-entropy over all windows, each counted once, in nats per character."""
    return summed_loss(model, windows).item() / len(windows)
