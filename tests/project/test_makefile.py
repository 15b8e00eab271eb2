"""The commands of the Makefile, in folders of any name. See test_run.py for what they do."""

import os
import re
import subprocess
from pathlib import Path

import pytest

import run
from tests.conftest import ROOT
from tests.project.test_run import PIPELINE, STUB, Checkout

MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "name", ["names", "my names", "prénoms (été) & l'hiver", '"$HOME" #1 %2;`']
)
def test_make_works_in_a_folder_of_any_name(name: str, tmp_path: Path) -> None:
    checkout = Checkout(tmp_path / name)
    checkout.set_up()
    (checkout.path / ".venv/.chromium").unlink()
    checkout.called("make", "repro", "test", "smoke", "hooks", "verify")
    ran = checkout.ran()
    for line in (
        "python -m pipeline.side_by_side",
        "python -m tests.chromium",
        "python -m pytest -n 2 --dist worksteal -m not slow",
        "python -m dvc exp remove smoke",
        "python -m pre_commit install",
        "python -m pipeline.verify",
    ):
        assert line in ran


def test_python_variables_of_another_setup_are_unset(tmp_path: Path) -> None:
    """With PYTHONSAFEPATH, Python would not find `pipeline`; with PYTHONHOME, not even start."""
    checkout = Checkout(tmp_path / "names")
    checkout.set_up()
    shown = [name for name in run.UNSET if name.startswith("PYTHON")]
    text = "".join(f"${{{name}-}}" for name in run.UNSET)
    checkout.script("python", f'#!/bin/sh\necho "unset {text}"\n')
    environment = {
        **dict.fromkeys(shown, "1"),
        "PYTHONPATH": "/elsewhere",
        "PYTHONWARNINGS": "ignore",
    }
    assert checkout.called("make", "-s", "verify", **environment).split() == ["unset"]
    del environment["PYTHONHOME"]  # Python itself would not start with it
    assert checkout.run("verify", **environment).split() == ["unset"]


def test_commands_run_with_the_environments_python_on_the_path(tmp_path: Path) -> None:
    checkout = Checkout(tmp_path / "names")
    checkout.set_up()
    checkout.script("python", '#!/bin/sh\nprintf "%s\\n" "$PATH"\n')
    first = checkout.called("make", "-s", "repro").partition(os.pathsep)[0]
    assert first == str(checkout.path / ".venv/bin")


def test_another_folder_and_another_python_can_be_named(tmp_path: Path) -> None:
    checkout = Checkout(tmp_path / "names")
    (checkout.path / ".venv").rename(checkout.path / "elsewhere")
    said = checkout.called("make", "setup", "VENV=elsewhere")
    assert "elsewhere is ready" in said
    assert checkout.ran()[: len(PIPELINE)] == PIPELINE
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho "$@"\n', encoding="utf-8")
    python.chmod(0o755)
    assert checkout.called("make", "repro", f"PYTHON={python}") == "-E run.py repro\n"


def test_every_command_is_a_target_and_gets_its_options(tmp_path: Path) -> None:
    targets = re.findall(r"^([\w-]+): ", MAKEFILE, flags=re.MULTILINE)
    assert targets == ["help", *run.COMMANDS]
    (phony,) = re.findall(r"^\.PHONY: (.*)$", MAKEFILE, flags=re.MULTILINE)
    assert phony.split() == targets
    options = {
        "report": "BASE",
        "seeds": "SEEDS_OPTIONS",
        "sweep": "SWEEP_OPTIONS",
        "bench": "BENCH_OPTIONS",
        "grow": "GROW_OPTIONS",
    }
    for target in targets:
        given = f"{options.get(target, 'OPTIONS')}=-S a.b=1"
        command = ["make", "-n", "-C", str(ROOT), "--no-print-directory", target, given]
        shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        expected = f"python3 -E run.py {target}{' -S a.b=1' if target in options else ''}"
        assert shown.removeprefix("exec ").rstrip() == expected


def test_parallel_commands_do_not_run_setup_at_the_same_time(tmp_path: Path) -> None:
    checkout = Checkout(tmp_path / "names")
    alone = 'mkdir "$0.alone" || echo "two at once" >> "$(dirname "$0")/../../ran"; sleep 0.1\n'
    checkout.script("python", STUB + alone + 'rmdir "$0.alone"\n')
    checkout.called("make", "-j2", "repro", "test")
    ran = checkout.ran()
    assert "two at once" not in ran
    assert [line for line in ran if line in PIPELINE] == PIPELINE, "once"
