"""Check params.yaml, the list of names and DVC's cache. `make repro` does this first.

The stages check their input, too. But DVC removes the outputs of `build_dataset` before it notices
that the list of names is missing, and it does not detect damaged files in its cache.
"""

import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from dvc.repo import Repo

from charlm.core.errors import InputError
from charlm.core.params import Params, blame, load_params
from charlm.names.reading import gather_names
from pipeline.cache import Output, drop_damaged_copies, recorded_outputs, restorable_outputs
from pipeline.put_back import DVC_ERRORS
from stages import run


def main() -> None:
    check_input()
    # DVC reports its own errors when it runs.
    with suppress(*DVC_ERRORS), Repo() as repo:
        stages = [stage.addressing for stage in repo.index.stages]
        check_copies(repo, [*recorded_outputs(repo), *restorable_outputs(repo, stages)])


def check_input() -> Params:
    """Check the parameters and the list of names; return the parameters."""
    params = load_params()
    names = params.names
    with blame("names"), tempfile.TemporaryFile(dir=".") as aside:
        refuse_home(names.path)
        gather_names(names.path, names.column, names.header, aside)
    return params


def refuse_home(path: str) -> None:
    """Raise InputError for a path that begins with `~`, which DVC does not expand."""
    if path.startswith("~") and not Path(path).exists():
        with suppress(RuntimeError):  # no such user; later, the path is reported as missing
            full = Path(path).expanduser()
            raise InputError(f"DVC does not expand {path.split('/')[0]}; set path to {full}")


def check_copies(repo: Repo, outputs: Iterable[Output]) -> None:
    """Remove damaged files of the outputs from DVC's cache; print a note for each output."""
    for path in drop_damaged_copies(repo, outputs):
        print(f"DVC's copy of {path} was damaged; removed it (it will be recreated)", flush=True)


if __name__ == "__main__":
    run(main)
