"""A progress bar for slow work: on a terminal only, and only after two seconds."""

import sys
from typing import NoReturn

from tqdm import tqdm


def bar(title: str, total: int, unit: str) -> "tqdm[NoReturn]":
    """Return a bar to use as a context manager; `update(n)` moves it on by n units."""
    return tqdm(
        desc=title,
        total=total,
        unit=unit,
        unit_scale=True,
        delay=2,
        leave=False,
        disable=not sys.stderr.isatty(),
    )
