"""Choosing the device and the number of threads."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from charlm.core.errors import InputError


def available_devices() -> list[str]:
    """Return the devices of this machine, fastest first for models as small as these.

    A CPU takes about as long for a step as a GPU for launching its fifty kernels. On CUDA they are
    launched as one graph (`charlm.fast.capture`), on Apple's GPUs (MPS) they are not.
    """
    found = {
        "cuda": torch.cuda.is_available(),
        "cpu": True,
        "mps": torch.backends.mps.is_available(),
    }
    return [name for name, available in found.items() if available]


def choose_device(name: str) -> torch.device:
    """Return the device of that name, or the fastest one for "auto".

    Raises InputError if this machine, or this build of torch, has no such device.
    """
    available = available_devices()
    if name == "auto":
        name = available[0]
    if name not in available:
        raise InputError(
            f"torch {torch.__version__} finds no {name} on this machine; "
            f"take auto or {' or '.join(available)}"
        )
    return torch.device(name)


@contextmanager
def without_memory() -> Iterator[None]:
    """Build models without memory: their parameters have shapes but no values."""
    with torch.device("meta"), _Uninitialized():
        yield


class _Uninitialized(TorchFunctionMode):
    """Skips `torch.nn.init`, since torch would import its compiler there."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        initializes = getattr(func, "__module__", None) == "torch.nn.init"
        return None if initializes else func(*args, **(kwargs or {}))


def widest(device: torch.device) -> torch.dtype:
    """Return the type for long sums: float64, except on Apple's GPUs, which lack it."""
    return torch.float32 if device.type == "mps" else torch.float64


def for_numpy(x: Tensor) -> bool:
    """Return whether NumPy and `charlm.fast.kernels` can work on the memory of x."""
    return x.device.type == "cpu" and x.dtype == torch.float32 and x.is_contiguous()


def refuse_if_too_large(parameters: int) -> None:
    """Raise InputError if a model is too large to be trained in this machine's memory.

    Weights, gradients and temporary values take about three times 4 bytes per parameter.
    Allocating too much may succeed at first, and the system kills the program later.
    """
    needed = 3 * 4 * parameters
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # unknown on this system
        return
    if needed > memory:
        raise InputError(
            f"a model of {parameters:,} parameters takes {needed / 2**30:,.0f} GB while it is "
            f"trained, and this machine has {memory / 2**30:,.0f}; make it smaller"
        )


def set_up(device: str, threads: int) -> torch.device:
    """Return the chosen device, with computation on it made deterministic.

    The number of threads is set rather than taken from the machine, because it affects the
    rounding of sums. A single thread on a CPU is deterministic anyway, and skips a second of
    imports by torch.
    """
    torch.set_num_threads(threads)
    chosen = choose_device(device)
    if chosen.type != "cpu" or threads > 1:  # else threads may add to a sum in any order
        torch.use_deterministic_algorithms(True, warn_only=True)
        # No code here reads uninitialized memory, so torch need not fill it.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    return chosen
