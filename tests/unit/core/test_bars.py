"""Bars for what takes long: on a terminal, and silence elsewhere."""

import io
import sys
import time

import pytest

from charlm.core.bars import bar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(file: io.StringIO, seconds: float, monkeypatch: pytest.MonkeyPatch) -> str:
    """What a bar prints to `file` that has taken so many seconds."""
    monkeypatch.setattr(sys, "stderr", file)
    clock = time.time()
    monkeypatch.setattr("tqdm.std.time", lambda: clock)
    with bar("counting", 100, "B") as counting:
        clock += seconds
        counting.update(50)
    return file.getvalue()


def test_a_terminal_shows_what_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "counting:  50%" in shown(Terminal(), 3, monkeypatch)


def test_what_is_quick_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(Terminal(), 1, monkeypatch).strip() == ""


def test_a_log_stays_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(io.StringIO(), 3, monkeypatch) == ""
