"""Benchmarks, the source of the timings in docs/performance.md and EXPERIMENTS.md."""

import os
from pathlib import Path

from charlm.core.errors import require

require("torch")

ENVIRONMENT = dict(os.environ)
"""The environment before `pin_kernels`, which would otherwise also apply to child processes: the
notebook should run with torch's own choice of kernels."""

NAMES = Path("data/prenoms.txt")
