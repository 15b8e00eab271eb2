"""Check params.yaml and the list of names, and touch nothing: `make repro` does so first.

The stages check their input too, but DVC removes the outputs of `build_dataset`
before it notices that the list of names is missing.
"""

from pathlib import Path

from charlm.names import read_names
from charlm.params import blame, load_params
from stages import run


def main() -> None:
    params = load_params()
    with blame("names"):
        read_names(Path(params.names.path), params.names.column)


if __name__ == "__main__":
    run(main)
