"""What is around DVC and the stages: tools that run, check and compare them with their kernels."""

from contextlib import suppress

from charlm.core.errors import InputError
from charlm.core.pinning import pin_kernels

with suppress(InputError):  # a stage that ends because of this still has its outputs put back
    pin_kernels()  # before a tool imports NumPy or torch
