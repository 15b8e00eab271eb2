"""Find the files of a dependency that DVC hashes: all that `.dvcignore` does not exclude.

Importing DVC's own code for this takes longer than a short stage runs.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern

from charlm.core.errors import InputError

IGNORE_FILE = ".dvcignore"
ALWAYS_IGNORED = (".hg/", ".git/", ".git", ".dvc/")

Rule = tuple[str, GitIgnoreSpecPattern]
"""The folder of a `.dvcignore` (ending in "/", or empty for the root), and one of its lines."""


def hashed_files(path: Path) -> Iterator[Path]:
    """Yield the files of a dependency, which is a file or folder below the current one, in order.

    Raises InputError if a `.dvcignore` cannot be read.
    """
    if path.is_file():
        yield path
    root, *above = reversed(path.parents)
    rules = [rule for folder in (root, *above) for rule in _rules(folder)]
    if any(_is_ignored(f"{folder.as_posix()}/", rules) for folder in (*above, path)):
        return
    for name, folders, files in os.walk(path):
        folder = Path(name)
        folders[:] = sorted(
            name for name in folders if not _is_ignored(f"{(folder / name).as_posix()}/", rules)
        )
        for file in map(folder.joinpath, sorted(files)):
            if file.is_file() and not _is_ignored(file.as_posix(), rules):
                yield file


def _rules(folder: Path) -> Iterator[Rule]:
    """Yield the rules of a folder's `.dvcignore`; for the root, also DVC's default rules."""
    prefix, path = "" if folder == Path() else f"{folder.as_posix()}/", folder / IGNORE_FILE
    try:
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        for line in [*(() if prefix else ALWAYS_IGNORED), *lines]:
            yield prefix, GitIgnoreSpecPattern(line.strip())
    except ValueError as error:  # not UTF-8, or not a pattern
        raise InputError(f"{path} cannot be read ({error}); fix it") from None


def _is_ignored(path: str, rules: list[Rule]) -> bool:
    """Return whether DVC ignores a path. The path of a folder ends in "/"."""
    for prefix, rule in reversed(rules):
        if not rule.regex or (str(rule.pattern).endswith("/") and not path.endswith("/")):
            continue
        # `match`, like DVC, not `search`, like pathspec: for DVC, `*/` in the root ignores nothing.
        if path.startswith(prefix) and rule.regex.match(path.removeprefix(prefix)):
            return bool(rule.include)
    return False
