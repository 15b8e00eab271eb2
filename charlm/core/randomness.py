"""Separate streams of random numbers, all derived from one seed.

Drawing more numbers for one purpose, for example to initialize a wider layer, does not affect any
other, for example the split or the order of the batches.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # slow to import and not needed to derive a seed
    import torch


def derive_seed(seed: int, use: str) -> int:
    """Return a 63-bit seed for a named use, the same on every machine (by SHA-256)."""
    digest = hashlib.sha256(f"{seed}/{use}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(seed: int, use: str) -> "torch.Generator":
    """Return a CPU generator for a named use, for example "sample/fcn"."""
    import torch

    return torch.Generator().manual_seed(derive_seed(seed, use))


@contextmanager
def seeded(seed: int, use: str) -> Iterator[None]:
    """Seed torch's global CPU generator for a named use, and restore its state afterward.

    For code that does not accept a generator, for example the initialization of `nn.Linear`.
    """
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, use))
        yield
