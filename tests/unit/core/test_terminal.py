"""Progress bars: shown on a terminal for slow work only."""

import io
import sys
import time

import pytest

from charlm.core.terminal import bar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(file: io.StringIO, seconds: float, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return what a bar prints to `file` after so many seconds."""
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


def test_a_log_is_not_written_to(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(io.StringIO(), 3, monkeypatch) == ""
