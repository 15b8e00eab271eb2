"""Pin the kernels of NumPy, torch and Numba: the same bytes on every x86-64 processor.

By default, each library uses the widest vector instructions of the processor, so that rounding
differs from one processor to the next.
"""

import ctypes
import os
import platform
import re
import sys
from pathlib import Path

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

ARM64_KERNELS = {
    "ATEN_CPU_CAPABILITY": "default",
    "ONEDNN_MAX_CPU_ISA": "ADVANCED_SIMD",
    "OPENBLAS_CORETYPE": "ARMV8",
    "NPY_DISABLE_CPU_FEATURES": "ASIMDHP ASIMDDP ASIMDFHM SVE",
    "NUMBA_CPU_NAME": "generic",
    "NUMBA_CPU_FEATURES": "",
}
"""The same for Linux on ARM64: kernels for the vector instructions that all ARM64 processors have.

experiments/arm.py compares the outputs on two emulated processors.
"""

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

INSTRUCTIONS = {"avx2", "fma"}
"""What these kernels need of an x86-64 processor, with the names that Linux uses."""

FLAGS = Path("/proc/cpuinfo")
"""The file in which Linux lists the instructions of the processor."""

WINDOWS_AVX2 = 40
"""PF_AVX2_INSTRUCTIONS_AVAILABLE. FMA has no such constant, but comes with AVX2."""


def pin_kernels() -> None:
    """Set the environment variables that choose the kernels, overriding existing values.

    Call it before importing NumPy, torch or Numba, which read them on import. Child processes
    inherit them. Plain torch gets slower.

    Raises:
        InputError: the processor lacks what the kernels need, or one of the libraries has already
            been imported with other kernels. The environment is left unchanged.
    """
    refuse_old_processor()
    chosen = {**(KERNELS if is_x86_64() else {}), **ORDER}
    if platform.machine() == "aarch64":  # Linux on ARM64; other systems were not measured
        chosen |= ARM64_KERNELS
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


def is_x86_64() -> bool:
    return platform.machine().lower() in {"x86_64", "amd64"}


def refuse_old_processor() -> None:
    """Raise InputError on an x86-64 processor without AVX2 or FMA.

    The kernels would crash there with "Illegal instruction".
    """
    if is_x86_64() and (missing := INSTRUCTIONS - _instructions()):
        from charlm.core.errors import InputError

        raise InputError(
            f"this processor lacks {' and '.join(name.upper() for name in sorted(missing))}, which "
            "the pipeline needs; use an x86-64 processor with AVX2 (most since 2013) or ARM64"
        )


def _instructions() -> set[str]:
    """Return those of `INSTRUCTIONS` that this x86-64 processor has; all if that is unknown."""
    if sys.platform == "win32":
        has_avx2 = ctypes.windll.kernel32.IsProcessorFeaturePresent(WINDOWS_AVX2)
        return INSTRUCTIONS if has_avx2 else set()
    if sys.platform == "linux":
        try:
            return _instructions_by_glibc()
        except AttributeError:
            return _instructions_by_flags()
    return INSTRUCTIONS  # torch has no builds for macOS on x86-64


def _instructions_by_glibc() -> set[str]:
    """Ask glibc (sys/platform/x86.h). Unlike /proc/cpuinfo, it is also right in an emulator.

    Raises AttributeError if the C library has no such function (glibc has it since 2.33).
    """
    leaf = ctypes.CDLL(None)["__x86_get_cpuid_feature_leaf"]
    leaf.restype = ctypes.POINTER(ctypes.c_uint32 * 8)  # four registers, then their usable bits
    ecx, ebx = leaf(0).contents[4 + 2], leaf(1).contents[4 + 1]
    return {name for name, bit in (("fma", ecx >> 12), ("avx2", ebx >> 5)) if bit & 1}


def _instructions_by_flags() -> set[str]:
    """Read /proc/cpuinfo; if it has no such list (in an emulator on ARM64), assume all."""
    try:
        with FLAGS.open(encoding="utf-8", errors="replace") as lines:
            flags = next((line for line in lines if re.match(r"flags\s*:", line)), None)
    except OSError:
        flags = None
    return INSTRUCTIONS if flags is None else INSTRUCTIONS & {*flags.split()}
