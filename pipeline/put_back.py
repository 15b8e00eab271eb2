"""Restore the outputs of a failed stage, which DVC had removed before it ran the stage.

Stages do this themselves when they fail. Run `python -m pipeline.put_back` if a stage could not do
it, because it was killed or because there is no `python`.
"""

import os
import sqlite3
import subprocess
from argparse import ArgumentParser
from pathlib import Path

from dvc.exceptions import DvcException
from dvc.repo import Repo

from charlm.core.files import replacing
from pipeline.cache import (
    FOLDER,
    Content,
    cached_list,
    digest,
    has,
    in_cache,
    write_content,
)
from pipeline.recovery import written_elsewhere

DVC_ERRORS = (DvcException, OSError, sqlite3.Error)
"""What DVC raises for bad input, a folder that is not writable, or a full disk."""


def put_back_outputs(stage: str | None = None) -> None:
    """Restore the outputs of `stage` to the contents recorded in dvc.lock.

    Without a stage, restore all missing outputs. Outputs that are neither in the cache nor in git
    did not exist before; they are left alone, and so are outputs that another DVC is writing.
    """
    try:
        # The lock makes sure that dvc.lock is not being written for another stage.
        with Repo() as repo, repo.lock:
            # In a stage, the DVC that runs it is the one that writes its outputs.
            taken = set() if "DVC_STAGE" in os.environ else written_elsewhere(repo)
            for out in repo.stage.load_one(name=stage).outs if stage else repo.index.outs:
                md5, path = out.hash_info.value, Path(out.fs_path)
                if md5 is None or path in taken or (has(path, md5) if stage else path.exists()):
                    continue
                content = recorded_content(repo, path, md5)
                if content is not None:
                    with replacing(path) as partial:
                        write_content(partial, content)
    except DVC_ERRORS as error:
        print(f"the previous outputs could not be restored ({error}); try: dvc checkout")


def recorded_content(repo: Repo, path: Path, md5: str) -> Content | None:
    """Return the content of an output with this MD5, or None if it is not available.

    It comes from DVC's cache, which also has the metrics and plots that git tracks (for the run
    cache), or else from git.
    """
    files = cached_list(repo, md5) if md5.endswith(FOLDER) else {".": md5}
    if files is not None:
        copies = {name: in_cache(repo, file_md5) for name, file_md5 in files.items()}
        if all(has(copies[name], file_md5) for name, file_md5 in files.items()):
            return {name: copy.read_bytes() for name, copy in copies.items()}
    committed = _committed_content(path, md5)
    return committed if committed and digest(committed) == md5 else None


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


def refresh_git_index() -> None:
    """Touch the small tracked files, so that git compares their contents.

    After an experiment in a workspace with changes, git can miss that a file of the same size has
    changed (params.yaml or a history), because DVC writes both versions within a second, the
    resolution of git's index. Then `git status` does not show the file, and `git checkout
    params.yaml` does not restore it.
    """
    tracked = ["git", "ls-files", "-z", "params.yaml", "dvc.lock", "metrics", "plots"]
    listed = subprocess.run(tracked, capture_output=True, check=False).stdout.decode()
    for path in map(Path, filter(None, listed.split("\0"))):
        if path.exists():
            path.touch()


def main(stage: str | None = None) -> None:
    """Restore the outputs of a stage, or all missing ones, and refresh git's index."""
    put_back_outputs(stage)
    refresh_git_index()


if __name__ == "__main__":
    parser = ArgumentParser(prog="python -m pipeline.put_back", description=__doc__)
    parser.add_argument("stage", nargs="?", help="name of the stage (default: all stages)")
    main(parser.parse_args().stage)
