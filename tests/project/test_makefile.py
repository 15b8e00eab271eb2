"""The commands of the Makefile, in folders of any name."""

import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT

STUB = '#!/bin/sh\necho "$(basename "$0") $*" >> "$(dirname "$0")/../../ran"\n'


@pytest.mark.parametrize(
    "name", ["names", "my names", "prénoms (été) & l'hiver", '"$HOME" #1 %2;`']
)
def test_it_works_in_a_folder_of_any_name(name: str, tmp_path: Path) -> None:
    folder = tmp_path / name
    commands = folder / ".venv/bin"
    commands.mkdir(parents=True)
    for command in ("python", "dvc", "pre-commit"):
        (commands / command).write_text(STUB, encoding="utf-8")
        (commands / command).chmod(stat.S_IRWXU)
    shutil.copy(ROOT / "Makefile", folder)
    for file in ("requirements.txt", "requirements-dev.txt", "requirements-plots.txt"):
        shutil.copy(ROOT / file, folder)
    shutil.copy(ROOT / "constraints.txt", folder)
    for file in ("pipeline/vega.py", "tests/chromium.py"):
        (folder / file).parent.mkdir()
        (folder / file).touch()
    (folder / ".dvc").mkdir()
    for made in (".venv/.installed", ".dvc/vega.js", ".venv/.installed-dev"):
        (folder / made).touch()
    targets = ["repro", "test", "smoke", "hooks", "verify"]
    subprocess.run(["make", "-C", str(folder), *targets], check=True, capture_output=True)
    ran = (folder / "ran").read_text(encoding="utf-8")
    for line in (
        "python -m pipeline.side_by_side",
        "python -m tests.chromium",
        "python -m pytest -n 2 --dist worksteal -m not slow",
        "dvc exp remove smoke",
        "pre-commit install",
        "python -m pipeline.verify",
    ):
        assert f"{line}\n" in ran


def test_python_variables_of_another_setup_do_not_reach_it(tmp_path: Path) -> None:
    """With PYTHONSAFEPATH, Python would not even find `pipeline`."""
    commands = tmp_path / ".venv/bin"
    commands.mkdir(parents=True)
    (commands / "python").write_text('#!/bin/sh\necho "unset ${PYTHONSAFEPATH-} ${PYTHONPATH-}"\n')
    (commands / "python").chmod(stat.S_IRWXU)
    for name in ("Makefile", "requirements.txt", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / ".venv/.installed").touch()
    command = ["make", "-s", "-C", str(tmp_path), "verify"]
    environment = {**os.environ, "PYTHONSAFEPATH": "1", "PYTHONPATH": "/elsewhere"}
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["unset"]
