"""End a stage when the DVC that runs it is killed.

Otherwise it would train without being recorded, and overwrite the outputs of the next run.
"""

import os
import signal
import threading
import time

import psutil

INTERVAL = 0.2
"""Seconds between checks."""


def end_with_dvc() -> None:
    """Send SIGTERM to this process when the DVC that runs it has ended."""
    waiting = [psutil.Process()]
    parent = waiting[0].parent()
    if parent and "stages." in " ".join(parent.cmdline()[2:]):  # a shell that waits for the stage
        waiting.append(parent)
    begun = _parents(waiting)

    def watch() -> None:
        while _parents(waiting) == begun:
            time.sleep(INTERVAL)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def _parents(processes: list[psutil.Process]) -> list[int]:
    """Return the parent of each process. It changes when the original parent ends."""
    try:
        return [process.ppid() for process in processes]
    except psutil.NoSuchProcess:
        return []
