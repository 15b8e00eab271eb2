"""Studies for README.md and EXPERIMENTS.md, with the kernels of the stages."""

from charlm.core.pinning import pin_kernels

pin_kernels()  # before a study imports NumPy or torch
