"""Studies for EXPERIMENTS.md and the pages in docs/, with the kernels of the stages."""

import sys
from importlib.util import find_spec

from charlm.core.errors import InputError, no_module
from charlm.core.pinning import pin_kernels

if not find_spec("dvc"):
    sys.exit(f"error: {no_module('dvc')}")
try:
    pin_kernels()  # before a study imports NumPy or torch
except InputError as error:
    sys.exit(f"error: {error}")
