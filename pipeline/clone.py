"""Refuse experiments in temporary copies if git has only a part of the repository.

DVC makes each copy with git, from the history in this clone. In a shallow clone it trains, and then
loses the result with exit code 0; in a partial clone it fails with an unexpected error.

    python -m pipeline.clone
"""

import subprocess
import sys
from pathlib import Path

from charlm.core.errors import InputError


def refuse_incomplete(repository: Path = Path()) -> None:
    """Raise InputError if the clone is shallow, or lacks files of its history (partial)."""
    if _git(repository, "rev-parse", "--is-shallow-repository") == "true":
        kind, remedy = "shallow", "git fetch --unshallow"
    elif _git(repository, "config", "--get-regexp", r"^remote\..*\.promisor$") and (
        "\n?" in "\n" + _git(repository, "rev-list", "--objects", "--missing=print", "HEAD")
    ):
        kind, remedy = "partial", "git fetch --refetch --no-filter"
    else:
        return
    raise InputError(
        f"this clone is {kind}: it has only a part of the repository, and DVC would lose the "
        f"results of experiments with --temp or --queue; fetch the rest first: {remedy}"
    )


def _git(repository: Path, *command: str) -> str:
    """Return what git prints; nothing if it fails, as outside of a repository."""
    return subprocess.run(
        ["git", *command], cwd=repository, capture_output=True, text=True, check=False
    ).stdout.strip()


if __name__ == "__main__":
    try:
        refuse_incomplete()
    except InputError as error:
        sys.exit(f"error: {error}")
