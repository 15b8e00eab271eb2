"""Progress bars, which appear only on a terminal and for slow work, and unprintable characters."""

import io
import sys
import time

import pytest

from charlm.core.terminal import bar, escape_unprintable


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(file: io.StringIO, seconds: float, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return what a bar prints to `file` after that many seconds."""
    monkeypatch.setattr(sys, "stderr", file)
    clock = time.time()
    monkeypatch.setattr("tqdm.std.time", lambda: clock)
    with bar("counting", 100, "B") as counting:
        clock += seconds
        counting.update(50)
    return file.getvalue()


def test_a_terminal_shows_slow_work(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "counting:  50%" in shown(Terminal(), 3, monkeypatch)


def test_quick_work_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(Terminal(), 1, monkeypatch).strip() == ""


def test_a_log_gets_no_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(io.StringIO(), 3, monkeypatch) == ""


@pytest.mark.parametrize(
    ("system", "expected"), [("linux", b"Zo\\xe9\\u65e5"), ("win32", "Zoé日".encode())]
)
def test_characters_outside_the_encoding_are_escaped_and_windows_gets_utf_8(
    monkeypatch: pytest.MonkeyPatch, system: str, expected: bytes
) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(sys, "platform", system)
    escape_unprintable()
    print("Zoé日", end="", flush=True)
    assert stream.buffer.getvalue() == expected
