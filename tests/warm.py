"""A `python` for the tests that starts a stage without importing torch anew each time.

The suite starts some two hundred stages, and importing torch takes most of their time. One
process imports what comes from elsewhere, nothing of the project, and splits in two for each
`python -m stages.NAME`. Tests about killing, the environment or what is opened, and `.ci/run`,
use the real one.
"""

import json
import os
import runpy
import signal
import socket
import sys
from pathlib import Path
from typing import Any

SHIM = """#!{python} -IS
import json, os, socket, sys
arguments = sys.argv[1:]
if arguments[:1] == ["-m"] and arguments[1].startswith("stages.") and os.path.exists({socket!r}):
    server = socket.socket(socket.AF_UNIX)
    server.connect({socket!r})
    request = dict(arguments=arguments[1:], folder=os.getcwd(), environment=dict(os.environ))
    content = json.dumps(request).encode()
    socket.send_fds(server, [len(content).to_bytes(8, "big")], [0, 1, 2])
    server.sendall(content)
    code = server.recv(1)
    sys.exit(code[0] if code else 137)
os.execv({python!r}, [{python!r}, *arguments])
"""


def write_shim(folder: Path, socket_path: Path) -> None:
    """Put the `python` that asks the server into a folder for PATH."""
    folder.mkdir()
    script = folder / "python"
    script.write_text(SHIM.format(python=sys.executable, socket=str(socket_path)))
    script.chmod(0o755)


def receive(connection: socket.socket) -> tuple[dict[str, Any], list[int]]:
    size, fds, _, _ = socket.recv_fds(connection, 8, 3)
    content = b""
    while len(content) < int.from_bytes(size, "big"):
        content += connection.recv(1 << 20)
    return json.loads(content), list(fds)


def run(request: dict[str, Any], fds: list[int]) -> int:
    """Run the stage in this process as `python -m` would; its exit code."""
    for target, fd in enumerate(fds):
        os.dup2(fd, target)
        os.close(fd)
    sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w", buffering=1)  # noqa: SIM115
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    module, *arguments = request["arguments"]
    sys.argv = ["-m", *arguments]
    sys.path[0] = request["folder"]
    try:
        try:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        except SystemExit:
            raise
        except BaseException:
            sys.excepthook(*sys.exc_info())
            return 1
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


def import_what_takes_long(root: Path) -> None:
    """Import all that the stages need from elsewhere, so that a fork of this process has it."""
    runpy.run_path(str(root / "charlm/core/pinning.py"))["pin_kernels"]()
    import matplotlib.figure
    import matplotlib.style  # noqa: F401
    import numba
    import pandas  # noqa: F401
    import psutil  # noqa: F401
    import pydantic  # noqa: F401
    import rapidfuzz  # noqa: F401
    import ruamel.yaml  # noqa: F401
    import safetensors.torch  # noqa: F401
    import torch
    import tqdm  # noqa: F401

    torch.set_num_threads(1)  # a process with more than one must not be split
    # These import more, at their first use.
    numba.njit(lambda: None)()
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.use_deterministic_algorithms(False)
    torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)


def serve(socket_path: str, root: str) -> None:
    import_what_takes_long(Path(root))
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    server = socket.socket(socket.AF_UNIX)
    server.bind(socket_path + ".new")
    server.listen(64)
    os.rename(socket_path + ".new", socket_path)  # noqa: PTH104
    while True:
        connection, _ = server.accept()
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            server.close()
            code = 1
            try:
                code = run(*receive(connection))
            finally:
                connection.sendall(bytes([code & 255]))
                os._exit(code & 255)
        connection.close()


if __name__ == "__main__":
    serve(*sys.argv[1:])
