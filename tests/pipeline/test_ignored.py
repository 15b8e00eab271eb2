"""A dependency has exactly the files that DVC hashes, whatever `.dvcignore` says."""

from pathlib import Path

import pytest
from dvc.repo import Repo

from pipeline.ignored import hashed_files
from tests.helpers import refused

DVC_YAML = """
stages:
  train:
    cmd: python -m stages.train
    deps: [code/own]
"""

FILES = (
    "a.py",
    "b.py",
    "a.txt",
    "venv/lib/a.py",
    "more/a.py",
    "more/b.txt",
    "more/code/own/a.py",
    "more/venv/a.py",
    "__pycache__/a.pyc",
    ".git",
    "#a.py#",
    "deep/er/still/a.py",
)


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("repo")
    Repo.init(str(root), no_scm=True).close()
    (root / "dvc.yaml").write_text(DVC_YAML)
    for name in FILES:
        file = root / "code/own" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    (root / "code/own/linked").symlink_to("more")
    (root / "code/own/linked.py").symlink_to("a.py")
    return root


def hashed_by_dvc(root: Path) -> list[Path]:
    """Return the files in the list that DVC records for the folder."""
    with Repo(str(root)) as repo:
        (dependency,) = repo.stage.load_one(name="train").deps
        dependency.save()
        return [Path("code/own", *key) for key, _, _ in dependency.obj]


@pytest.mark.parametrize(
    ("root", "above"),
    [
        ("", ""),
        ("# nothing\n\n*.txt\n__pycache__", ""),
        ("*.py\n!b.py", ""),
        ("/venv", ""),
        ("/code/own/venv", ""),
        ("venv/", ""),
        ("*/venv", ""),
        ("own/venv", ""),
        ("code/**/venv", ""),
        ("**/venv/lib", ""),
        ("code/own/**", ""),
        ("code/own/*\n!code/own/more\n!*.txt", ""),
        ("more\n!more/a.py", ""),
        ("*.py\n!more/", ""),
        ("*.py\n!more", ""),
        ("*\n!*/\n!*.py\n!dvc.yaml", ""),
        ("code/own/more/*/", ""),
        ("[#]*#", ""),
        (r"\#a.py#", ""),
        ("deep/er", ""),
        ("own", ""),
        ("  a.py  ", ""),
        ("", "/own/venv\n*.txt"),
        ("*.py", "!a.py"),
        ("*.py", "!/own/a.py"),
        ("!a.py", "a.*"),
        ("", "/a.py"),
    ],
)
def test_the_files_are_those_that_dvc_hashes(
    repo: Path, monkeypatch: pytest.MonkeyPatch, root: str, above: str
) -> None:
    (repo / ".dvcignore").write_text(root)
    (repo / "code/.dvcignore").write_text(above)
    monkeypatch.chdir(repo)
    expected = hashed_by_dvc(repo)
    assert sorted(hashed_files(Path("code/own"))) == sorted(expected)


def test_a_dependency_that_is_a_file_is_never_ignored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(".dvcignore").write_text("names.txt")
    Path("names.txt").touch()
    assert list(hashed_files(Path("names.txt"))) == [Path("names.txt")]


@pytest.mark.parametrize("content", [b"a\n!\n", b"\xff\n"])
def test_an_invalid_pattern_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(".dvcignore").write_bytes(content)
    with refused(".dvcignore cannot be read"):
        list(hashed_files(Path("code")))
