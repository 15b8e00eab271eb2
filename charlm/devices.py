"""Choosing where to compute, and with how many threads."""

import torch

from charlm.errors import InputError


def available_devices() -> list[str]:
    """The devices of this machine, the fastest first."""
    found = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
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


def set_up(device: str, threads: int) -> torch.device:
    """Choose the device, and make what is computed on it repeatable.

    The number of threads is set rather than taken from the machine, because sums
    that are shared out differently round differently.
    """
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
    return choose_device(device)
