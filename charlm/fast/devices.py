"""Choose the device and the number of threads."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from charlm.core.errors import InputError


def available_devices() -> list[str]:
    """Return the devices of this machine, sorted by speed for models as small as these.

    A step on a CPU takes about as long as launching its fifty kernels on a GPU. With CUDA, the
    kernels are launched as one graph (`charlm.fast.capture`). On Apple's GPUs (MPS), they are not.
    """
    found = {
        "cuda": torch.cuda.is_available(),
        "cpu": True,
        "mps": torch.backends.mps.is_available(),
    }
    return [name for name, available in found.items() if available]


def choose_device(name: str) -> torch.device:
    """Return the device with this name, or the fastest one for "auto".

    Raises InputError if this machine, or this build of torch, has no such device.
    """
    available = available_devices()
    if name == "auto":
        name = available[0]
    if name not in available:
        raise InputError(
            f"torch {torch.__version__} finds no {name} device; "
            f"use auto or {' or '.join(available)}"
        )
    return torch.device(name)


@contextmanager
def without_memory() -> Iterator[None]:
    """Build models without allocating memory: parameters have shapes, but no values."""
    with torch.device("meta"), _Uninitialized():
        yield


class _Uninitialized(TorchFunctionMode):
    """Skips `torch.nn.init`, because torch would import its compiler there."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        initializes = getattr(func, "__module__", None) == "torch.nn.init"
        return None if initializes else func(*args, **(kwargs or {}))


def widest(device: torch.device) -> torch.dtype:
    """Return the dtype for long sums: float64, or float32 on Apple's GPUs, which lack float64."""
    return torch.float32 if device.type == "mps" else torch.float64


def for_numpy(x: Tensor) -> bool:
    """Return whether NumPy and `charlm.fast.kernels` can use the memory of x."""
    return x.device.type == "cpu" and x.dtype == torch.float32 and x.is_contiguous()


def refuse_if_too_large(parameters: int) -> None:
    """Raise InputError if a model is too large to train in this machine's memory.

    Weights, gradients and temporary values take about three times 4 bytes per parameter. Without
    this check, allocating too much can succeed at first, and the system kills the program later.
    """
    needed = 3 * 4 * parameters
    if not hasattr(os, "sysconf"):  # on Windows; torch raises an error later
        return
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):  # unknown on this system
        return
    if needed > memory:
        raise InputError(
            f"training a model with {parameters:,} parameters takes {needed / 2**30:,.0f} GB, but "
            f"this machine has {memory / 2**30:,.0f} GB; make the model smaller"
        )


def set_up(device: str, threads: int) -> torch.device:
    """Return the chosen device, after making computation on it deterministic.

    The number of threads is not taken from the machine, because it affects the rounding of sums. A
    single thread on a CPU is always deterministic, so torch need not spend a second on imports.
    """
    torch.set_num_threads(threads)
    chosen = choose_device(device)
    if chosen.type != "cpu" or threads > 1:  # otherwise threads can add to a sum in any order
        torch.use_deterministic_algorithms(True, warn_only=True)
        # Nothing here reads uninitialized memory, so torch need not fill it.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    return chosen
