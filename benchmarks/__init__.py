"""Measurements behind the figures of the README and of EXPERIMENTS.md."""

import os

ENVIRONMENT = dict(os.environ)
"""As it was before `pin_kernels` was called, which holds for the processes started afterwards too:
the notebook's kernels are to be torch's own choice."""
