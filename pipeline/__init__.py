"""Tools that run and check the pipeline, with the same kernels as the stages.

They also work in environments in which DVC alone fails: for a user without a name or a home folder
(`docker run --user 12345`), with a login shell of `nologin`, or without a writable `/var/tmp`.
"""

import getpass
import os
import shutil
import sys
from contextlib import suppress
from pathlib import Path

from charlm.core.errors import InputError, require
from charlm.core.pinning import pin_kernels

HASHES = Path(
    {
        "darwin": "/Library/Caches/dvc/repo",
        "win32": "C:/ProgramData/iterative/dvc/Cache/repo",
    }.get(sys.platform, "/var/tmp/dvc/repo")
)
"""Where DVC stores the hashes of files."""

OWN_HASHES = Path(__file__).resolve().parent.parent / ".dvc/tmp/hashes"
"""Where to store them if that folder is not writable."""

ROOM = 10_000_000
"""Number of free bytes that is enough for the hashes."""


def complete_environment() -> None:
    """Set the environment variables that DVC needs, for this process and its children."""
    if sys.platform != "win32":
        try:
            getpass.getuser()
        except (KeyError, OSError):  # OSError since Python 3.13
            os.environ["LOGNAME"] = str(os.getuid())
        if not os.path.isabs(os.path.expanduser("~")):  # noqa: PTH111, PTH117  Path raises an error
            os.environ["HOME"] = "/"  # as Docker does
        os.environ["SHELL"] = "/bin/sh"  # DVC runs the stages in this shell; it could be `nologin`
    # The stages run with the first `python` on the PATH.
    own = str(Path(sys.executable).parent)
    os.environ["PATH"] = os.pathsep.join(filter(None, [os.environ.get("PATH"), own]))
    if "DVC_SITE_CACHE_DIR" not in os.environ and not has_room(HASHES):
        os.environ["DVC_SITE_CACHE_DIR"] = str(OWN_HASHES)


def has_room(folder: Path) -> bool:
    """Return whether files can be written to a folder, which need not exist yet."""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    return os.access(there, os.W_OK) and shutil.disk_usage(there).free > ROOM


def open_closed_streams() -> None:
    """Open standard streams that are closed (`>&-`), so that no file of DVC takes their place."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.dup2(nowhere, number)
    if nowhere > 2:
        os.close(nowhere)
    else:
        os.set_inheritable(nowhere, True)


def without_arguments(command: str, description: str | None) -> None:
    """Print the help of a command and exit if it is asked for; refuse any other argument."""
    from argparse import ArgumentParser, RawDescriptionHelpFormatter

    program = f"python -m pipeline.{command}"
    ArgumentParser(
        prog=program, description=description, formatter_class=RawDescriptionHelpFormatter
    ).parse_args()


if any(argument.startswith("pipeline.") for argument in sys.orig_argv):
    require("dvc")  # a stage that imports this package handles a missing DVC itself
open_closed_streams()
complete_environment()
with suppress(InputError):  # a stage that fails here must still restore its outputs
    pin_kernels()  # before a tool imports NumPy or torch
