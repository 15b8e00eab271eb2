"""docs/sampling.md: its commands and its Python code print what it shows."""

import doctest
import re
import shlex
from pathlib import Path

import pytest

from charlm import cli
from tests.conftest import IN_TURN, ROOT, Project, copy_checkout

PAGE = (ROOT / "docs/sampling.md").read_text(encoding="utf-8")


def first_blocks() -> tuple[list[str], str, str]:
    """Return the first commands on the page, their output, and the Python code."""
    found = re.findall(r"^```(\w+)\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)
    blocks = dict(reversed(found))  # keep the first block of each language
    return blocks["bash"].splitlines(), blocks["text"], blocks["python"]


@pytest.mark.slow
def test_the_page_shows_the_output_of_the_default_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    project = copy_checkout(tmp_path)
    for stage in IN_TURN[: IN_TURN.index("train_mixture") + 1]:
        project.stage(stage)
    monkeypatch.chdir(project.path)
    commands, printed, python = first_blocks()
    for command in commands:
        assert cli.main(shlex.split(command)[3:]) == 0
    assert capsys.readouterr().out == printed
    parsed = doctest.DocTestParser().get_doctest(python, {}, "sampling.md", None, None)
    assert len(parsed.examples) == 5
    assert doctest.DocTestRunner().run(parsed).failed == 0, capsys.readouterr().out


def test_the_python_code_runs_with_any_model(
    template: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Check only that the code runs; a slow test compares the output for the default model."""
    monkeypatch.chdir(template.path)
    *_, python = first_blocks()
    names: dict[str, object] = {}
    exec("\n".join(re.findall(r"^>>> (.*)", python, flags=re.MULTILINE)), names)
    assert "model" in names
