"""Loops over numbers, compiled by Numba.

Written so that LLVM can work on eight numbers at a time, and without permission to reorder sums:
the same bytes on every processor, for any number of threads. A loop is compiled when it is first
called and kept beside the bytecode in `__pycache__`.
"""

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Integers = NDArray[np.int32]

if TYPE_CHECKING:  # Numba has no types

    def compiled(function: Any) -> Any: ...

    inlined = compiled
else:
    import numba

    # Divide as C does: Python's check for zero would keep loops from being vectorized.
    inlined = numba.njit(inline="always", error_model="numpy")

    def compiled(function):
        function = numba.njit(error_model="numpy", nogil=True)(function)
        with suppress(RuntimeError):  # no folder to write to: compiled again in each process
            function.enable_caching()
        return function
