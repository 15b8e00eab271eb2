"""A progress bar for what may take long: on a terminal only, and only after two seconds."""

import sys
from typing import NoReturn

from tqdm import tqdm


def bar(title: str, total: int, unit: str) -> "tqdm[NoReturn]":
    """A bar to be used as a context; its `update` takes how many more are done."""
    return tqdm(
        desc=title,
        total=total,
        unit=unit,
        unit_scale=True,
        delay=2,
        leave=False,
        disable=not sys.stderr.isatty(),
    )
