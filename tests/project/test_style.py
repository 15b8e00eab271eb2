"""The code is formatted, linted and typed, also for the systems that it is not tested on."""

import subprocess
import sys

import pytest

from tests.conftest import ROOT


def typed(system: str) -> list[str]:
    """Return the command for a system, with a cache of its own, which saves most of the time."""
    return ["mypy", "--platform", system, "--cache-dir", f".mypy_cache/{system}"]


@pytest.mark.parametrize(
    "command",
    [
        ["ruff", "check", "."],
        ["ruff", "format", "--check", "."],
        ["mypy"],
        typed("win32"),
        typed("darwin"),
    ],
    ids=" ".join,
)
def test_clean(command: list[str]) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
