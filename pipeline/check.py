"""Check params.yaml, the list of names and DVC's copies: `make repro` does so first.

The stages check their input too, but DVC removes the outputs of `build_dataset`
before it notices that the list of names is missing; and it takes a damaged copy in its
cache for whole.
"""

import tempfile
from contextlib import suppress
from pathlib import Path

from dvc.exceptions import DvcException
from dvc.repo import Repo

from charlm.core.params import Params, blame, load_params
from charlm.names.reading import gather_names
from pipeline.put_back import drop_damaged_copies
from stages import run


def main() -> None:
    check_input()
    # What hinders DVC from looking at its files it says itself, when it is run.
    with suppress(DvcException, OSError), Repo() as repo:
        check_copies(repo)


def check_input() -> Params:
    """Read what the user gives: the parameters, which are returned, and the list of names."""
    params = load_params()
    with blame("names"), tempfile.TemporaryFile() as aside:
        gather_names(Path(params.names.path), params.names.column, aside)
    return params


def check_copies(repo: Repo) -> None:
    """Drop what is damaged in DVC's cache, and say so."""
    for path in drop_damaged_copies(repo):
        print(f"DVC's copy of {path} was damaged and is dropped; it will be made anew", flush=True)


if __name__ == "__main__":
    run(main)
