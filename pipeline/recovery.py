"""Repair what a killed DVC leaves behind. `make repro` does this first.

DVC writes two of its files in place: `dvc.lock`, and `.dvc/tmp/rwlock`, which records which process
uses which file. A kill at the wrong moment, or a power failure, leaves them empty or truncated, and
DVC then refuses to start. It also does so if a folder of its run cache is empty. `rwlock` can also
name a process that has ended, and whose ID now belongs to another program, for example after a
restart of the machine or container.
"""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

import psutil
from dvc.dvcfile import LOCK_FILE, Lockfile
from dvc.exceptions import DvcException
from dvc.lock import make_lock
from dvc.repo import Repo
from dvc.rwlock import RWLOCK_FILE, RWLOCK_LOCK

from charlm.core.errors import InputError
from charlm.core.files import PARTIAL, replacing, write_json

REPRO = "pipeline.side_by_side"
"""The module that `make repro` runs."""

PROGRAMS = {"dvc", "dvc.exe", REPRO}
"""One of these is in the command line of each process that runs DVC."""

DAMAGES = (OSError, ValueError, KeyError, TypeError, AttributeError)
"""Errors when reading DVC's lock if it is damaged or missing."""

WRITTEN_TO = ("data", "metrics", "plots", ".resume", ".dvc/tmp")
"""Folders with files of the pipeline."""

KILL = "taskkill /F /PID" if sys.platform == "win32" else "kill"
"""The command that ends a process."""

Holder = dict[str, Any]
"""A process in DVC's lock: its ID `pid` and its command `cmd`."""


def clear_locks(repo: Repo) -> None:
    """Remove processes that have ended from DVC's lock, and print a line for each.

    Raises InputError if the lock is damaged and another process runs DVC here, if `make repro` is
    already running here, or if a stage is running here without the DVC that started it.
    """
    root = Path(repo.root_dir)
    here = [process for process in others(root) if _folder(process)]
    own = psutil.Process()
    if earlier := [
        process for process in here if REPRO in process.cmdline() and _age(process) < _age(own)
    ]:
        raise InputError(
            f"make repro is already running here (process {earlier[0].pid}); wait until it has "
            "ended"
        )
    stages = [process for process in here if _stage(process)]
    if orphans := [process for process in stages if not any(map(_runs_dvc, process.parents()))]:
        raise InputError(
            f"process {orphans[0].pid} runs {_stage(orphans[0])} here without DVC, which may have "
            f"been killed; wait until the process has ended, or stop it: {KILL} {orphans[0].pid}"
        )
    with _guard(repo):
        clear_lock(Path(repo.tmp_dir, RWLOCK_FILE), root)


def written_elsewhere(repo: Repo) -> set[Path]:
    """Return the outputs that another DVC process is writing."""
    try:
        with _guard(repo):
            lock = json.loads(Path(repo.tmp_dir, RWLOCK_FILE).read_bytes())
        writers = [
            (file, holder["pid"], holder["cmd"]) for file, holder in lock.get("write", {}).items()
        ]
    except DAMAGES:
        return set()
    return {Path(file) for file, pid, command in writers if is_running(pid, command)}


def _guard(repo: Repo) -> AbstractContextManager[Any]:
    """Return the lock that DVC holds while it reads or writes `rwlock`."""
    hardlink = repo.config["core"].get("hardlink_lock", False)
    path = str(Path(repo.tmp_dir, RWLOCK_LOCK))
    guard: AbstractContextManager[Any] = make_lock(path, repo.tmp_dir, hardlink_lock=hardlink)
    return guard


def repair(repo: Repo) -> None:
    """Replace a damaged `dvc.lock`, and remove partial files. DVC's lock must be held."""
    replace_lock_file(repo)
    root, runs = Path(repo.root_dir), Path(repo.stage_cache.cache_dir)
    if not others(root):
        remove_half_written(root)
        if runs.resolve().is_relative_to(root.resolve()):  # otherwise it can be shared
            remove_empty_runs(runs)


def clear_lock(path: Path, root: Path) -> None:
    """Remove processes that have ended from DVC's lock, or remove the lock if it is damaged.

    Args:
        path: `.dvc/tmp/rwlock`.
        root: the folder of the pipeline.
    """
    if not path.exists():
        return
    try:
        lock = json.loads(path.read_bytes())
        writers: dict[str, Holder] = lock.get("write", {})
        readers: dict[str, list[Holder]] = lock.get("read", {})
        holders = {(holder["pid"], holder["cmd"]) for holder in _each(writers, readers)}
        ended = sorted(holder for holder in holders if not is_running(*holder))
    except DAMAGES:
        if running := others(root):
            process, where = running[0], "here; wait until it has ended, or stop it"
            if not _folder(process):
                where = f"as {process.username()}; if not here, delete the lock"
            raise InputError(
                f"DVC's lock {path} is damaged, and process {process.pid} runs DVC {where}. Then "
                "run the same command again"
            ) from None
        path.unlink()
        print(f"DVC's lock {path} was damaged; removed it", flush=True)
        return
    if not ended:
        return

    def living(holder: Holder) -> bool:
        return (holder["pid"], holder["cmd"]) not in ended

    writers = {file: holder for file, holder in writers.items() if living(holder)}
    readers = {file: list(filter(living, holders)) for file, holders in readers.items()}
    readers = {file: holders for file, holders in readers.items() if holders}
    write_json(path, {"write": writers, "read": readers})
    for pid, command in ended:
        print(f"DVC's lock was held by process {pid}, which has ended ({command}); cleared it")


def _each(writers: dict[str, Holder], readers: dict[str, list[Holder]]) -> Iterator[Holder]:
    yield from writers.values()
    for holders in readers.values():
        yield from holders


def is_running(pid: int, command: str) -> bool:
    """Return whether another process with this ID can still be running a command in DVC's lock.

    The command is `sys.argv`. Its first word is the path of a script, even for `python -m`; on
    Windows it lacks `.exe`. If in doubt, the process counts as the one that holds the lock.
    """
    program, *_ = command.split() or [""]
    arguments = command.removeprefix(program).strip()
    path = Path(program)
    name = path.parent.name if path.stem == "__main__" else path.stem
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        if process != psutil.Process() and process.status() != psutil.STATUS_ZOMBIE:
            words = process.cmdline()
            names = {Path(word).stem for word in words} | {
                word.rpartition(".")[2] for word in words
            }
            alike = " ".join(words).replace(".exe", "").strip().endswith(arguments)
            return name in names or bool(arguments and alike)
    return False


def others(root: Path) -> list[psutil.Process]:
    """Return the other processes that run DVC or a stage in this folder or below.

    The folder of another user's process is unknown, so it could be this one.
    """
    found = []
    own = [psutil.Process(), *psutil.Process().parents()]
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            known = process not in own and (_runs_dvc(process) or _stage(process))
            folder = _folder(process) if known else None
            if known and (not folder or folder.is_relative_to(root.resolve())):
                found.append(process)
    return found


def _folder(process: psutil.Process) -> Path | None:
    """Return the folder in which a process runs, or None if it belongs to another user."""
    try:
        return Path(process.cwd()).resolve()
    except psutil.AccessDenied:
        return None


def _age(process: psutil.Process) -> tuple[float, int]:
    """Return a key that sorts processes by start time."""
    return process.create_time(), process.pid


def _runs_dvc(process: psutil.Process) -> bool:
    return any(Path(word).name in PROGRAMS for word in process.cmdline())


def _stage(process: psutil.Process) -> str:
    """Return the module of the stage that a process runs, or "" if it runs none."""
    words = [*process.cmdline(), ""]
    following = words[words.index("-m") + 1] if "-m" in words else ""
    return following if following.startswith("stages.") else ""


def replace_lock_file(repo: Repo) -> None:
    """Replace a `dvc.lock` that DVC cannot read with the committed one, or remove it.

    `dvc repro` restores the records of later runs from DVC's run cache. A copy of the damaged file
    is kept in `.dvc/tmp`. A file with a merge conflict is left alone.
    """
    path = Path(repo.root_dir) / LOCK_FILE
    if not path.exists() or _is_readable(repo):
        return
    content = path.read_bytes()
    if re.search(rb"^(<{7}|={7}|>{7})", content, re.MULTILINE):
        return
    Path(repo.tmp_dir, "dvc.lock.damaged").write_bytes(content)
    committed = subprocess.run(
        ["git", "show", f"HEAD:./{LOCK_FILE}"], cwd=path.parent, capture_output=True, check=False
    )
    if committed.returncode == 0:
        with replacing(path) as partial:
            partial.write_bytes(committed.stdout)
        print(f"{LOCK_FILE} was damaged; restored the committed one", flush=True)
    else:
        path.unlink()
        print(f"{LOCK_FILE} was damaged; removed it", flush=True)


def remove_half_written(root: Path) -> None:
    """Remove partial files that `charlm.core.files.replacing` left when its process was killed."""
    for folder in WRITTEN_TO:
        for path in (root / folder).rglob(f"{PARTIAL}*"):
            shutil.rmtree(path, ignore_errors=True)


def remove_empty_runs(cache: Path) -> None:
    """Remove empty files and folders from DVC's run cache, because DVC fails on them."""
    for folder in filter(Path.is_dir, cache.glob("*/*")):
        for path in filter(Path.is_file, folder.iterdir()):
            if path.stat().st_size == 0:
                path.unlink()
        if not any(folder.iterdir()):
            folder.rmdir()


def _is_readable(repo: Repo) -> bool:
    try:
        loaded = Lockfile(repo, str(Path(repo.root_dir) / LOCK_FILE)).load()
    except DvcException:
        return False
    return bool(loaded)
