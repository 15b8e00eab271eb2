"""The code is formatted, linted and typed, also for systems on which these tests do not run."""

import subprocess
import sys

import pytest

from tests.conftest import ROOT


def typed(system: str) -> list[str]:
    """Return the command for a system, with its own cache, which saves most of the time."""
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
