"""Measurements behind the figures of the README and of EXPERIMENTS.md."""

import os

ENVIRONMENT = dict(os.environ)
"""As it was before `charlm` was imported, which chooses the kernels of all that follows, and of
the processes that are started: the notebook's are to be torch's own."""
