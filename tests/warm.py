"""Provide a `python` and a `dvc` that do not import torch and DVC again for each test.

The suite starts about two hundred stages and as many DVC commands, and most of their time is
imports. One process imports the dependencies, but nothing of the project, and forks for each
`dvc` command and most modules of the project. Tests about kills or the environment, and
`.ci/run`, use the real programs.
"""

import gc
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
known = ("stages.", "pipeline.", "experiments.", "tests.")
warm = {always} or arguments[:1] == ["-m"] and arguments[1].startswith(known)
warm = warm and arguments[1:2] != ["pipeline.side_by_side"]  # finds others by their command line
if warm and os.path.exists({socket!r}):
    server = socket.socket(socket.AF_UNIX)
    server.connect({socket!r})
    command = [{program!r}, *arguments]
    request = dict(command=command, folder=os.getcwd(), environment=dict(os.environ))
    content = json.dumps(request).encode()
    socket.send_fds(server, [len(content).to_bytes(8, "big")], [0, 1, 2])
    server.sendall(content)
    code = server.recv(1)
    sys.exit(code[0] if code else 137)
os.execv({program!r}, [{program!r}, *arguments])
"""


def write_shim(folder: Path, socket_path: Path) -> None:
    """Write the `python` and `dvc` scripts that ask the server into a folder for PATH."""
    folder.mkdir()
    for name in ("python", "dvc"):
        program = str(Path(sys.executable).with_name(name))
        script = folder / name
        script.write_text(
            SHIM.format(
                python=sys.executable,
                program=program,
                socket=str(socket_path),
                always=name == "dvc",
            )
        )
        script.chmod(0o755)


def receive(connection: socket.socket) -> tuple[dict[str, Any], list[int]]:
    size, fds, _, _ = socket.recv_fds(connection, 8, 3)
    content = b""
    while len(content) < int.from_bytes(size, "big"):
        content += connection.recv(1 << 20)
    return json.loads(content), list(fds)


def run(request: dict[str, Any], fds: list[int]) -> int:
    """Run the command in this process as a new one would, and return its exit code."""
    for target, fd in enumerate(fds):
        os.dup2(fd, target)
        os.close(fd)
    # Colorama drops these streams when it wraps them, which must not close the descriptors.
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    program, *arguments = request["command"]
    try:
        try:
            if Path(program).name == "dvc":
                sys.argv = [program, *arguments]
                sys.path[0] = str(Path(program).parent)
                runpy.run_path(program, run_name="__main__")
            else:
                _, module, *arguments = arguments
                sys.argv = ["-m", *arguments]
                sys.path[0] = request["folder"]
                runpy.run_module(module, run_name="__main__", alter_sys=True)
        except SystemExit:
            raise
        except BaseException:
            sys.excepthook(*sys.exc_info())
            return 1
    except SystemExit as error:
        if isinstance(error.code, str):
            print(error.code, file=sys.stderr)
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


def import_what_takes_long(root: Path) -> None:
    """Import all dependencies of the stages, so that a fork of this process has them."""
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

    torch.set_num_threads(1)  # a process with more than one thread must not fork
    # These import more when first used.
    numba.njit(lambda: None)()
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.use_deterministic_algorithms(False)
    torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    import_dvc()
    gc.freeze()  # none of this is garbage; keep the collector from scanning it in each fork


def import_dvc() -> None:
    """Import what DVC's commands import when they run."""
    import dulwich.porcelain  # noqa: F401
    import dvc.cachemgr
    import dvc.cli.parser
    import dvc.data_cloud
    import dvc.render.converter.image
    import dvc.render.converter.vega
    import dvc.render.match
    import dvc.repo.artifacts
    import dvc.repo.datasets
    import dvc.repo.experiments.queue.celery
    import dvc.repo.experiments.queue.tempdir
    import dvc.repo.experiments.queue.workspace
    import dvc.repo.experiments.run
    import dvc.repo.experiments.show
    import dvc.repo.graph
    import dvc.repo.index
    import dvc.repo.plots.diff
    import dvc.repo.reproduce
    import dvc.rwlock
    import dvc.ui.table
    import dvc.utils.diff
    import dvc.utils.strictyaml  # noqa: F401
    import dvc_data.hashfile.db.local  # noqa: F401
    import dvc_render.html  # noqa: F401
    import dvc_task.app
    import dvc_task.proc.manager  # noqa: F401
    import networkx  # noqa: F401
    import pygit2  # noqa: F401


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
