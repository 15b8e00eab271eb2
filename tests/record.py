"""Run a stage and record what it touches: `python -m tests.record STAGE RECORD`.

Run in a checkout, it writes a JSON file with the files of the checkout that were read or written,
and the parameters and environment variables that were used. It must be started by a process that
has imported safetensors already (tests/warm.py).
"""

import json
import os
import runpy
import shutil
import sys
from pathlib import Path
from typing import Any

import pydantic
import safetensors.torch

HERE = str(Path.cwd())
read: set[str] = set()
written: set[str] = set()
parameters: set[str] = set()
variables: set[str] = set()
set_here: set[str] = set()
active = True


def in_checkout(path: Any) -> str | None:
    """Return a path relative to the checkout, or None if it lies elsewhere."""
    if isinstance(path, int) or path is None:
        return None
    whole = os.path.normpath(Path.cwd() / os.fsdecode(path))
    return os.path.relpath(whole, HERE) if whole.startswith(HERE + os.sep) else None


def removing_a_folder() -> bool:
    """Return whether `shutil.rmtree` is running: its events have file names without a folder."""
    frame = sys._getframe(2)
    while frame:
        if frame.f_code.co_filename == shutil.__file__:
            return True
        frame = frame.f_back
    return False


def audit(event: str, arguments: tuple[Any, ...]) -> None:
    if not active:
        return
    if event == "shutil.rmtree":
        written.update(filter(None, [in_checkout(arguments[0])]))
    elif event in {"open", "os.remove", "os.rmdir"} and removing_a_folder():
        return
    elif event == "open":
        path, mode, flags = arguments
        writes = set(mode or "") & set("wax+") or (flags or 0) & (os.O_WRONLY | os.O_RDWR)
        if name := in_checkout(path):
            (written if writes else read).add(name)
    elif event in {"os.rename", "os.link", "os.symlink"}:
        written.update(filter(None, map(in_checkout, arguments[:2])))
    elif event in {"os.remove", "os.rmdir", "os.mkdir", "os.truncate", "os.chmod", "os.utime"}:
        written.update(filter(None, [in_checkout(arguments[0])]))


def audited_safe_open(path: Any, *arguments: Any, **options: Any) -> Any:
    sys.audit("open", os.fspath(path), "rb", 0)  # Rust opens the file, so no hook sees it
    return safe_open(path, *arguments, **options)


def asked_by_the_project() -> bool:
    """Return whether the project's code reads the environment, directly or through the stdlib."""
    frame = sys._getframe(2)
    while frame:
        file = frame.f_code.co_filename
        if file.startswith(HERE + os.sep) and file != __file__:
            return True
        if "site-packages" in file or file.startswith("<frozen importlib") or file == __file__:
            return False
        frame = frame.f_back
    return False


class Environment(type(os.environ)):
    def __getitem__(self, name: str) -> str:
        if asked_by_the_project():
            variables.add(name)
        return super().__getitem__(name)

    def __setitem__(self, name: str, value: str) -> None:
        set_here.add(name)
        super().__setitem__(name, value)

    def __delitem__(self, name: str) -> None:
        set_here.add(name)
        super().__delitem__(name)

    def pop(self, name: str, *default: str | None) -> Any:
        set_here.add(name)
        return super().pop(name, *default)

    def __iter__(self) -> Any:
        if asked_by_the_project():
            variables.add("all of them")
        return super().__iter__()


prefixes: dict[int, tuple[str, Any]] = {}
"""The name of each section by its `id`. Keeping the section prevents reuse of that `id`."""


def being_checked() -> bool:
    frame = sys._getframe(2)
    while frame:
        if frame.f_code.co_name == "load_params":
            return True
        frame = frame.f_back
    return False


def is_section(instance: Any) -> bool:
    """Return whether this is a part of params.yaml, and not a recipe made from several parts."""
    kind = type(instance)
    return kind.__module__ == "charlm.core.params" and kind.__name__ != "Recipe"


def getattribute(self: Any, name: str) -> Any:
    value = object.__getattribute__(self, name)
    if is_section(self) and name in type(self).model_fields:
        note(self, name, value)
    return value


def getattr_extra(self: Any, name: str) -> Any:
    """Record keys of params.yaml without a field: sections of models, and their arguments."""
    value = extra(self, name)
    if is_section(self):
        note(self, name, value)
    return value


def note(section: Any, name: str, value: Any) -> None:
    if being_checked() or name not in section.model_fields_set:  # as by default
        return
    if isinstance(value, pydantic.BaseModel):
        prefixes[id(value)] = f"{name}.", value
    else:
        parameters.add(prefixes.get(id(section), ("", None))[0] + name)


def model_extra(self: Any) -> Any:
    found = extras.fget(self)
    for name, value in (found or {}).items() if is_section(self) else ():
        note(self, name, value)
    return found


def model_dump(self: Any, *, include: Any = None, exclude: Any = (), **options: Any) -> Any:
    for name in self.model_fields_set if include is None else include:
        if name not in exclude:
            getattr(self, name)
    return dump(self, include=include, exclude=set(exclude), **options)


if __name__ == "__main__":
    stage, record = sys.argv[1:]
    sys.dont_write_bytecode = True
    safe_open = safetensors.safe_open
    safetensors.safe_open = safetensors.torch.safe_open = audited_safe_open
    dump, pydantic.BaseModel.model_dump = pydantic.BaseModel.model_dump, model_dump
    pydantic.BaseModel.__getattribute__ = getattribute
    extra, pydantic.BaseModel.__getattr__ = pydantic.BaseModel.__getattr__, getattr_extra
    extras, pydantic.BaseModel.model_extra = pydantic.BaseModel.model_extra, property(model_extra)
    os.environ.__class__ = Environment
    sys.addaudithook(audit)
    try:
        runpy.run_module(f"stages.{stage}", run_name="__main__", alter_sys=True)
    finally:
        active = False
        found = {
            "read": read,
            "written": written,
            "parameters": parameters,
            "variables": variables - set_here,
        }
        text = json.dumps({name: sorted(values) for name, values in found.items()}, indent=1)
        Path(record).write_text(text, encoding="utf-8")
