"""A random order of n things that is never written down.

Where `torch.randperm(n)` stores 8 bytes a thing, a permutation here is a handful of keys, and
the place of each thing is computed when it is asked for, in what NumPy's arrays and torch's
tensors have in common.
"""

from typing import TYPE_CHECKING, TypeVar

from charlm.core.randomness import derive_seed

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

Array = TypeVar("Array", "NDArray[np.int64]", "torch.Tensor")

LARGEST = 1 << 40
"""Twice the 20 bits for which products below 2**63 leave room."""
HASH_BITS = 42
ROUNDS = 10
"""Tests find a pattern after 6."""
ROUNDS_OF_FEW = 24
"""For halves of fewer than 8 bits; tests find a pattern after 10 where they have one or two."""
CHUNK = 1 << 15
"""Things to work on at once on a CPU, whose cache holds them."""


class Permutation:
    """A pseudorandom permutation of range(n), the same integers on every device and machine.

    A Feistel network: the number of a thing is written as (high, low) with about sqrt(n) values
    each, which take turns at being changed by a hash of the other: the low one by xor, the high
    one by addition, so that no arithmetic is simple to both. What comes out is in a
    range that is larger than n by less than sqrt(n); a result beyond n is permuted again until
    it is below ("cycle walking": Black and Rogaway, "Ciphers with arbitrary finite domains",
    2002). The hash is multiply-add-shift modulo 2**42 (Dietzfelbinger, 1996), with keys by
    SHA-256 from the seed. It is made to look random, not to keep a secret.

    Args:
        n: how many there are to permute, at most 2**40.
        seed: chooses the permutation.

    Raises ValueError for an n that is negative or too large.
    """

    def __init__(self, n: int, seed: int) -> None:
        if not 0 <= n <= LARGEST:
            raise ValueError(f"cannot permute {n} things: at most 2**40")
        self.n = n
        bits = max(2, (n - 1).bit_length())
        self.low_bits = bits // 2
        self.mask = (1 << self.low_bits) - 1
        self.highs = -(-n >> self.low_bits)  # how many values of the high half are enough
        rounds = ROUNDS if bits >= 16 else ROUNDS_OF_FEW
        self.keys = [
            [derive_seed(seed, f"{use}/{i}") >> (63 - HASH_BITS) for use in ("multiply", "add")]
            for i in range(rounds)
        ]

    def __call__(self, index: Array) -> Array:
        """The places, int64, of the things that `index` (int64 in range(n), any shape) names."""
        places = self._permute(index.reshape(-1))
        while (outside := places >= self.n).any():
            places[outside] = self._permute(places[outside])
        return places.reshape(index.shape)

    def _permute(self, index: Array) -> Array:
        """Permute the whole range of (high, low): (N,) to (N,)."""
        high, low = index >> self.low_bits, index & self.mask
        size = CHUNK if str(index.device) == "cpu" else max(1, len(index))
        for first in range(0, len(index), size):
            self._mix(high[first : first + size], low[first : first + size])
        high <<= self.low_bits
        high += low
        return high

    def _mix(self, high: Array, low: Array) -> None:
        """The rounds, in place."""
        for i, (factor, summand) in enumerate(self.keys):
            # Below 2**20 * 2**42 + 2**42: nothing overflows.
            mixed = (low if i % 2 else high) * factor
            mixed += summand
            if i % 2 == 0:
                mixed >>= HASH_BITS - self.low_bits
                mixed &= self.mask
                low ^= mixed
            else:
                mixed >>= HASH_BITS - 20
                mixed &= (1 << 20) - 1
                mixed *= self.highs
                mixed >>= 20
                high += mixed
                high -= self.highs  # modulo `highs`: where negative, add it again
                high += (high >> 63) & self.highs
