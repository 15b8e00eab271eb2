"""No call behaves differently on Windows; mypy cannot find such calls (see test_style.py)."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT

FOLDERS = ("charlm", "stages", "pipeline", "benchmarks", "experiments", ".github")
FILES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))

WITH_ENCODING = {"open": 2, "read_text": 0, "write_text": 1, "TemporaryFile": 2, "fdopen": 2}
"""Calls that take an encoding, and the position of that argument (for `open`, of the method)."""

BINARY = re.compile(r"[rwax]\+?b\+?")
"""A mode that opens a file for bytes."""

OTHER_OPEN = {"tarfile", "Image", "archive", "wheel", "os"}
"""Objects whose `open` does not open text."""


def differences(call: ast.Call) -> Iterator[str]:
    """Yield what would be different on Windows."""
    options = {option.arg for option in call.keywords}
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    owner = getattr(getattr(call.func, "value", None), "id", "")
    words = [str(arg.value) for arg in call.args if isinstance(arg, ast.Constant)]
    binary = any(BINARY.fullmatch(word) for word in words) or (
        name == "TemporaryFile" and not words
    )
    given = "encoding" in options or len(call.args) > WITH_ENCODING.get(name, 0)
    if name in WITH_ENCODING and owner not in OTHER_OPEN and not binary and not given:
        yield "the encoding"
    if {"text", "universal_newlines"} & options:
        yield "the encoding"
    if name == "to_csv" and "lineterminator" not in options:
        yield "the line endings"
    if name == "kill" and owner == "os" and "getpid" not in ast.unparse(call):
        yield "os.kill, which always ends the process"


def findings(source: str) -> list[str]:
    return [
        f"line {node.lineno}: {what}"
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call)
        for what in differences(node)
    ]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_call_behaves_differently_on_windows(path: Path) -> None:
    assert findings(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "source",
    [
        "open('b.txt')",
        "path.open('w')",
        "path.read_text()",
        "path.write_text('b')",
        "subprocess.run(command, text=True)",
        "table.to_csv(path)",
        "os.kill(pid, 0)",
    ],
)
def test_a_call_that_behaves_differently_is_found(source: str) -> None:
    assert len(findings(source)) == 1
