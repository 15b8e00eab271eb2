"""What is printed on a terminal."""

import os
import sys
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:  # slow to import, and needed only for large inputs
    from tqdm import tqdm


def bar(title: str, total: int, unit: str) -> "tqdm[NoReturn]":
    """Return a progress bar, shown on a terminal only and only after two seconds.

    It is a context manager; `update(n)` moves it on by n units.
    """
    from tqdm import tqdm

    return tqdm(
        desc=title,
        total=total,
        unit=unit,
        unit_scale=True,
        delay=2,
        leave=False,
        disable=not sys.stderr.isatty(),
    )


def escape_unprintable() -> None:
    """Print characters that the terminal's encoding lacks as escapes, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def discard_unprintable() -> None:
    """Discard output that cannot be printed, or Python would fail on it again when it exits."""
    try:
        if sys.stdout:
            sys.stdout.flush()
    except OSError:
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
