"""Pseudorandom permutations that take no memory.

`torch.randperm(n)` stores 8 bytes per item. Here, a permutation is a few keys, and the position of
an item is computed on demand, with operations that NumPy and torch have in common.
"""

from typing import TYPE_CHECKING, TypeVar

from charlm.core.randomness import derive_seed

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

Array = TypeVar("Array", "NDArray[np.int64]", "torch.Tensor")

LARGEST = 1 << 40
"""The largest n: two halves of 20 bits each, so that products stay below 2**63."""
HASH_BITS = 42
ROUNDS = 10
"""Statistical tests still detect a pattern with 6 rounds."""
ROUNDS_OF_FEW = 24
"""Rounds for halves of fewer than 8 bits; with 1 or 2 bits, tests detect a pattern with 10."""
CHUNK = 1 << 15
"""Number of items to process at once on a CPU, to stay in its cache."""


class Permutation:
    """A pseudorandom permutation of range(n), identical on every device and machine.

    A Feistel network: an index is split into halves (high, low) of about sqrt(n) values each. Each
    half is updated in turn with a hash of the other, the low half by xor and the high half by
    addition, so that the updates do not commute. The result lies in a range that exceeds n by less
    than sqrt(n). A result of n or more is permuted again until it is below n ("cycle walking":
    Black and Rogaway, "Ciphers with arbitrary finite domains", 2002). The hash is
    multiply-add-shift modulo 2**42 (Dietzfelbinger, 1996), with keys derived from the seed by
    SHA-256. The permutation is statistically random, not cryptographically secure.

    Args:
        n: number of items, at most 2**40.
        seed: chooses the permutation.

    Raises ValueError if n is negative or too large.
    """

    def __init__(self, n: int, seed: int) -> None:
        if not 0 <= n <= LARGEST:
            raise ValueError(f"cannot permute {n} items: at most 2**40")
        self.n = n
        bits = max(2, (n - 1).bit_length())
        self.low_bits = bits // 2
        self.mask = (1 << self.low_bits) - 1
        self.highs = -(-n >> self.low_bits)  # number of values of the high half
        rounds = ROUNDS if bits >= 16 else ROUNDS_OF_FEW
        self.keys = [
            [derive_seed(seed, f"{use}/{i}") >> (63 - HASH_BITS) for use in ("multiply", "add")]
            for i in range(rounds)
        ]

    def __call__(self, index: Array) -> Array:
        """Return the permuted values of `index` (int64 in range(n), any shape), as int64."""
        permuted = self._permute(index.reshape(-1))
        while (outside := permuted >= self.n).any():
            permuted[outside] = self._permute(permuted[outside])
        return permuted.reshape(index.shape)

    def _permute(self, index: Array) -> Array:
        """Permute the whole range of (high, low), (N,) to (N,)."""
        high, low = index >> self.low_bits, index & self.mask
        size = CHUNK if str(index.device) == "cpu" else max(1, len(index))
        for first in range(0, len(index), size):
            self._mix(high[first : first + size], low[first : first + size])
        high <<= self.low_bits
        high += low
        return high

    def _mix(self, high: Array, low: Array) -> None:
        """Apply the rounds in place."""
        for i, (factor, summand) in enumerate(self.keys):
            # No overflow: less than 2**20 * 2**42 + 2**42.
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
                high -= self.highs  # modulo `highs`: added back if negative
                high += (high >> 63) & self.highs
