"""Tools that run, check and compare the stages and DVC, with the kernels of the stages."""

from contextlib import suppress

from charlm.core.errors import InputError
from charlm.core.pinning import pin_kernels

with suppress(InputError):  # a stage that fails on this still restores its outputs
    pin_kernels()  # before a tool imports NumPy or torch
