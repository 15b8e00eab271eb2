"""The commands work without docstrings, which `python -OO` drops."""

import importlib
import sys

import pytest

from benchmarks.run import explained
from tests.conftest import ROOT
from tests.helpers import run_python

COMMANDS = sorted(
    f"{path.parent.name}.{path.stem}"
    for folder in ("benchmarks", "experiments", "pipeline", "tests")
    for path in (ROOT / folder).glob("*.py")
    if "argparse.ArgumentParser(" in path.read_text(encoding="utf-8")
)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_printed_without_a_docstring(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = importlib.import_module(command)
    monkeypatch.setattr(module, "__doc__", None)
    monkeypatch.setattr(sys, "argv", [command, "--help"])
    with pytest.raises(SystemExit) as ended:
        module.main()
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("usage: ")


@pytest.mark.parametrize("command", ["guide", "picture", "put_back", "readme", "verify"])
def test_help_is_printed_without_running_anything(command: str) -> None:
    """Without --help, each of them changes files or takes minutes."""
    code = "import runpy, sys; runpy.run_module(sys.argv.pop(1), run_name='__main__')"
    text = run_python(code, f"pipeline.{command}", "--help")
    assert text.startswith(f"usage: python -m pipeline.{command} [-h]")


def test_results_are_written_without_a_docstring() -> None:
    assert explained(None) == ""
