"""Pinning the kernels of NumPy, torch and Numba: the same bytes on every x86-64 processor.

By default each library uses the widest vector instructions of the processor, so that rounding
differs from one processor to the next.
"""

import os
import platform
import sys

KERNELS = {
    "ATEN_CPU_CAPABILITY": "avx2",  # torch's own kernels
    "MKL_CBWR": "COMPATIBLE",  # torch through MKL; every other value differs by vendor
    "ONEDNN_MAX_CPU_ISA": "AVX2",  # torch through oneDNN
    "OPENBLAS_CORETYPE": "Haswell",  # NumPy: matrix products
    "NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL AVX512_SPR",  # NumPy: everything else
    "NUMBA_CPU_NAME": "haswell",  # Numba: the target of compilation
    "NUMBA_CPU_FEATURES": "",  # ... and no optional features
}
"""Environment variables that choose the kernels on x86-64."""

ORDER = {
    "OPENBLAS_NUM_THREADS": "1",  # sums split among threads may round differently
    "VECLIB_MAXIMUM_THREADS": "1",  # the same for Accelerate, which NumPy uses on macOS
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # cuBLAS sums in a fixed order
}
"""Environment variables that fix the order of sums, on every machine."""

CONTRADICTING = (
    "NPY_ENABLE_CPU_FEATURES",
    "DNNL_MAX_CPU_ISA",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
    "NUMBA_DISABLE_JIT",
)
"""Environment variables that would override the ones above."""


def pin_kernels() -> None:
    """Set the environment variables that choose the kernels, overriding existing values.

    Call it before importing NumPy, torch or Numba, which read them on import. Child processes
    inherit them. Plain torch gets slower.

    Raises:
        InputError: one of the libraries has already been imported with other kernels. The
            environment is left unchanged.
    """
    x86_64 = platform.machine().lower() in {"x86_64", "amd64"}
    chosen = {**(KERNELS if x86_64 else {}), **ORDER}
    if late := [name for name in ("numpy", "torch", "numba") if name in sys.modules]:
        wanted: dict[str, str | None] = {**chosen, **dict.fromkeys(CONTRADICTING)}
        if any(os.environ.get(name) != value for name, value in wanted.items()):
            from charlm.core.errors import InputError

            raise InputError(
                f"kernels cannot be pinned after importing {' and '.join(late)}; call "
                "pin_kernels() first (in a notebook: restart it, and call it in the first cell)"
            )
    os.environ.update(chosen)
    for name in CONTRADICTING:
        os.environ.pop(name, None)
