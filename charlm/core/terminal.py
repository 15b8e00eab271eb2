"""Progress bars, and output that a terminal cannot print."""

import os
import sys
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:  # slow to import and needed only for large inputs
    from tqdm import tqdm


def bar(title: str, total: int, unit: str) -> "tqdm[NoReturn]":
    """Return a progress bar, shown only on a terminal and only after two seconds.

    It is a context manager; `update(n)` advances it by n units.
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
    """Print characters that are missing from the terminal's encoding as escape sequences.

    On Windows, files and pipes get UTF-8, as on other systems, instead of the locale's encoding.
    """
    encoding = "utf-8" if sys.platform == "win32" else None
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(encoding=encoding, errors="backslashreplace")


def discard_unprintable() -> None:
    """Discard output that cannot be printed; otherwise Python fails on it again when it exits."""
    try:
        if sys.stdout:
            sys.stdout.flush()
    except OSError:
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
