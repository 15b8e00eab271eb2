"""A random order of n things that is never written down.

Where `torch.randperm(n)` stores 8 bytes a thing, a permutation here is a handful of keys, and
the place of each thing is computed when it is asked for.
"""

import torch
from torch import Tensor

from charlm.randomness import derive_seed

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
        self.highs = -(-n >> self.low_bits)  # how many values of the high half are enough
        rounds = ROUNDS if bits >= 16 else ROUNDS_OF_FEW
        self.keys = [
            [derive_seed(seed, f"{use}/{i}") >> (63 - HASH_BITS) for use in ("multiply", "add")]
            for i in range(rounds)
        ]

    def __call__(self, index: Tensor) -> Tensor:
        """The places, int64, of the things that `index` (int64 in range(n), any shape) names."""
        places = self._permute(index.flatten())
        outside = (places >= self.n).nonzero().flatten()
        while len(outside):
            again = self._permute(places[outside])
            places[outside] = again
            outside = outside[again >= self.n]
        return places.view(index.shape)

    def _permute(self, index: Tensor) -> Tensor:
        """Permute the whole range of (high, low): (N,) to (N,)."""
        mask = (1 << self.low_bits) - 1
        size = CHUNK if index.device.type == "cpu" else max(1, len(index))
        permuted = torch.empty_like(index)
        for x, out in zip(torch.split(index, size), torch.split(permuted, size), strict=True):
            high, low = x >> self.low_bits, x & mask
            halves = (low, high)
            mixed = torch.empty_like(x)
            for i, (factor, summand) in enumerate(self.keys):
                # Below 2**20 * 2**42 + 2**42: nothing overflows.
                torch.mul(halves[1 - i % 2], factor, out=mixed).add_(summand)
                if i % 2 == 0:
                    low ^= mixed.bitwise_right_shift_(HASH_BITS - self.low_bits).bitwise_and_(mask)
                else:
                    mixed.bitwise_right_shift_(HASH_BITS - 20).bitwise_and_((1 << 20) - 1)
                    mixed.mul_(self.highs).bitwise_right_shift_(20)
                    high.add_(mixed).sub_(self.highs)  # modulo `highs`: if negative, add it again
                    torch.bitwise_right_shift(high, 63, out=mixed).bitwise_and_(self.highs)
                    high += mixed
            torch.add(high << self.low_bits, low, out=out)
        return permuted
