"""Choosing where to compute, and with how many threads."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from charlm.core.errors import InputError


def available_devices() -> list[str]:
    """The devices of this machine, the fastest first for models as small as these.

    A CPU is through with a step about when the fifty kernels of one have been launched on a GPU;
    on CUDA they are launched as one (`charlm.fast.capture`), on Apple's (MPS) they are not.
    """
    found = {
        "cuda": torch.cuda.is_available(),
        "cpu": True,
        "mps": torch.backends.mps.is_available(),
    }
    return [name for name, available in found.items() if available]


def choose_device(name: str) -> torch.device:
    """The device of that name; for "auto" the fastest one.

    Raises InputError where this machine, or this build of torch, has no such device.
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
    """Let models that are built take no memory; their parameters have shapes and no values."""
    with torch.device("meta"), _Uninitialised():
        yield


class _Uninitialised(TorchFunctionMode):
    """Leaves out `torch.nn.init`: to draw no numbers, torch would import its compiler first."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        initialises = getattr(func, "__module__", None) == "torch.nn.init"
        return None if initialises else func(*args, **(kwargs or {}))


def widest(device: torch.device) -> torch.dtype:
    """What to add many numbers up in: float64, but for Apple's GPUs, which have none."""
    return torch.float32 if device.type == "mps" else torch.float64


def for_numpy(x: Tensor) -> bool:
    """Whether NumPy and `charlm.fast.kernels` can work on the numbers of x where they are."""
    return x.device.type == "cpu" and x.dtype == torch.float32 and x.is_contiguous()


def refuse_if_too_large(parameters: int) -> None:
    """Refuse a model that this machine's memory cannot hold while it is trained.

    Weights, gradients and what is in between take about three times 4 bytes a parameter.
    Allocating more than there is need not fail at once: the system may kill the program later.

    Raises InputError where that is more than the memory of this machine.
    """
    needed = 3 * 4 * parameters
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # a system that does not tell
        return
    if needed > memory:
        raise InputError(
            f"a model of {parameters:,} parameters takes {needed / 2**30:,.0f} GB while it is "
            f"trained, and this machine has {memory / 2**30:,.0f}; lower hidden_dim or embed_dim"
        )


def set_up(device: str, threads: int) -> torch.device:
    """Choose the device, and make what is computed on it repeatable.

    The number of threads is set rather than taken from the machine, because sums
    that are shared out differently round differently. A single thread of a CPU repeats
    itself anyhow, and is spared a second of imports that torch makes when it is told to.
    """
    torch.set_num_threads(threads)
    chosen = choose_device(device)
    if chosen.type != "cpu" or threads > 1:  # or threads add to one sum in any order
        torch.use_deterministic_algorithms(True, warn_only=True)
        # Nothing here reads memory that it has not written, and torch need not fill it first.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    return chosen
