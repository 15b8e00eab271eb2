"""The end of a stage whose DVC was killed.

It would train for nothing, as nobody records it, and write over the outputs of the next run.
"""

import os
import signal
import threading
import time

import psutil

INTERVAL = 0.2
"""Seconds between two looks at whether DVC still runs."""


def end_with_dvc() -> None:
    """End this process as by SIGTERM once the DVC that runs it has ended."""
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
    """Return who waits for each process: another one once the first has ended."""
    try:
        return [process.ppid() for process in processes]
    except psutil.NoSuchProcess:
        return []
