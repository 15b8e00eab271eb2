"""Which processes a stage watches, and how it ends."""

import os
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass

import psutil
import pytest

from pipeline import parent


@dataclass
class Process:
    """A process in a chain that leads up to the terminal."""

    words: list[str]
    above: "Process | None" = None

    def cmdline(self) -> list[str]:
        return self.words

    def parent(self) -> "Process | None":
        return self.above


def test_all_processes_between_a_stage_and_dvc_are_watched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As on Windows, where the Python of a virtual environment starts the real one."""
    stage = ["-m", "stages.train_fcn"]
    terminal = Process(["cmd.exe"])
    dvc = Process(["python.exe", r"C:\\names\\.venv\\Scripts\\dvc.exe", "repro"], terminal)
    shell = Process(["cmd.exe", "/c", "python -m stages.train_fcn"], dvc)
    starter = Process([r".venv\\Scripts\\python.exe", *stage], shell)
    own = Process(["python.exe", *stage], starter)
    monkeypatch.setattr(psutil, "Process", lambda: own)
    assert parent._waiting() == [starter, shell, dvc]


def test_a_zombie_counts_as_ended() -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    watched = psutil.Process(process.pid)
    assert parent._runs(watched)
    process.stdin.close()
    while watched.status() != psutil.STATUS_ZOMBIE:
        pass
    assert not parent._runs(watched)
    process.wait()
    assert not parent._runs(watched)


@pytest.mark.parametrize("system", ["linux", "win32"])
def test_a_stage_whose_dvc_ended_gets_a_signal_it_can_handle(
    monkeypatch: pytest.MonkeyPatch, system: str
) -> None:
    """On Windows, `os.kill` would end it at once, without saving its state."""
    ended = threading.Event()
    signals = []

    def note(*signal_: int) -> None:
        signals.append(signal_)
        ended.set()

    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(os, "kill", note)
    monkeypatch.setattr(signal, "raise_signal", note)
    monkeypatch.setattr(parent, "_waiting", lambda: [None])
    monkeypatch.setattr(parent, "_runs", lambda process: False)
    parent.end_with_dvc()
    assert ended.wait(10)
    own = () if system == "win32" else (os.getpid(),)
    assert signals == [(*own, signal.SIGTERM)]
