"""Check params.yaml, the list of names and DVC's copies: `make repro` does so first.

The stages check their input too, but DVC removes the outputs of `build_dataset`
before it notices that the list of names is missing; and it takes a damaged copy in its
cache for whole.
"""

import tempfile
from pathlib import Path

from charlm.names import gather_names
from charlm.params import blame, load_params
from stages import run
from stages.put_back import drop_damaged_copies


def main() -> None:
    params = load_params()
    with blame("names"), tempfile.TemporaryFile() as aside:
        gather_names(Path(params.names.path), params.names.column, aside)
    for path in drop_damaged_copies():
        print(f"DVC's copy of {path} was damaged and is dropped; it will be made anew")


if __name__ == "__main__":
    run(main)
