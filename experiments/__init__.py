"""Studies for EXPERIMENTS.md and the pages in docs/, with the kernels of the stages."""

import sys

from charlm.core.errors import InputError, require
from charlm.core.pinning import pin_kernels

require("dvc")
try:
    pin_kernels()  # before a study imports NumPy or torch
except InputError as error:
    sys.exit(f"error: {error}")
