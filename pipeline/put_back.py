"""Put back what DVC removed before it ran a stage that then refused its input."""

import hashlib
import json
import subprocess
from operator import itemgetter
from pathlib import Path

from dvc.exceptions import DvcException
from dvc.repo import Repo

from charlm.core.files import replacing

Content = dict[str, bytes]
"""The files of an output by their path in it; an output that is a file is its own, at "."."""

FOLDER = ".dir"
"""How DVC ends the MD5 of a folder, which is that of a list of its files."""


def put_back_outputs(stage: str) -> None:
    """Give the outputs of `stage` the contents that dvc.lock says they had.

    What is in neither the cache nor git was not there before, and is left alone.
    """
    try:
        # While no other stage is being recorded: dvc.lock would be half written.
        with Repo() as repo, repo.lock:
            for out in repo.stage.load_one(name=stage).outs:
                md5, path = out.hash_info.value, Path(out.fs_path)
                if md5 is None or _has(path, md5):
                    continue
                content = recorded_content(repo, path, md5)
                if content is not None:
                    with replacing(path) as partial:
                        write_content(partial, content)
    except (DvcException, OSError) as error:
        print(f"the earlier outputs could not be put back ({error}); try: dvc checkout")


def drop_damaged_copies(repo: Repo) -> list[str]:
    """Remove from DVC's cache what has not the MD5 that dvc.lock says; the outputs concerned.

    DVC takes a copy that nobody may write to for whole, and puts it back damaged however
    often it is asked to. Where the output itself is whole, it takes the copy's place.
    """
    dropped = []
    for out in repo.index.outs:
        md5, path = out.hash_info.value, Path(out.fs_path)
        if md5 is None:
            continue
        copies = {md5: path}
        if md5.endswith(FOLDER) and (files := _cached_list(repo, md5)) is not None:
            copies |= {its: path / name for name, its in files.items()}
        for its, file in copies.items():
            cached = _in_cache(repo, its)
            if not cached.is_file() or _digest(cached.read_bytes(), its) == its:
                continue
            if _has(file, its):
                with replacing(cached) as partial:
                    partial.write_bytes(_hashed(content_of(file)))
                cached.chmod(0o444)
            else:
                cached.unlink()
                dropped.append(out.def_path)
    return list(dict.fromkeys(dropped))


def recorded_content(repo: Repo, path: Path, md5: str) -> Content | None:
    """Read what an output with that MD5 held, if it is at hand.

    It comes from DVC's cache (for the sake of its run cache it keeps a copy even of
    metrics and plots that git tracks) or, in a clone that has pulled nothing, from git.
    """
    files = _cached_list(repo, md5) if md5.endswith(FOLDER) else {".": md5}
    if files is not None:
        copies = {name: _in_cache(repo, its) for name, its in files.items()}
        if all(_has(copies[name], its) for name, its in files.items()):
            return {name: copy.read_bytes() for name, copy in copies.items()}
    committed = _committed_content(path, md5)
    return committed if committed and digest(committed) == md5 else None


def content_of(path: Path) -> Content:
    """Read all files of an output; none if it does not exist."""
    if path.is_file():
        return {".": path.read_bytes()}
    files = (file for file in path.rglob("*") if file.is_file())
    return {file.relative_to(path).as_posix(): file.read_bytes() for file in files}


def write_content(path: Path, content: Content) -> None:
    """Write the files of an output, which is not there yet."""
    for name, data in content.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)


def digest(content: Content) -> str:
    """Compute the MD5 that DVC gives an output."""
    return _md5(_hashed(content)) + ("" if "." in content else FOLDER)


def _hashed(content: Content) -> bytes:
    """What the MD5 is of, and the cache has below it: a file's bytes, a folder's list of files."""
    if "." in content:
        return content["."]
    files = [{"md5": _md5(data), "relpath": name} for name, data in content.items()]
    return json.dumps(sorted(files, key=itemgetter("relpath")), sort_keys=True).encode()


def _cached_list(repo: Repo, md5: str) -> dict[str, str] | None:
    """The MD5 of each file of a folder, if DVC's cache has that list."""
    cached = _in_cache(repo, md5)
    if not cached.is_file() or _digest(cached.read_bytes(), md5) != md5:
        return None
    return {file["relpath"]: file["md5"] for file in json.loads(cached.read_bytes())}


def _committed_content(path: Path, md5: str) -> Content | None:
    """What git's last commit has of an output."""
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
    """Give the small files that git tracks a new time, so that git compares their contents.

    An experiment begun in a changed workspace may leave a changed file that is as long
    as the committed one, params.yaml or a history, unchanged in git's eyes: DVC writes
    both within a second, and git's index holds no finer time. `git status` would not
    show it, and `git checkout params.yaml` not bring the committed one back.
    """
    tracked = ["git", "ls-files", "-z", "params.yaml", "dvc.lock", "metrics", "plots"]
    listed = subprocess.run(tracked, capture_output=True, check=False).stdout.decode()
    for path in map(Path, filter(None, listed.split("\0"))):
        if path.exists():
            path.touch()


def _has(path: Path, md5: str) -> bool:
    return path.exists() and digest(content_of(path)) == md5


def _digest(data: bytes, md5: str) -> str:
    """The MD5 of a copy in the cache, written as `md5` is."""
    return _md5(data) + (FOLDER if md5.endswith(FOLDER) else "")


def _md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()
