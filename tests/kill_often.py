"""Run a stage, kill it at random moments, and restart it until it ends by itself.

Every other kill waits until training has saved a new state, however slow the machine is.

Run `python -m tests.kill_often STAGE KILLS` in a checkout to get the result as JSON. Started
through `tests/warm.py`, it has the slow imports done, and forks for each start of the stage.
"""

import json
import os
import random
import signal
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from tests.warm import run


def start(stage: str, log: Path) -> int:
    """Start the stage in a process group of its own, and return its process ID."""
    child = os.fork()
    if child:
        return child
    os.setsid()
    fds = [os.open(os.devnull, os.O_RDONLY)]
    fds += [os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND) for _ in ("out", "err")]
    code = 1
    try:
        here = {"folder": os.getcwd(), "environment": dict(os.environ)}  # noqa: PTH109
        code = run({"command": [sys.executable, "-m", f"stages.{stage}"], **here}, fds)
    finally:
        os._exit(code)


def states() -> list[tuple[str, int]]:
    """Return the states that training has saved so far."""
    found = []
    for path in Path(".resume").glob("*.pt"):
        with suppress(FileNotFoundError):  # removed in the meantime
            found.append((path.name, path.stat().st_mtime_ns))
    return found


def wait_for_another_state(before: list[tuple[str, int]]) -> None:
    """Wait until training has saved another state, so that every other kill makes progress."""
    deadline = time.monotonic() + 60
    while states() == before and time.monotonic() < deadline:
        time.sleep(0.005)


def main() -> None:
    stage, kills = sys.argv[1], int(sys.argv[2])
    chance = random.Random()
    log = Path(tempfile.mkdtemp()) / "log"
    began = time.monotonic()
    assert os.waitstatus_to_exitcode(os.waitpid(start(stage, log), 0)[1]) == 0, log.read_text()
    whole = time.monotonic() - began
    log.write_text("")
    moments: list[float] = []
    while True:
        before = states()
        child = start(stage, log)
        if len(moments) < kills:
            if stage.startswith("train_") and len(moments) % 2:
                wait_for_another_state(before)
            # Short enough for that many kills before the end, however far each start gets, even if
            # the machine has become twice as fast since the timing.
            time.sleep(moment := chance.uniform(0, whole / kills / 2))
            os.kill(child, signal.SIGKILL)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if code != -signal.SIGKILL:
            break
        moments.append(moment)
    text = log.read_text(encoding="utf-8")
    result = {
        "code": code,
        "seconds": whole,
        "killed_after": moments,
        "went_on": text.count("resuming after"),
        "text": text,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
