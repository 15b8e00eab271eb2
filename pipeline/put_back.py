"""Restore the outputs that DVC removed before it ran a stage that then failed.

The stages do this themselves; `python -m pipeline.put_back` does it after a failure in which none
of our code ran (no `python`, a stage that was killed).
"""

import hashlib
import json
import sqlite3
import subprocess
import sys
from operator import itemgetter
from pathlib import Path

from dvc.exceptions import DvcException
from dvc.repo import Repo

from charlm.core.files import replacing

Content = dict[str, bytes]
"""The files of an output by relative path; an output that is a single file has the path "."."""

DVC_ERRORS = (DvcException, OSError, sqlite3.Error)
"""What DVC raises for bad input, a folder that is not writable, or a full disk."""

FOLDER = ".dir"
"""Suffix that DVC adds to the MD5 of a folder (of its file list)."""


def put_back_outputs(stage: str | None = None) -> None:
    """Restore the outputs of `stage` to the contents recorded in dvc.lock.

    Without a stage, restore all outputs that are missing. Outputs in neither the cache nor git did
    not exist before and are left alone.
    """
    try:
        # The lock ensures that dvc.lock is not being written for another stage.
        with Repo() as repo, repo.lock:
            for out in repo.stage.load_one(name=stage).outs if stage else repo.index.outs:
                md5, path = out.hash_info.value, Path(out.fs_path)
                if md5 is None or (_has(path, md5) if stage else path.exists()):
                    continue
                content = recorded_content(repo, path, md5)
                if content is not None:
                    with replacing(path) as partial:
                        write_content(partial, content)
    except DVC_ERRORS as error:
        print(f"the previous outputs could not be restored ({error}); try: dvc checkout")


def drop_damaged_copies(repo: Repo) -> list[str]:
    """Remove files from DVC's cache that do not match dvc.lock; return the affected outputs.

    DVC trusts write-protected files in its cache without checking them. If the output in the
    workspace is intact, it replaces the damaged copy.
    """
    dropped = []
    for out in repo.index.outs:
        md5, path = out.hash_info.value, Path(out.fs_path)
        if md5 is None:
            continue
        copies = {md5: path}
        if md5.endswith(FOLDER) and (files := _cached_list(repo, md5)) is not None:
            copies |= {file_md5: path / name for name, file_md5 in files.items()}
        for expected, file in copies.items():
            cached = _in_cache(repo, expected)
            if not cached.is_file() or _digest(cached.read_bytes(), expected) == expected:
                continue
            if _has(file, expected):
                with replacing(cached) as partial:
                    partial.write_bytes(_hashed(content_of(file)))
                cached.chmod(0o444)
            else:
                cached.unlink()
                dropped.append(out.def_path)
    return list(dict.fromkeys(dropped))


def recorded_content(repo: Repo, path: Path, md5: str) -> Content | None:
    """Return the content of an output with that MD5, if available.

    It comes from DVC's cache (which, for the run cache, also has metrics and plots that git
    tracks) or, in a clone without a cache, from git.
    """
    files = _cached_list(repo, md5) if md5.endswith(FOLDER) else {".": md5}
    if files is not None:
        copies = {name: _in_cache(repo, file_md5) for name, file_md5 in files.items()}
        if all(_has(copies[name], file_md5) for name, file_md5 in files.items()):
            return {name: copy.read_bytes() for name, copy in copies.items()}
    committed = _committed_content(path, md5)
    return committed if committed and digest(committed) == md5 else None


def content_of(path: Path) -> Content:
    """Read all files of an output; empty if it does not exist."""
    if path.is_file():
        return {".": path.read_bytes()}
    files = (file for file in path.rglob("*") if file.is_file())
    return {file.relative_to(path).as_posix(): file.read_bytes() for file in files}


def write_content(path: Path, content: Content) -> None:
    """Write the files of an output that does not exist yet."""
    for name, data in content.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)


def digest(content: Content) -> str:
    """Compute the MD5 of an output as DVC does."""
    return _md5(_hashed(content)) + ("" if "." in content else FOLDER)


def _hashed(content: Content) -> bytes:
    """Return the bytes that DVC hashes and caches: those of a file, or a folder's file list."""
    if "." in content:
        return content["."]
    files = [{"md5": _md5(data), "relpath": name} for name, data in content.items()]
    return json.dumps(sorted(files, key=itemgetter("relpath")), sort_keys=True).encode()


def _cached_list(repo: Repo, md5: str) -> dict[str, str] | None:
    """Return the MD5 of each file of a folder, if DVC's cache has its file list."""
    cached = _in_cache(repo, md5)
    if not cached.is_file() or _digest(cached.read_bytes(), md5) != md5:
        return None
    return {file["relpath"]: file["md5"] for file in json.loads(cached.read_bytes())}


def _committed_content(path: Path, md5: str) -> Content | None:
    """Return the content of an output at HEAD."""
    if not path.parent.is_dir():
        return None

    def git(*command: str) -> bytes:
        return subprocess.run(
            ["git", *command], cwd=path.parent, capture_output=True, check=False
        ).stdout

    if not md5.endswith(FOLDER):
        return {".": git("show", f"HEAD:./{path.name}")}
    listed = git("ls-tree", "-r", "-z", "--name-only", "HEAD", f"{path.name}/").decode()
    names = [name for name in listed.split("\0") if name]
    return {name.partition("/")[2]: git("show", f"HEAD:./{name}") for name in names}


def _in_cache(repo: Repo, md5: str) -> Path:
    return Path(repo.cache.local.oid_to_path(md5))


def refresh_git_index() -> None:
    """Touch the small tracked files so that git compares their contents.

    After an experiment in a changed workspace, git may overlook a changed file of the same size
    (params.yaml or a history): DVC writes both versions within a second, the resolution of git's
    index. `git status` would not show it, and `git checkout params.yaml` not restore it.
    """
    tracked = ["git", "ls-files", "-z", "params.yaml", "dvc.lock", "metrics", "plots"]
    listed = subprocess.run(tracked, capture_output=True, check=False).stdout.decode()
    for path in map(Path, filter(None, listed.split("\0"))):
        if path.exists():
            path.touch()


def _has(path: Path, md5: str) -> bool:
    return path.exists() and digest(content_of(path)) == md5


def _digest(data: bytes, md5: str) -> str:
    """Compute the MD5 of a file in the cache, with the same suffix as `md5`."""
    return _md5(data) + (FOLDER if md5.endswith(FOLDER) else "")


def _md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def main(stage: str | None = None) -> None:
    """Restore the outputs of a stage, or all that are missing, and what git knows of them."""
    put_back_outputs(stage)
    refresh_git_index()


if __name__ == "__main__":
    main(*sys.argv[1:])
