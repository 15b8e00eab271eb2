"""The one exception that a user, not a programmer, can mend."""


class InputError(Exception):
    """Bad input: a line saying what is wrong, where, and what to do about it."""
