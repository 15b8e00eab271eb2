"""Check that the inputs of a stage do not change while it runs.

DVC reads parameters and hashes dependencies when a stage ends. If they are edited while it runs,
DVC records the edited version, and keeps this wrong record in its run cache forever.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from charlm.core.errors import InputError
from charlm.core.files import write_text
from charlm.core.params import PARAMS_FILE
from pipeline.ignored import hashed_files

DVC_FILE = Path("dvc.yaml")
LEFT = Path(".dvc/tmp/inputs")
"""Where each stage saves its inputs, which `pipeline.recorded` compares with `dvc.lock`."""

Value = str | int | float | bool | list[Any] | None

MISSING = "missing"
SHOWN = 3
"""Maximum number of changes in an error message."""


class Inputs:
    """The inputs of a stage that `dvc.yaml` declares, in the current folder.

    Attributes:
        parameters: names of its parameters and sections of parameters.
        paths: its files and folders, including other parameter files.
        values: the parameters by name, when the stage started.
        files: the MD5 of each file, when the stage started.
        left: the file in which the stage saves both.
    """

    def __init__(self, stage: str) -> None:
        stages = _load(DVC_FILE)["stages"]
        name = stage.partition("@")[0]  # `matrix` adds "@" and its values to the name
        if name not in stages:
            raise InputError(
                f"{DVC_FILE} has no stage {name}; unset the environment variable DVC_STAGE"
            )
        declared = stages[name].get("do", stages[name])
        self.left = LEFT / f"{stage}.json"
        parameters = declared.get("params", [])
        self.parameters = [name for name in parameters if isinstance(name, str)]
        paths = [
            *declared.get("deps", []),
            *(entry for entry in parameters if isinstance(entry, dict)),
        ]
        self.paths = [_interpolated(path) for entry in paths for path in _names(entry)]
        self.values = self._read_values()
        self.files = self._read_files()

    def refuse_if_changed(self) -> None:
        """Raise InputError, with the changes, if an input has changed."""
        if changes := self.changes():
            raise InputError(
                f"changed while this stage ran: {changes}. Nothing was recorded. To use the new "
                "version, run the same command again. To keep a finished training, undo the change "
                "first"
            )

    def changes(self) -> str:
        """Describe which inputs have changed; empty if none have."""
        values = self._read_values()
        changes = [
            f"{name} in {PARAMS_FILE} ({_shown(before)}, now {_shown(after)})"
            for name, before, after in _differences(self.values, values)
        ]
        changes += [path for path, *_ in _differences(self.files, self._read_files())]
        if len(changes) > SHOWN:
            changes[SHOWN:] = [f"{len(changes) - SHOWN} more"]
        return ", ".join(changes)

    def leave(self) -> None:
        """Save the inputs to a file, to be compared with what DVC records."""
        left = {"values": self.values, "files": self.files}
        write_text(self.left, json.dumps(left, default=str))

    def take_up(self) -> None:
        """Load the inputs that the stage saved when it last ran."""
        left = json.loads(self.left.read_bytes())
        self.values, self.files = left["values"], left["files"]

    def _read_values(self) -> dict[str, Value]:
        given = _load(PARAMS_FILE)
        return {k: v for name in self.parameters for k, v in flat(name, _at(given, name)).items()}

    def _read_files(self) -> dict[str, str]:
        files = {}
        for path in self.paths:
            for file in hashed_files(Path(path)):
                with file.open("rb") as content:
                    files[file.as_posix()] = hashlib.file_digest(content, "md5").hexdigest()
        return files


def _differences(
    before: Mapping[str, Value], after: Mapping[str, Value]
) -> Iterator[tuple[str, Value, Value]]:
    """Yield the names whose values differ, with both values."""
    for name in dict.fromkeys([*before, *after]):
        values = before.get(name, MISSING), after.get(name, MISSING)
        if repr(values[0]) != repr(values[1]):  # distinguishes 1 from true
            yield name, *values


def _load(path: Path) -> Any:
    try:
        return YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8-sig"))
    except Exception as error:  # ruamel.yaml raises many kinds of errors
        reason = " ".join(str(error).split())
        raise InputError(
            f"{path} cannot be read ({reason}); fix it, and run the same command again"
        ) from None


def _at(values: Any, name: str) -> Any:
    """Return the value of a parameter such as "fcn.lr", or `MISSING`."""
    for key in name.split("."):
        if not isinstance(values, dict) or key not in values:
            return MISSING
        values = values[key]
    return values


def flat(name: str, value: Any) -> dict[str, Value]:
    """Return a parameter, or each parameter of a section, by its dotted name."""
    if not isinstance(value, dict):
        return {name: value}
    return {k: v for key, part in value.items() for k, v in flat(f"{name}.{key}", part).items()}


def _names(declared: str | dict[str, Any]) -> list[str]:
    """Return the paths of an entry of `dvc.yaml`, which can have options."""
    return [declared] if isinstance(declared, str) else list(declared)


def _interpolated(path: str) -> str:
    """Return a path with parameters filled in: `${names.path}`."""
    given = _load(PARAMS_FILE) if "${" in path else {}
    return re.sub(r"\$\{(.*?)\}", lambda found: str(_at(given, found[1].strip())), path)


def _shown(value: Value) -> str:
    return "empty" if value in (None, "") else str(value)
