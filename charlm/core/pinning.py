"""Choosing the kernels of NumPy, torch and Numba, for the same bytes on every x86-64 processor.

By default each of them takes the widest vector instructions that a processor has, which round
differently from one processor to the next.
"""

import os
import platform
import sys

KERNELS = {
    "ATEN_CPU_CAPABILITY": "avx2",  # torch: what it computes itself
    "MKL_CBWR": "COMPATIBLE",  # torch: what MKL computes; every other value differs by maker
    "ONEDNN_MAX_CPU_ISA": "AVX2",  # torch: what oneDNN computes
    "OPENBLAS_CORETYPE": "Haswell",  # NumPy: matrix products
    "NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL AVX512_SPR",  # NumPy: all else
    "NUMBA_CPU_NAME": "haswell",  # Numba: what it compiles for
    "NUMBA_CPU_FEATURES": "",  # ... beyond what every such processor has
}
"""The kernels of x86-64, by the environment variables that choose them."""

ORDER = {
    "OPENBLAS_NUM_THREADS": "1",  # sums that threads share may round differently
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # cuBLAS sums in a fixed order
}
"""The order of sums, on every machine."""

CONTRADICTING = (
    "NPY_ENABLE_CPU_FEATURES",
    "DNNL_MAX_CPU_ISA",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
    "NUMBA_DISABLE_JIT",
)
"""Environment variables that would override the ones above."""


def pin_kernels() -> None:
    """Set the environment variables that choose the kernels, whatever their values were.

    Call it before NumPy, torch or Numba is imported, since each reads them only then. It holds for
    the processes started afterwards too. Plain torch becomes slower by it.

    Raises:
        InputError: one of them has been imported already, with kernels of its own choice.
            Nothing is changed then.
    """
    x86_64 = platform.machine().lower() in {"x86_64", "amd64"}
    chosen = {**(KERNELS if x86_64 else {}), **ORDER}
    if late := [name for name in ("numpy", "torch", "numba") if name in sys.modules]:
        wanted: dict[str, str | None] = {**chosen, **dict.fromkeys(CONTRADICTING)}
        if any(os.environ.get(name) != value for name, value in wanted.items()):
            from charlm.core.errors import InputError

            raise InputError(
                f"kernels cannot be pinned after the import of {' and '.join(late)}; call "
                "pin_kernels() first (in a notebook: restart it, and call it in the first cell)"
            )
    os.environ.update(chosen)
    for name in CONTRADICTING:
        os.environ.pop(name, None)
