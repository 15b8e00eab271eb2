"""Runs a stage, kills it at random moments, and starts it again until it ends by itself.

`python -m tests.kill_often STAGE KILLS` in a checkout prints what happened as JSON. What
takes long to import is imported once, in a process that then splits in two for each start,
as a zygote does; the stage itself is started as `python -m stages.STAGE` would.
"""

import json
import os
import random
import runpy
import signal
import sys
import tempfile
import time
from pathlib import Path

from tests.warm import import_what_takes_long


def start(stage: str, log: Path) -> int:
    """The process id of the stage, which leads a group of its own."""
    child = os.fork()
    if child:
        return child
    os.setsid()
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    code = 1
    try:
        runpy.run_module(f"stages.{stage}", run_name="__main__", alter_sys=True)
        code = 0
    finally:
        sys.stdout.flush()
        os._exit(code)


def main() -> None:
    stage, kills = sys.argv[1], int(sys.argv[2])
    import_what_takes_long(Path.cwd())
    chance = random.Random()
    log = Path(tempfile.mkdtemp()) / "log"
    began = time.monotonic()
    assert os.waitstatus_to_exitcode(os.waitpid(start(stage, log), 0)[1]) == 0, log.read_text()
    whole = time.monotonic() - began
    log.write_text("")
    moments: list[float] = []
    while True:
        child = start(stage, log)
        if len(moments) < kills:
            # Short enough to be killed that often before the end, however far a start comes.
            time.sleep(moment := chance.uniform(0, 2 * whole / kills))
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
        "went_on": text.count("going on after"),
        "text": text,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
