"""Numerical loops compiled by Numba.

They are written so that LLVM can vectorize them eight values at a time without reordering sums:
they give the same bytes on every processor, for any number of threads. A loop is compiled on its
first call and cached next to the bytecode in `__pycache__`.
"""

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Integers = NDArray[np.int32]

if TYPE_CHECKING:  # Numba has no type annotations

    def compiled(function: Any) -> Any: ...

    inlined = compiled
else:
    import numba

    # Divide as in C: Python's check for zero would prevent vectorization.
    inlined = numba.njit(inline="always", error_model="numpy")

    def compiled(function):
        function = numba.njit(error_model="numpy", nogil=True)(function)
        with suppress(RuntimeError):  # no writable folder: compiled in each process
            function.enable_caching()
        return function
