"""What a user, not a programmer, can mend."""


class InputError(Exception):
    """Bad input: what is wrong, where, and what to do about it, in one line.

    Line ends in what `message` quotes from the input become blanks.
    """

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.splitlines()))


class FileError(InputError):
    """A file that `charlm` wrote is missing, damaged, or does not fit the others: make it anew."""
