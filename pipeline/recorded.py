"""What DVC recorded of the stages that it ran, compared with what they ran with.

A stage compares its inputs when it ends (`pipeline.inputs`), but DVC reads them a moment later, or
minutes later if another DVC command holds its lock. An edit in between would be recorded, in DVC's
run cache for good, as what the stage ran with.
"""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from dvc.repo import Repo
from dvc.utils.serialize import load_yaml, modify_yaml

from charlm.core.errors import InputError
from charlm.core.params import PARAMS_FILE
from pipeline.cache import FOLDER, drop_run, file_list
from pipeline.inputs import LEFT, Inputs, flat
from pipeline.put_back import DVC_ERRORS

LOCK_FILE = Path("dvc.lock")

Entry = dict[str, Any]
"""What `dvc.lock` says of a stage."""


def recorded_stages() -> dict[str, Entry]:
    """Return the entries of `dvc.lock` by stage; DVC's lock must be held, as DVC writes in place.

    There are none if there is no such file.
    """
    return dict((load_yaml(str(LOCK_FILE)) or {}).get("stages", {})) if LOCK_FILE.exists() else {}


@contextmanager
def refusing_other_inputs(stage: str | None = None) -> Iterator[None]:
    """Undo what DVC records in the block of a stage that ran with other inputs.

    Raises InputError if it did. Without a stage, all of them are compared.
    """
    for path in LEFT.glob(f"{stage or '*'}.json"):
        path.unlink()
    yield
    if ran := sorted(path.stem for path in LEFT.glob(f"{stage or '*'}.json")):
        with suppress(*DVC_ERRORS), Repo(_wait_for_lock=True) as repo, repo.lock:
            entries = recorded_stages()
            for name in ran:
                if name in entries:
                    _refuse_if_other(repo, name, entries[name])


def _refuse_if_other(repo: Repo, stage: str, entry: Entry) -> None:
    inputs = Inputs(stage)
    inputs.take_up()
    if agree(inputs, entry) or not (changes := inputs.changes()):
        return
    drop_run(repo, entry)
    with modify_yaml(str(LOCK_FILE)) as lock:
        del lock["stages"][stage]
    raise InputError(
        f"changed before DVC recorded {stage}: {changes}; so the record was removed. Run the same "
        "command again"
    )


def agree(inputs: Inputs, entry: Entry) -> bool:
    """Return whether DVC recorded the inputs that a stage ran with."""
    values = entry.get("params", {}).get(PARAMS_FILE.name, {})
    given = {k: v for name in inputs.parameters for k, v in flat(name, values.get(name)).items()}
    same = json.dumps(given, default=str) == json.dumps(inputs.values, default=str)
    return same and all(
        _md5(inputs, dep["path"]) == dep.get("md5") for dep in entry.get("deps", [])
    )


def _md5(inputs: Inputs, path: str) -> str:
    """Return the MD5 of a dependency as the stage found it."""
    if path in inputs.files:
        return inputs.files[path]
    within = {
        file.removeprefix(f"{path}/"): md5
        for file, md5 in inputs.files.items()
        if file.startswith(f"{path}/")
    }
    return hashlib.md5(file_list(within), usedforsecurity=False).hexdigest() + FOLDER
