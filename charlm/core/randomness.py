"""One stream of random numbers per use, all of them from one seed.

Drawing more numbers for one use (say, a wider layer at initialisation) then
leaves every other use (the split, the order of the batches) as it was.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # not everyone who derives a seed has to wait for it
    import torch


def derive_seed(seed: int, use: str) -> int:
    """A 63-bit seed for one named use, the same on every machine (SHA-256)."""
    digest = hashlib.sha256(f"{seed}/{use}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(seed: int, use: str) -> "torch.Generator":
    """A CPU generator for one named use, such as "sample/fcn"."""
    import torch

    return torch.Generator().manual_seed(derive_seed(seed, use))


@contextmanager
def seeded(seed: int, use: str) -> Iterator[None]:
    """Let torch's global CPU generator serve one use, then put its state back.

    For code that draws without being handed a generator, as `nn.Linear` does
    when it initialises its weights.
    """
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, use))
        yield
