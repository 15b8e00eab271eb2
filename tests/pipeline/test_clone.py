"""Experiments in temporary copies are refused in clones that would lose their results."""

import runpy
from pathlib import Path

import pytest

from charlm.core.errors import InputError
from pipeline.clone import refuse_incomplete
from tests.conftest import Project

REMEDIES = {"shallow": "git fetch --unshallow", "partial": "git fetch --refetch --no-filter"}
AUTHOR = ("-c", "user.name=Tester", "-c", "user.email=tester@example.com")
OPTIONS = {"shallow": "--depth=1", "partial": "--filter=blob:none"}


def incomplete(template: Project, path: Path, kind: str) -> Project:
    origin = path.with_name("origin")
    template.git("clone", "--quiet", "--bare", ".", str(origin))
    for option in ("allowFilter", "allowAnySHA1InWant"):
        Project(origin).git("config", f"uploadpack.{option}", "true")
    template.git("clone", "--quiet", OPTIONS[kind], origin.as_uri(), str(path))
    project = Project(path)
    project.sign()
    return project


@pytest.mark.parametrize("kind", REMEDIES)
def test_an_incomplete_clone_is_refused_before_anything_runs(
    template: Project, tmp_path: Path, kind: str
) -> None:
    project = incomplete(template, tmp_path / "clone", kind)
    for module in (["pipeline.clone"], ["experiments.seeds", "--seeds", "1"]):
        ran = project.run("python", "-m", *module, code=1)
        (line,) = ran.text.splitlines()
        assert line.startswith(f"error: this clone is {kind}: ")
        assert line.endswith(f"fetch the rest first: {REMEDIES[kind]}")
    project.git(*REMEDIES[kind].split()[1:])
    project.run("python", "-m", "pipeline.clone")


def test_without_a_commit_of_the_pipeline_no_experiment_starts(tmp_path: Path) -> None:
    (tmp_path / "within").mkdir()
    with pytest.raises(InputError, match=r"no dvc\.yaml is committed here"):
        refuse_incomplete(tmp_path / "within")  # no repository
    for command in (["init", "--quiet"], ["commit", "--quiet", "--allow-empty", "-m", "One"]):
        Project(tmp_path).git(*AUTHOR, *command)
        with pytest.raises(InputError, match=r"no dvc\.yaml is committed here"):
            refuse_incomplete(tmp_path / "within")  # another project's
    (tmp_path / "within/dvc.yaml").touch()
    Project(tmp_path).git("add", "--all")
    Project(tmp_path).git(*AUTHOR, "commit", "--quiet", "-m", "Import")
    refuse_incomplete(tmp_path / "within")


def test_dvc_does_not_train_if_it_would_lose_the_result(template: Project, tmp_path: Path) -> None:
    project = incomplete(template, tmp_path / "clone", "shallow")
    ran = project.dvc("exp", "run", "--temp", "build_dataset", code=255)
    assert "this clone is shallow" in ran.text
    assert ran.stages == ["build_dataset"]


@pytest.mark.slow
def test_experiments_work_in_the_workspace_of_a_shallow_clone(
    template: Project, tmp_path: Path
) -> None:
    project = incomplete(template, tmp_path / "clone", "shallow")
    project.dvc("exp", "run", "--name", "here", "-S", "sample.count=21", "split")
    assert "here" in project.dvc("exp", "list").text


def test_smoke_checks_the_clone_first() -> None:
    steps = runpy.run_path("run.py")["COMMANDS"]["smoke"][-1]
    assert "-m pipeline.clone" in steps[0]
    assert "exp run --temp" in steps[1]
