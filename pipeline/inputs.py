"""What a stage depends on, compared at its end with what it was when the stage began.

DVC reads parameters and hashes dependencies when a stage ends. An edit while it runs would be
recorded, in DVC's run cache for good, as what the stage ran with.
"""

import hashlib
import re
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from charlm.core.errors import InputError
from charlm.core.params import PARAMS_FILE

DVC_FILE = Path("dvc.yaml")
IGNORE_FILE = Path(".dvcignore")

Value = bytes | str | int | float | bool | list[Any] | None

MISSING = "missing"
SHOWN = 3
"""Changes named in an error message."""


class Inputs:
    """The inputs of a stage as `dvc.yaml` declares them, in the current folder.

    Attributes:
        parameters: the names of its parameters and sections of parameters.
        paths: its files and folders, other files of parameters included.
        values: parameters and SHA-256 hashes of files by name, as they are now.
    """

    def __init__(self, stage: str) -> None:
        stages = _load(DVC_FILE)["stages"]
        if stage not in stages:
            raise InputError(f"{DVC_FILE} has no stage {stage}; run: unset DVC_STAGE")
        declared = stages[stage]
        parameters = declared.get("params", [])
        self.parameters = [name for name in parameters if isinstance(name, str)]
        paths = [*declared.get("deps", []), *(its for its in parameters if isinstance(its, dict))]
        self.paths = [_interpolated(path) for its in paths for path in _names(its)]
        self.values = self._read()

    def refuse_if_changed(self) -> None:
        """Raise InputError, naming the changes, if an input is no longer what it was."""
        now = self._read()
        names = [
            name
            for name in dict.fromkeys([*self.values, *now])
            if repr(self.values.get(name, MISSING)) != repr(now.get(name, MISSING))  # 1 is not true
        ]
        if not names:
            return
        changes = [self._change(name, now) for name in names[:SHOWN]]
        if len(names) > SHOWN:
            changes.append(f"{len(names) - SHOWN} more")
        raise InputError(
            f"changed while this stage ran: {', '.join(changes)}; so nothing was recorded. To use "
            "the new version, run the same command again; to keep a finished training, undo the "
            "change first"
        )

    def _read(self) -> dict[str, Value]:
        given = _load(PARAMS_FILE)
        values: dict[str, Value] = {}
        for name in self.parameters:
            values |= _flat(name, _at(given, name))
        for path in self.paths:
            for file in _files(Path(path)):
                with file.open("rb") as content:
                    values[file.as_posix()] = hashlib.file_digest(content, "sha256").digest()
        return values

    def _change(self, name: str, now: dict[str, Value]) -> str:
        """Describe what has changed: the old and the new value of a parameter, or a file."""
        before, after = self.values.get(name, MISSING), now.get(name, MISSING)
        if bytes in (type(before), type(after)):
            return name
        return f"{name} in {PARAMS_FILE} ({_shown(before)}, now {_shown(after)})"


def _load(path: Path) -> Any:
    try:
        return YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8-sig"))
    except Exception as error:  # ruamel.yaml raises many kinds of error
        reason = " ".join(str(error).split())
        raise InputError(
            f"{path} cannot be read ({reason}); fix it, and run the same command again"
        ) from None


def _at(values: Any, name: str) -> Any:
    """Return the value of a parameter such as "fcn.lr"; `MISSING` if it is not there."""
    for key in name.split("."):
        if not isinstance(values, dict) or key not in values:
            return MISSING
        values = values[key]
    return values


def _flat(name: str, value: Any) -> dict[str, Value]:
    if not isinstance(value, dict):
        return {name: value}
    return {k: v for key, part in value.items() for k, v in _flat(f"{name}.{key}", part).items()}


def _names(declared: str | dict[str, Any]) -> list[str]:
    """Return the paths of an entry of `dvc.yaml`, which may have options."""
    return [declared] if isinstance(declared, str) else list(declared)


def _interpolated(path: str) -> str:
    """Return a path with parameters filled in: `${names.path}`."""
    given = _load(PARAMS_FILE) if "${" in path else {}
    return re.sub(r"\$\{(.*?)\}", lambda found: str(_at(given, found[1].strip())), path)


def _files(path: Path) -> Iterator[Path]:
    """Yield the files of a dependency, without those with a name that DVC ignores."""
    if path.is_file():
        yield path
    ignored = _ignored_names()
    for file in sorted(path.rglob("*")):
        if file.is_file() and not any(fnmatch(part, i) for part in file.parts for i in ignored):
            yield file


def _ignored_names() -> list[str]:
    lines = IGNORE_FILE.read_text(encoding="utf-8").splitlines() if IGNORE_FILE.is_file() else []
    return [line.rstrip("/") for line in lines if line and not line.startswith("#")]


def _shown(value: Value) -> str:
    return "empty" if value in (None, "") else str(value)
