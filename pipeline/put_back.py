"""Putting back what DVC removed before it ran a stage that then refused its input."""

import hashlib
import subprocess
from pathlib import Path

from dvc.exceptions import DvcException
from dvc.repo import Repo

from charlm.core.files import replacing


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
                        partial.write_bytes(content)
    except (DvcException, OSError) as error:
        print(f"the earlier outputs could not be put back ({error}); try: dvc checkout")


def drop_damaged_copies(repo: Repo) -> list[str]:
    """Remove from DVC's cache what has not the MD5 that dvc.lock says; the outputs concerned.

    DVC takes a copy that nobody may write to for whole, and puts it back damaged however
    often it is asked to. Where the output itself is whole, it takes the copy's place.
    """
    dropped = []
    for out in repo.index.outs:
        md5 = out.hash_info.value
        if md5 is None:
            continue
        cached, path = Path(repo.cache.local.oid_to_path(md5)), Path(out.fs_path)
        if not cached.is_file() or _has(cached, md5):
            continue
        if _has(path, md5):
            with replacing(cached) as partial:
                partial.write_bytes(path.read_bytes())
            cached.chmod(0o444)
        else:
            cached.unlink()
            dropped.append(out.def_path)
    return dropped


def recorded_content(repo: Repo, path: Path | str, md5: str) -> bytes | None:
    """What an output with that MD5 held, if it is at hand.

    It comes from DVC's cache (for the sake of its run cache it keeps a copy even of
    metrics and plots that git tracks) or, in a clone that has pulled nothing, from git.
    """
    cached = Path(repo.cache.local.oid_to_path(md5))
    if _has(cached, md5):
        return cached.read_bytes()
    path = Path(path)
    if not path.parent.is_dir():
        return None
    command = ["git", "show", f"HEAD:./{path.name}"]
    shown = subprocess.run(command, cwd=path.parent, capture_output=True, check=False)
    return shown.stdout if _md5(shown.stdout) == md5 else None


def have_git_look_again() -> None:
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
    return path.is_file() and _md5(path.read_bytes()) == md5


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()
