"""Putting back what DVC removed before it ran a stage that then refused its input."""

import hashlib
import subprocess
from pathlib import Path

from dvc.exceptions import DvcException
from dvc.repo import Repo

from charlm.files import replacing


def put_back_outputs(stage: str) -> None:
    """Give the outputs of `stage` the contents that dvc.lock says they had.

    They come from DVC's cache (for the sake of its run cache it keeps a copy even
    of metrics and plots that git tracks) or, in a clone that has pulled nothing,
    from git. What is in neither was not there before, and is left alone.
    """
    try:
        with Repo() as repo:
            for out in repo.stage.load_one(name=stage).outs:
                md5, path = out.hash_info.value, Path(out.fs_path)
                if md5 is None or _has(path, md5):
                    continue
                content = _from_cache(Path(repo.cache.local.oid_to_path(md5)), md5)
                content = content or _from_git(path, md5)
                if content is not None:
                    with replacing(path) as partial:
                        partial.write_bytes(content)
    except DvcException as error:
        print(f"the earlier outputs could not be put back ({error}); try: dvc checkout")


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


def _from_cache(cached: Path, md5: str) -> bytes | None:
    return cached.read_bytes() if _has(cached, md5) else None


def _from_git(path: Path, md5: str) -> bytes | None:
    command = ["git", "show", f"HEAD:./{path.name}"]
    shown = subprocess.run(command, cwd=path.parent, capture_output=True, check=False)
    return shown.stdout if _md5(shown.stdout) == md5 else None


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()
