"""Read the contents of outputs, and remove damaged files from DVC's cache."""

import hashlib
import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from operator import itemgetter
from pathlib import Path
from typing import Any

from dvc.repo import Repo
from dvc.utils.serialize import parse_yaml

from charlm.core.files import remove, replacing

Content = dict[str, bytes]
"""The files of an output by relative path. If the output is a single file, its path is "."."""

Output = tuple[str, str]
"""The path of an output and its MD5."""

FOLDER = ".dir"
"""Suffix that DVC adds to the MD5 of a folder, which is the MD5 of its file list."""

CACHED_OUTPUT = re.compile(r"^- path: (.+)\n  hash: md5\n  md5: (\S+)$", re.MULTILINE)
"""An output in an entry of DVC's run cache."""


def content_of(path: Path) -> Content:
    """Read all files of an output; empty if it does not exist."""
    if path.is_file():
        return {".": path.read_bytes()}
    files = (file for file in path.rglob("*") if file.is_file())
    return {file.relative_to(path).as_posix(): file.read_bytes() for file in files}


def write_content(path: Path, content: Content) -> None:
    """Write the files of an output, which must not exist yet."""
    for name, data in content.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)


def has(path: Path, md5: str) -> bool:
    """Return whether an output exists and has this MD5."""
    return path.exists() and digest(content_of(path)) == md5


def digest(content: Content) -> str:
    """Compute the MD5 of an output as DVC does."""
    return _md5(_hashed(content)) + ("" if "." in content else FOLDER)


def folder_digest(files: Mapping[str, str]) -> str:
    """Compute the MD5 of a folder as DVC does, from the MD5 of each file."""
    return _md5(_file_list(files)) + FOLDER


def _file_list(files: Mapping[str, str]) -> bytes:
    """Return the file list of a folder, in the form that DVC hashes and caches."""
    listed = [{"md5": md5, "relpath": name} for name, md5 in files.items()]
    return json.dumps(sorted(listed, key=itemgetter("relpath")), sort_keys=True).encode()


def cached_list(repo: Repo, md5: str) -> dict[str, str] | None:
    """Return the MD5 of each file in a folder, or None if its file list is not in DVC's cache."""
    cached = in_cache(repo, md5)
    if not cached.is_file() or _digest(cached, md5) != md5:
        return None
    return {file["relpath"]: file["md5"] for file in json.loads(cached.read_bytes())}


def in_cache(repo: Repo, md5: str) -> Path:
    """Return the path of a file in DVC's cache."""
    return Path(repo.cache.local.oid_to_path(md5))


def recorded_outputs(repo: Repo) -> list[Output]:
    """Return the outputs in `dvc.lock`."""
    return [(out.def_path, out.hash_info.value) for out in repo.index.outs if out.hash_info]


def restorable_outputs(repo: Repo, stages: Collection[str]) -> list[Output]:
    """Return the outputs that DVC can restore from its run cache for these stages."""
    commands = {stage.cmd for stage in repo.index.stages if stage.addressing in stages}
    found: dict[Output, None] = {}
    for _, text in _runs(repo, commands):
        found |= dict.fromkeys(CACHED_OUTPUT.findall(text.partition("\nouts:\n")[2]))
    return list(found)


def drop_run(repo: Repo, entry: Mapping[str, Any]) -> None:
    """Remove an entry of `dvc.lock` from DVC's run cache."""
    for path, text in _runs(repo, {entry["cmd"]}):
        if parse_yaml(text, path) == entry:
            path.unlink()
            if not any(path.parent.iterdir()):  # DVC fails on an empty folder
                path.parent.rmdir()


def _runs(repo: Repo, commands: Collection[str]) -> Iterator[tuple[Path, str]]:
    """Yield the path and text of the entries of DVC's run cache with these commands.

    They are not parsed as YAML, because that takes 9 ms each.
    """
    for path in Path(repo.stage_cache.cache_dir).glob("*/*/*"):
        try:
            text = path.read_text(encoding="utf-8", errors="replace")
        except OSError:  # not readable, or just removed
            continue
        if text.partition("\n")[0].removeprefix("cmd: ") in commands:
            yield path, text


def drop_damaged_copies(repo: Repo, outputs: Iterable[Output]) -> list[str]:
    """Remove damaged files of the outputs from DVC's cache; return the outputs that lost files.

    DVC trusts write-protected files in its cache without checking them. If the output in the
    workspace is intact, it replaces the damaged copy.
    """
    dropped = []
    for name, md5 in outputs:
        path = Path(repo.root_dir, name)
        copies = {md5: path}
        if md5.endswith(FOLDER) and (files := cached_list(repo, md5)) is not None:
            copies |= {file_md5: path / file for file, file_md5 in files.items()}
        for expected, file in copies.items():
            cached = in_cache(repo, expected)
            if not cached.is_file() or _digest(cached, expected) == expected:
                continue
            if has(file, expected):
                with replacing(cached) as partial:
                    partial.write_bytes(_hashed(content_of(file)))
                cached.chmod(0o444)
            else:
                remove(cached)
                dropped.append(name)
    return list(dict.fromkeys(dropped))


def _hashed(content: Content) -> bytes:
    """Return the bytes that DVC hashes and caches: of the file, or of the folder's file list."""
    if "." in content:
        return content["."]
    return _file_list({name: _md5(data) for name, data in content.items()})


def _digest(cached: Path, md5: str) -> str:
    """Compute the MD5 of a file in the cache, with the same suffix as `md5`."""
    with cached.open("rb") as file:
        found = hashlib.file_digest(file, "md5").hexdigest()
    return found + (FOLDER if md5.endswith(FOLDER) else "")


def _md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()
