"""Character-level language models of names.

Importing the package, before NumPy and torch are imported, chooses their kernels: left to
themselves they take the widest vector instructions that a processor has, which round
otherwise, and the same run would end in other bytes on another machine. Whatever the
environment says of them is overruled.
"""

import os
import platform
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from charlm.trained import TrainedModel

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

if platform.machine().lower() in {"x86_64", "amd64"}:
    os.environ.update(KERNELS)
os.environ["OPENBLAS_NUM_THREADS"] = "1"  # sums shared out between threads may round otherwise
os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # cuBLAS sums in one order
for name in (  # contradict the above
    "NPY_ENABLE_CPU_FEATURES",
    "DNNL_MAX_CPU_ISA",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
    "NUMBA_DISABLE_JIT",
):
    os.environ.pop(name, None)
del name


def load(path: str | os.PathLike[str]) -> "TrainedModel":
    """The model of a checkpoint: what the pipeline trained, ready to invent and to judge names.

        model = charlm.load("data/checkpoints/compact.safetensors")
        model.sample(prefix="MAR", count=20)
        model.score("MARTINE")[0].log_likelihood

    Raises `charlm.core.errors.FileError` where the file is missing, damaged, or no checkpoint.
    """
    from charlm.trained import TrainedModel  # and torch, which others who import charlm need not

    return TrainedModel.load(path)
