"""Benchmarks, the source of the timings in docs/performance.md and EXPERIMENTS.md."""

import os
import sys
from importlib.util import find_spec
from pathlib import Path

from charlm.core.errors import no_module

if not find_spec("torch"):
    sys.exit(f"error: {no_module('torch')}")

ENVIRONMENT = dict(os.environ)
"""The environment before `pin_kernels`, which would otherwise also apply to child processes: the
notebook should run with torch's own choice of kernels."""

NAMES = Path("data/prenoms.txt")
