"""Tools that run, check and compare the stages and DVC, with the kernels of the stages.

They also work where DVC alone fails: for a user without a name or a home folder (`docker run
--user 12345`), with a shell that refuses logins, without a writable `/var/tmp`.
"""

import getpass
import os
import shutil
import sys
from contextlib import suppress
from pathlib import Path

from charlm.core.errors import InputError
from charlm.core.pinning import pin_kernels

HASHES = Path("/var/tmp/dvc/repo")
"""Where DVC keeps the hashes of files."""

OWN_HASHES = Path(__file__).resolve().parent.parent / ".dvc/tmp/hashes"
"""Where it keeps them if it cannot write there."""

ROOM = 10_000_000
"""Free bytes that are enough for them."""


def complete_environment() -> None:
    """Set what DVC needs in the environment, for this process and its children."""
    try:
        getpass.getuser()
    except (KeyError, OSError):  # the latter since Python 3.13
        os.environ["LOGNAME"] = str(os.getuid())
    if not os.path.isabs(os.path.expanduser("~")):  # noqa: PTH111, PTH117  Path raises an error
        os.environ["HOME"] = "/"  # as Docker does
    os.environ["SHELL"] = "/bin/sh"  # runs the stages, and may be `nologin`
    # The stages run with the first `python` on PATH.
    own = str(Path(sys.executable).parent)
    os.environ["PATH"] = os.pathsep.join(filter(None, [os.environ.get("PATH"), own]))
    if "DVC_SITE_CACHE_DIR" not in os.environ and not has_room(HASHES):
        os.environ["DVC_SITE_CACHE_DIR"] = str(OWN_HASHES)


def has_room(folder: Path) -> bool:
    """Return whether files can be written to a folder, which may not exist yet."""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    return os.access(there, os.W_OK) and shutil.disk_usage(there).free > ROOM


def open_closed_streams() -> None:
    """Open standard streams that are closed (`>&-`), or DVC's next file would be one of them."""
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


open_closed_streams()
complete_environment()
with suppress(InputError):  # a stage that fails on this still restores its outputs
    pin_kernels()  # before a tool imports NumPy or torch
