"""Check that DVC recorded each stage with the inputs that it ran with.

A stage checks its inputs when it ends (`pipeline.inputs`), but DVC reads them a moment later, or
minutes later if another DVC command holds its lock. If they are edited in between, DVC records the
edited version, and keeps this wrong record in its run cache forever.
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from dvc.repo import Repo
from dvc.utils.serialize import load_yaml, modify_yaml

from charlm.core.errors import InputError
from charlm.core.params import PARAMS_FILE
from pipeline.cache import drop_run, folder_digest
from pipeline.inputs import LEFT, Inputs, flat
from pipeline.put_back import DVC_ERRORS

LOCK_FILE = Path("dvc.lock")

Entry = dict[str, Any]
"""The entry of a stage in `dvc.lock`."""


def recorded_stages() -> dict[str, Entry]:
    """Return the entries of `dvc.lock` by stage; empty if there is no such file.

    DVC's lock must be held, because DVC writes the file in place.
    """
    return dict((load_yaml(str(LOCK_FILE)) or {}).get("stages", {})) if LOCK_FILE.exists() else {}


@contextmanager
def refusing_other_inputs(stage: str | None = None) -> Iterator[None]:
    """Remove what DVC records in the block if it differs from what the stage ran with.

    Raises InputError if so. Without a stage, all stages are checked.
    """
    for path in LEFT.glob(f"{stage or '*'}.json"):
        path.unlink()
    yield
    if ran := sorted(path.stem for path in LEFT.glob(f"{stage or '*'}.json")):
        changes = {}
        with suppress(*DVC_ERRORS), Repo(_wait_for_lock=True) as repo, repo.lock:
            entries = recorded_stages()
            changes = {name: _drop_if_other(repo, name, entries) for name in ran if name in entries}
        if found := [f"{name}: {change}" for name, change in changes.items() if change]:
            raise InputError(
                f"changed before DVC recorded {', and '.join(found)}. The record was removed. "
                "Run the same command again"
            )


def _drop_if_other(repo: Repo, stage: str, entries: Mapping[str, Entry]) -> str:
    """Remove the record of a stage if it ran with different inputs; describe the changes."""
    inputs = Inputs(stage)
    recorded_since = LOCK_FILE.stat().st_mtime_ns > inputs.left.stat().st_mtime_ns
    inputs.take_up()
    if not recorded_since or agree(inputs, entries[stage]):
        return ""
    if changes := inputs.changes():
        drop_run(repo, entries[stage])
        with modify_yaml(str(LOCK_FILE)) as lock:
            del lock["stages"][stage]
    return changes


def agree(inputs: Inputs, entry: Entry) -> bool:
    """Return whether DVC recorded the inputs that a stage ran with."""
    values = entry.get("params", {}).get(PARAMS_FILE.name, {})
    given = {k: v for name in inputs.parameters for k, v in flat(name, values.get(name)).items()}
    files = {_absolute(path): md5 for path, md5 in inputs.files.items()}
    return json.dumps(given, default=str) == json.dumps(inputs.values, default=str) and all(
        dep.get("md5") == _md5(files, _absolute(dep["path"])) for dep in entry.get("deps", [])
    )


def _absolute(path: str) -> str:
    """Return a path in one form, however it is written; on Windows it may be on another drive."""
    return os.path.abspath(path)  # noqa: PTH100  Path.resolve would follow links


def _md5(files: Mapping[str, str], path: str) -> str:
    """Return the MD5 of a dependency, given the MD5 of each file."""
    if path in files:
        return files[path]
    folder = f"{path}{os.sep}"
    within = {
        Path(file.removeprefix(folder)).as_posix(): md5
        for file, md5 in files.items()
        if file.startswith(folder)
    }
    return folder_digest(within)
