"""The files of a repository: what they claim, and the example of a new model."""

import json
import re
import tomllib
from pathlib import Path

import pandas as pd
import pytest
from ruamel.yaml import YAML

from tests.conftest import ROOT, Project, copy_checkout
from tests.pipeline.test_workflow import check

PATCH = ROOT / "add-a-model.patch"
PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
TOUCHED = {
    "charlm/models/logbilinear.py": "A",
    "dvc.yaml": "M",
    "params.yaml": "M",
    "stages/train_logbilinear.py": "A",
}
"""One file in charlm/models, one script, one stage, one section."""


@pytest.fixture
def patched(project: Project) -> Project:
    """The small project, run through, with the example applied and nothing run since."""
    project.git("apply", str(PATCH))
    return project


def test_the_example_applies_to_the_tree_as_it_is_and_touches_four_files(tmp_path: Path) -> None:
    checkout = copy_checkout(tmp_path)
    checkout.commit("As it is")
    # Where this fails, mend it: git apply --reject add-a-model.patch, put in what was refused,
    # git add -N . && git diff -U1 > add-a-model.patch, and take the four files back.
    checkout.git("apply", "--index", str(PATCH))
    changed = checkout.git("diff", "--cached", "--name-status").splitlines()
    assert {path: kind for kind, path in map(str.split, changed)} == TOUCHED
    lock = checkout.git("diff", "--cached", "--unified=0", "dvc.yaml", "params.yaml")
    assert not re.findall(r"^-(?!-- )", lock, flags=re.MULTILINE), "it takes nothing away"
    (section,) = re.findall(r"^\+(\w+):", lock, flags=re.MULTILINE)
    (stage,) = re.findall(r"^\+  (\w+):$", lock, flags=re.MULTILINE)
    assert (section, stage) == ("logbilinear", "train_logbilinear")


def test_the_page_shows_what_the_patch_has() -> None:
    patch = iter(PATCH.read_text(encoding="utf-8").splitlines())
    excerpts = re.findall(r"^```diff\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)
    lines = "".join(excerpts).splitlines()
    assert len(lines) > 25
    for line in lines:
        assert line in patch, line  # which takes them in order
    for path in TOUCHED:
        assert f"+++ b/{path}" in lines


def test_the_page_names_what_there_is() -> None:
    for path in re.findall(r"\]\((?!http)([^)#]+)\)", PAGE):
        assert (ROOT / path).exists(), path
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"\bmake ([a-z-]+)\b", PAGE):
        if target not in {"help"}:
            assert re.search(rf"^{target}: ", makefile, flags=re.MULTILINE), target
    assert len(PAGE.split()) < 1000, "a page"


@pytest.mark.slow
def test_the_example_is_trained_evaluated_sampled_and_drawn_and_no_other_model_trains(
    patched: Project,
) -> None:
    before = patched.outputs()
    ran = patched.dvc("repro")
    assert ran.stages == ["train_logbilinear", "evaluate", "sample", "plot"]
    after = patched.outputs()
    evaluation = json.loads(after["metrics/evaluation.json"])
    earlier = json.loads(before["metrics/evaluation.json"])
    table = pd.read_csv(patched.path / "plots/evaluation/models.csv", index_col="model")
    assert table.test_loss["logbilinear"] < table.test_loss["uniform"]
    assert evaluation["logbilinear"]["parameters"] > 0
    assert {name: evaluation[name] for name in earlier} == earlier
    assert len(after["data/samples/logbilinear.csv"].decode().splitlines()) == 1 + 20
    assert "logbilinear" in json.loads(after["metrics/samples.json"])
    assert len(after["plots/history/logbilinear.csv"].decode().splitlines()) == 1 + 2
    for name in ("losses", "loss_by_parameters", "embeddings"):
        assert after[f"plots/figures/{name}.png"] != before[f"plots/figures/{name}.png"]
    assert patched.dvc("repro").stages == []
    told = patched.dvc("metrics", "diff", "HEAD").text
    assert "logbilinear.test_loss" in told


@pytest.mark.slow
def test_a_mistake_in_the_examples_section_is_told(patched: Project) -> None:
    section = "  embed_dim: 30             # channels of a character's embedding\n\nsample:"
    params = patched.path / "params.yaml"
    text = params.read_text(encoding="utf-8")
    line = text[: text.index(section)].count("\n") + 1
    assert section in text
    for written, expected in (
        ("embed_dim: 0", f", line {line}: logbilinear.embed_dim is 0; it must be"),
        ("embd_dim: 30", "logbilinear: it lacks embed_dim, nothing takes its embd_dim; give it"),
    ):
        mistaken = text.replace(section, section.replace("embed_dim: 30", written))
        params.write_text(mistaken, encoding="utf-8")
        ran = patched.stage("train_logbilinear", code=1)
        assert ran.text.startswith("error: params.yaml, line ")
        assert expected in ran.text
        assert ran.text.count("\n") == 1


@pytest.mark.slow
def test_the_tests_of_what_every_model_must_do_hold_for_the_example(tmp_path: Path) -> None:
    checkout = copy_checkout(tmp_path)
    checkout.git("apply", str(PATCH))
    checkout.commit("A log-bilinear model")
    files = ("models", "params", "checkpoint", "sharing", "sampling", "nothing_hidden", "style")
    names = [f"tests/unit/{name}.py" for name in files]
    told = checkout.run("python", "-m", "pytest", "-n", "0", "-vv", "-m", "not slow", *names).text
    assert re.search(r"^tests/test_models\.py.*LogBilinear.* PASSED", told, flags=re.MULTILINE)
    assert re.search(r"declares\[train_logbilinear\] PASSED", told)
    yaml = (
        "tests/pipeline/test_dvc_yaml.py",
        "-k",
        "not what_is_committed",
    )  # which it is before a run
    checkout.run("python", "-m", "pytest", "-n", "0", *yaml)


def test_the_citation_is_valid_and_names_the_version_that_the_changelog_ends_with() -> None:
    path = ROOT / "CITATION.cff"
    assert check("vendor.citation-file-format", path) == ""
    citation = YAML(typ="safe", pure=True).load(path)
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    headings = re.findall(r"^## (.*)$", changelog, flags=re.MULTILINE)
    newest = next(heading for heading in headings if heading != "[Unreleased]")
    assert newest == f"{citation['version']} - {citation['date-released']}"
    assert PYPROJECT["version"] == citation["version"]
    kinds = set(re.findall(r"^### (.*)$", changelog, flags=re.MULTILINE))
    assert kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_the_licence_is_one_everywhere() -> None:
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert text.startswith("MIT License\n")
    assert PYPROJECT["license"] == "MIT"
    assert PYPROJECT["license-files"] == ["LICENSE"]
    citation = YAML(typ="safe", pure=True).load(ROOT / "CITATION.cff")
    assert citation["license"] == "MIT"
    (author,) = citation["authors"]
    assert f"Copyright (c) 2026 {author['name']}\n" in text


def test_the_changelog_names_no_command_or_file_that_there_is_not() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"`make ([a-z-]+)\b", changelog):
        assert re.search(rf"^{target}: ", makefile, flags=re.MULTILINE), target
    for path in re.findall(r"`([\w/.-]+\.(?:md|cff|py|yaml)|charlm/\w+)`", changelog):
        assert (ROOT / path).exists(), path
