"""Character-level language models of names.

Importing the package pins the kernel sets before torch is loaded: a processor
with other vector instructions would otherwise round differently, and the same
run would end in other bytes.
"""

import os
import platform

if platform.machine().lower() in {"x86_64", "amd64"}:
    os.environ["ATEN_CPU_CAPABILITY"] = "avx2"
    os.environ["MKL_CBWR"] = "AVX2"
os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # cuBLAS sums in one order
