"""Refuse experiments in temporary copies if git has only part of the repository.

DVC uses git to make each copy, from the history in this clone. In a shallow clone, it trains, then
loses the result and exits with code 0. In a partial clone, it fails with an unexpected error.

    python -m pipeline.clone
"""

import subprocess
import sys
from pathlib import Path

from charlm.core.errors import InputError

PROMISOR = r"^remote\..*\.promisor$"
"""The git option that marks a partial clone."""


def refuse_incomplete(repository: Path = Path()) -> None:
    """Raise InputError if the pipeline is not committed here, or the clone is shallow or partial.

    A partial clone lacks files of its history.
    """
    if not git("ls-tree", "HEAD", "dvc.yaml", cwd=repository):
        raise InputError(
            "no dvc.yaml is committed here, and experiments start from the last commit; commit it: "
            "git add --all; git commit -m Import"
        )
    if git("rev-parse", "--is-shallow-repository", cwd=repository) == "true":
        kind, remedy = "shallow", "git fetch --unshallow"
    elif git("config", "--get-regexp", PROMISOR, cwd=repository) and (
        "\n?" in "\n" + git("rev-list", "--objects", "--missing=print", "HEAD", cwd=repository)
    ):
        kind, remedy = "partial", "git fetch --refetch --no-filter"
    else:
        return
    raise InputError(
        f"this clone is {kind}: it has only part of the repository, so DVC would lose the results "
        f"of experiments with --temp or --queue; fetch the rest first: {remedy}"
    )


def git(*command: str, cwd: Path = Path()) -> str:
    """Return what git prints; empty if it fails, for example outside of a repository."""
    done = subprocess.run(
        ["git", *command], cwd=cwd, capture_output=True, encoding="utf-8", check=False
    )
    return done.stdout.rstrip("\n")


if __name__ == "__main__":
    try:
        refuse_incomplete()
    except InputError as error:
        sys.exit(f"error: {error}")
