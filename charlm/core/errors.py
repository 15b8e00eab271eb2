"""What a user, not a programmer, can mend."""

import re

ANOTHER_ENDED = "another process of this training ended"
"""What a process that trains together with others says if it ends because one of them did."""


class InputError(Exception):
    """Bad input: what is wrong, where, and what to do about it, in one line.

    Line ends in what `message` quotes from the input become blanks.
    """

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.splitlines()))


class FileError(InputError):
    """A file that `charlm` wrote is missing, damaged, or does not fit the others: make it anew."""


def is_interrupt(error: BaseException) -> bool:
    """Whether Ctrl-C ended a program, also where compiled code was calling Python just then."""
    if isinstance(error, SystemError):
        while error.__cause__:
            error = error.__cause__
    return isinstance(error, KeyboardInterrupt)


def is_lack_of_memory(error: BaseException) -> bool:
    """Whether there was too little memory; on a CPU, torch says so by a plain RuntimeError."""
    return isinstance(error, MemoryError) or bool(re.search("(allocate|out of) memory", str(error)))


def no_module(name: str) -> str:
    """Say what to do if a package is missing: this is not the Python that was set up."""
    return f"this Python has no {name}; install it, or use that of .venv: source .venv/bin/activate"
