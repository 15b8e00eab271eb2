"""What git does to files that DVC hashes, and what DVC does to files that git does not track."""

import contextlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.inputs import Inputs
from tests.conftest import ROOT, Project

WINDOWS = ["-c", "core.autocrlf=true"]  # git's default on Windows
SUFFIXES = [".gz", ".ico", ".jpg", ".npz", ".pdf", ".png", ".pt", ".safetensors", ".woff2", ".zip"]


def clone_with_cache(source: Project, path: Path, cache_of: Project, *options: str) -> Project:
    """Clone a project, with the outputs that another one has in its cache."""
    source.git(*options, "clone", "--quiet", *options, ".", str(path))
    clone = Project(path)
    clone.sign()
    clone.dvc("config", "--local", "cache.dir", str(cache_of.path / ".dvc/cache"))
    clone.dvc("checkout", "--quiet")
    return clone


def assert_up_to_date(project: Project) -> None:
    assert "Data and pipelines are up to date." in project.dvc("status").text
    assert project.git("status", "--short") == ""


def with_crlf(project: Project, name: str) -> bytes:
    """Give a file Windows line endings, and return its content."""
    path = project.path / name
    text = path.read_bytes().replace(b"\n", b"\r\n")
    path.write_bytes(text)
    return text


def test_a_clone_on_windows_is_up_to_date(project: Project, tmp_path: Path) -> None:
    clone = clone_with_cache(project, tmp_path / "clone", project, *WINDOWS)
    assert clone.git("config", "core.autocrlf") == "true\n"
    assert_up_to_date(clone)
    ends = {line.split()[1] for line in clone.git("ls-files", "--eol").splitlines()}
    assert ends == {"w/lf", "w/none", "w/-text"}


@pytest.mark.slow
def test_files_committed_with_crlf_are_up_to_date_in_every_clone(
    project: Project, tmp_path: Path
) -> None:
    before = project.outputs()
    author = clone_with_cache(project, tmp_path / "author", project, *WINDOWS)
    names = with_crlf(author, "data/few.txt")
    code = with_crlf(author, "stages/sample.py")
    with_crlf(author, "params.yaml")
    with_crlf(author, "Makefile")
    ran = author.dvc("repro")
    assert ran.stages == ["build_dataset", "sample"]
    assert author.outputs() == before | {"data/few.txt": names}, "the same names, the same bytes"
    author.commit("As an editor on Windows writes it")
    assert_up_to_date(author)
    for name, options in (("windows", WINDOWS), ("linux", [])):
        clone = clone_with_cache(author, tmp_path / name, project, *options)
        assert_up_to_date(clone)
        assert (clone.path / "data/few.txt").read_bytes() == names
        assert (clone.path / "stages/sample.py").read_bytes() == code
        for file in ("Makefile", "params.yaml"):  # files that DVC does not hash
            assert b"\r" not in (clone.path / file).read_bytes()


def test_the_formatter_finds_code_with_crlf(tmp_path: Path) -> None:
    file = tmp_path / "it.py"
    command = [sys.executable, "-m", "ruff", "format", "--config", str(ROOT / "pyproject.toml")]
    for text, code in ((b"x = 1\n", 0), (b"x = 1\r\n", 1)):
        file.write_bytes(text)
        assert subprocess.run([*command, "--check", str(file)], check=False).returncode == code


def test_binary_files_that_look_like_text_keep_their_bytes(tmp_path: Path) -> None:
    project = Project(tmp_path / "it")
    project.path.mkdir()
    project.git("init", "--quiet")
    project.sign()
    project.git("config", "core.autocrlf", "true")
    (project.path / ".gitattributes").write_bytes((ROOT / ".gitattributes").read_bytes())
    for suffix in SUFFIXES:
        (project.path / f"it{suffix}").write_bytes(b"one\r\ntwo\r\n")
    (project.path / "it.md").write_bytes(b"one\r\ntwo\r\n")
    project.commit("All")
    clone = project.clone(tmp_path / "clone")
    for suffix in SUFFIXES:
        assert (clone.path / f"it{suffix}").read_bytes() == b"one\r\ntwo\r\n", suffix
    assert (clone.path / "it.md").read_bytes() == b"one\ntwo\n"


def in_repository(project: Project, path: Path) -> bool:
    """Return whether .git has the content of a file."""
    blob = project.git("hash-object", "--no-filters", str(path)).strip()
    return project.run("git", "cat-file", "-e", blob, code=None).code == 0


ENVIRONMENTS = ["venv", ".venv", "env", "ENV", ".conda", ".pixi", ".direnv", ".tox", ".nox"]


@pytest.fixture(scope="module")
def calm(template: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The small project with virtual environments in it, and with an experiment run and applied."""
    project = Project(tmp_path_factory.mktemp("calm") / "project")
    shutil.copytree(template.path, project.path, symlinks=True)
    for folder in ENVIRONMENTS:
        library = project.path / folder / "lib"
        library.mkdir(parents=True)
        (library / "large.py").write_text(f"# {folder}\n", encoding="utf-8")
        (library / "dvc.yaml").write_text("not for DVC", encoding="utf-8")
    (project.path / "notes.txt").write_text("untracked\n", encoding="utf-8")
    project.dvc("exp", "run", "--name", "calm", "-S", "sample.temperature=0.7")
    project.dvc("exp", "apply", "calm")
    return project


def test_an_environment_in_the_folder_stays_out_of_git(calm: Project) -> None:
    notes = calm.path / "notes.txt"
    assert in_repository(calm, notes), "DVC copies what is neither tracked nor ignored"
    files = [calm.path / folder / "lib/large.py" for folder in ENVIRONMENTS]
    assert [str(file) for file in files if in_repository(calm, file)] == []
    reference = calm.git("for-each-ref", "--format=%(refname)", "refs/exps/*/*/calm").strip()
    tree = calm.git("ls-tree", "--name-only", reference).splitlines()
    assert "dvc.lock" in tree
    assert set(ENVIRONMENTS).isdisjoint(tree)


def test_files_that_editors_leave_behind_outdate_no_stage(project: Project) -> None:
    for folder in ("charlm/models", "data/samples"):
        for name in (
            *(".DS_Store", ".fcn.py.swp", "fcn.py~", ".ipynb_checkpoints/fcn.py"),
            *("#fcn.py#", "fcn.py.orig", ".goutputstream-AB12"),
        ):
            file = project.path / folder / name
            file.parent.mkdir(exist_ok=True)
            file.write_text("left behind\n", encoding="utf-8")
        (project.path / folder / ".#fcn.py").symlink_to("user@host.1:2")  # a lock file of Emacs
    assert_up_to_date(project)
    with contextlib.chdir(project.path):
        assert [n for n in Inputs("train_fcn").files if n.startswith("charlm/models/")] == [
            "charlm/models/base.py",
            "charlm/models/fcn.py",
        ]


def keeping_edits() -> list[str]:
    """Return the commands in the guide that bring back what `dvc exp apply` reset."""
    page = (ROOT / "docs/experiments.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```bash\n(git stash show [^`]*)^```", page, flags=re.MULTILINE)
    return [line.partition("  #")[0].strip() for line in block.splitlines()]


def test_edits_reset_by_apply_come_back_as_the_guide_says(calm: Project, tmp_path: Path) -> None:
    project = Project(tmp_path / "project")
    shutil.copytree(calm.path, project.path, symlinks=True)
    show, restore = keeping_edits()
    name = restore.split()[-1]
    code = project.path / name
    project.git("checkout", "--quiet", ".")
    original = code.read_text(encoding="utf-8")
    code.write_text(f"{original}# edited\n", encoding="utf-8")
    project.dvc("exp", "apply", "calm")
    assert code.read_text(encoding="utf-8") == original
    assert (project.path / "notes.txt").read_text(encoding="utf-8") == "untracked\n"
    applied = project.git("status", "--short").splitlines()
    assert name in project.run(*show.split()).text
    project.run(*restore.split())
    assert code.read_text(encoding="utf-8") == f"{original}# edited\n"
    assert sorted(project.git("status", "--short").splitlines()) == sorted([*applied, f" M {name}"])
    project.git("checkout", "--quiet", name)
    project.dvc("exp", "apply", "calm")
    assert name not in project.run(*show.split()).text, "only the last apply keeps edits"
