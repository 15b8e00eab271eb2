"""Errors that a user, rather than a programmer, can fix."""

import errno
import re
import sys
from importlib.util import find_spec

ANOTHER_ENDED = "another process of this training ended"
"""The message of a training process that ends because another process of its group has ended."""


CLOSED_STREAM = (errno.EPIPE, errno.EBADF, *([errno.EINVAL] if sys.platform == "win32" else []))
"""Errors of writing to a stream that is closed or has no reader. They have no file name."""


class InputError(Exception):
    """Invalid input. The message says what is wrong, where, and what to do, on one line.

    Line breaks in `message`, which can quote the input, become spaces.
    """

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.splitlines()))


class FileError(InputError):
    """A file written by the pipeline is missing, damaged or inconsistent, and must be recreated."""


NO_MEMORY = re.compile(
    "(allocate|out of|not enough) memory|failed to map segment|can't start new thread"
    "|paging file is too small"
)
"""Messages of libraries that are out of memory; torch raises a plain RuntimeError on a CPU."""


def is_out_of_memory(error: BaseException | None) -> bool:
    """Return whether memory ran out, including while loading a library."""
    while error:
        if isinstance(error, MemoryError) or NO_MEMORY.search(str(error)):
            return True
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return False


def no_module(name: str) -> str:
    """Return the message for a missing package, which usually means the wrong Python is running."""
    activate = r".venv\Scripts\activate" if sys.platform == "win32" else "source .venv/bin/activate"
    return f"this Python has no {name}; install it, or run: {activate}"


def require(package: str) -> None:
    """Exit with an error message if a package is missing."""
    if not find_spec(package):
        sys.exit(f"error: {no_module(package)}")
