"""Measurements behind the figures of the README and of EXPERIMENTS.md."""
