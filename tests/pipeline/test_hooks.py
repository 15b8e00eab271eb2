"""The git hooks of .pre-commit-config.yaml, called by git in a real repository."""

import re
import shutil
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tests.conftest import ROOT, Project, Ran

BIN = Path(sys.executable).parent
UGLY = "import os\nprint( 'x' )\n"


@pytest.fixture(scope="module")
def hooked(template: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The small project with a .venv, a git remote and the hooks."""
    folder = tmp_path_factory.mktemp("hooks")
    project = Project(folder / "project")
    shutil.copytree(template.path, project.path, symlinks=True)
    (project.path / ".venv").mkdir()
    (project.path / ".venv/bin").symlink_to(BIN)
    project.git("init", "--quiet", "--bare", str(folder / "remote.git"))
    project.git("remote", "add", "origin", str(folder / "remote.git"))
    told = project.run(".venv/bin/pre-commit", "install").text
    assert re.findall(r"installed at \.git/hooks/([\w-]+)", told) == [
        "pre-commit",
        "post-checkout",
        "pre-push",
    ]
    return project


def commit(project: Project, code: int = 0) -> Ran:
    project.git("add", "--all")
    return project.run("git", "commit", "--message", "A change", code=code)


def test_hooks_run_the_pinned_versions() -> None:
    (repo,) = YAML(typ="safe", pure=True).load(ROOT / ".pre-commit-config.yaml")["repos"]
    assert repo["repo"] == "local", "another repository would bring versions of its own"
    programs = {
        name for hook in repo["hooks"] for name in re.findall(r"\.venv/bin/(\w+)", hook["entry"])
    }
    assert programs == {"ruff", "dvc"}
    pinned = "".join((ROOT / f"requirements{kind}.txt").read_text("utf-8") for kind in ("", "-dev"))
    for name in (*programs, "pre-commit"):
        assert re.search(rf"^{name}==[\d.]+", pinned, flags=re.MULTILINE), name


def test_the_repository_passes_the_hooks(hooked: Project) -> None:
    ran = hooked.run(".venv/bin/pre-commit", "run", "--all-files")
    assert re.findall(r"^(.*?)\.{3,}Passed$", ran.text, flags=re.MULTILINE) == [
        "ruff check",
        "ruff format",
        "dvc status, which reports and blocks nothing",
    ]


def test_a_commit_that_fails_ruff_is_refused_and_formatted(hooked: Project) -> None:
    before = hooked.git("rev-parse", "HEAD")
    ugly = hooked.path / "ugly.py"
    ugly.write_text(UGLY, encoding="utf-8")
    told = commit(hooked, code=1).text
    assert "F401" in told
    assert "1 file reformatted" in told
    assert ugly.read_text(encoding="utf-8") == 'import os\n\nprint("x")\n'
    assert hooked.git("rev-parse", "HEAD") == before
    hooked.git("rm", "--quiet", "--force", "ugly.py")


def test_a_commit_lists_the_outdated_stages(hooked: Project) -> None:
    hooked.set(sample__temperature="0.5")
    told = commit(hooked).text
    assert re.search(r"^sample:\n\s+changed deps:\n\s+params\.yaml:", told, flags=re.MULTILINE)
    hooked.git("reset", "--quiet", "--hard", "HEAD~1")
    (hooked.path / "NOTES").write_text("nothing to run\n", encoding="utf-8")
    assert "Data and pipelines are up to date." in commit(hooked).text


@pytest.mark.slow
def test_a_checkout_restores_the_outputs_of_the_branch(hooked: Project) -> None:
    samples = hooked.path / "data/samples/fcn.csv"
    before = samples.read_bytes()
    hooked.git("checkout", "--quiet", "-b", "cooler")
    hooked.set(sample__temperature="0.5")
    hooked.dvc("repro", "sample")
    commit(hooked)
    cooler = samples.read_bytes()
    assert cooler != before
    hooked.git("checkout", "--quiet", "main")
    assert samples.read_bytes() == before
    hooked.git("checkout", "--quiet", "cooler")
    assert samples.read_bytes() == cooler
    hooked.git("checkout", "--quiet", "main")


@pytest.mark.slow
def test_a_push_also_pushes_to_the_dvc_remote_if_there_is_one(
    hooked: Project, tmp_path: Path
) -> None:
    told = hooked.run("git", "push", "origin", "HEAD:refs/heads/first").text
    assert "no default DVC remote: models and data stay here" in told
    assert "first" in hooked.git("ls-remote", "origin")
    hooked.dvc("remote", "add", "--default", "storage", str(tmp_path / "storage"))
    commit(hooked)
    assert "pushed" in hooked.run("git", "push", "origin", "HEAD:refs/heads/second").text
    kept = {path.name for path in (tmp_path / "storage").rglob("*") if path.is_file()}
    stages = YAML(typ="safe", pure=True).load(hooked.path / "dvc.lock")["stages"].values()
    outs = [out for stage in stages for out in stage["outs"] if out["path"].startswith("data/")]
    assert len(outs) > 2
    assert {out["md5"][2:] for out in outs} <= kept
