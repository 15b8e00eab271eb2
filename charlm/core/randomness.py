"""A separate stream of random numbers for each use, all from one seed.

Drawing more numbers for one use (say, to initialize a wider layer) does not affect any other use
(the split, the order of the batches).
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # slow to import, and not needed to derive a seed
    import torch


def derive_seed(seed: int, use: str) -> int:
    """Return a 63-bit seed for one named use, the same on every machine (SHA-256)."""
    digest = hashlib.sha256(f"{seed}/{use}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(seed: int, use: str) -> "torch.Generator":
    """Return a CPU generator for one named use, such as "sample/fcn"."""
    import torch

    return torch.Generator().manual_seed(derive_seed(seed, use))


@contextmanager
def seeded(seed: int, use: str) -> Iterator[None]:
    """Seed torch's global CPU generator for one named use, and restore its state afterwards.

    For code that takes no generator, such as the initialization of `nn.Linear`.
    """
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, use))
        yield
