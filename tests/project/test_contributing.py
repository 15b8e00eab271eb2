"""The files of the repository: their claims are right, and the example models run."""

import json
import re
import sys
import tomllib

import pytest
from ruamel.yaml import YAML

from pipeline import environment
from tests.conftest import MODELS, ROOT, Project
from tests.helpers import code_blocks
from tests.pipeline.test_workflow import check

PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
MODELS_PAGE = (ROOT / "docs/models.md").read_text(encoding="utf-8")
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


THE_GRU = pytest.mark.skipif(
    (ROOT / "charlm/models/gru.py").exists(), reason="somebody has added it as the page says"
)


def add_the_gru(project: Project) -> int:
    """Do what the page says, except for running it. Return the number of lines that it took."""
    (block,) = code_blocks("python", MODELS_PAGE)
    path, code = block.split("\n", 1)
    (project.path / path.removeprefix("# ")).write_text(code, encoding="utf-8")
    (command,) = (
        line
        for line in "".join(code_blocks("bash", MODELS_PAGE)).splitlines()
        if "new_model" in line
    )
    project.run(*command.split())
    project.git("add", "--all", "--intent-to-add")
    counts = re.findall(r"(\d+) insertions?", project.git("diff", "--shortstat"))
    return int(counts[0])


@THE_GRU
def test_the_page_alone_adds_a_gru_in_at_most_seventy_lines(project: Project) -> None:
    lines = add_the_gru(project)
    assert lines <= 70, lines
    (model,) = code_blocks("python", MODELS_PAGE)
    in_page = re.findall(r"are (\d+) lines\.", MODELS_PAGE)
    assert [str(lines - len(model.splitlines()) + 1)] == in_page
    changed = re.findall(r"^-(?!-)", project.git("diff", "--unified=0"), flags=re.MULTILINE)
    assert changed == [], "nothing that was there is changed"
    before = project.outputs()
    ran = project.dvc("repro")
    assert ran.stages == ["train_gru", "train_mixture", "evaluate", "sample", "plot"]
    assert (
        "GRU: runs as plain PyTorch, because the fast path does not support torch.gru" in ran.text
    )
    after = project.outputs()
    evaluation = json.loads(after["metrics/evaluation.json"])
    earlier = json.loads(before["metrics/evaluation.json"])
    assert evaluation["gru"]["test_loss"] < 4
    del earlier["mixture"]  # the GRU may be part of it
    assert {name: evaluation[name] for name in earlier} == earlier
    assert len(after["data/samples/gru.csv"].decode().splitlines()) == 1 + 20
    assert "gru" in json.loads(after["metrics/samples.json"])
    assert b"GRU" in after["plots/report.html"]
    for name in (model for model in MODELS if model != "mixture"):
        path = f"data/checkpoints/{name}.safetensors"
        assert after[path] == before[path]
    assert project.dvc("repro").stages == []
    assert "gru.test_loss" in project.dvc("metrics", "diff", "HEAD").text
    names = project.run("python", "-m", "charlm", "sample", "data/checkpoints/gru.safetensors")
    assert len(names.text.splitlines()) == 20


@THE_GRU
@pytest.mark.slow
def test_the_tests_pass_with_the_gru(project: Project) -> None:
    parameters = (ROOT / "params.yaml").read_text(encoding="utf-8")
    (project.path / "params.yaml").write_text(parameters, encoding="utf-8")
    add_the_gru(project)
    project.run(sys.executable, "-m", "pytest", "-q", "-n", "0", "tests/unit")


def test_the_changed_wavenet_is_what_trains(project: Project) -> None:
    before = project.outputs()
    (diff,) = code_blocks("diff", MODELS_PAGE)
    (project.path / "change.patch").write_text(diff, encoding="utf-8")
    project.git("apply", "change.patch")
    (project.path / "change.patch").unlink()
    ran = project.dvc("repro")
    assert ran.stages == ["train_wavenet", "train_mixture", "evaluate", "sample", "plot"]
    assert "runs as plain PyTorch" not in ran.text  # every function in it has a rule
    assert "will not be trained" not in ran.text
    after = project.outputs()
    path = "plots/history/wavenet.csv"
    assert after[path] != before[path]
    with_norm = after["data/checkpoints/wavenet.safetensors"]
    for tensor in (b"norms.0.weight", b"norms.2.running_mean"):
        assert tensor in with_norm
    losses = json.loads(after["metrics/evaluation.json"])["wavenet"]
    # Evaluation uses the running statistics, and the loss must stay about the same.
    assert abs(losses["val_loss"] - losses["train_loss"]) < 0.5


def test_every_make_target_on_the_page_exists() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"\bmake ([a-z-]+)\b", PAGE):
        if target not in {"help"}:
            assert re.search(rf"^{target}: ", makefile, flags=re.MULTILINE), target
    assert len(PAGE.split()) < 1000, "a page"


def test_the_citation_is_valid_and_has_the_newest_version_of_the_changelog() -> None:
    path = ROOT / "CITATION.cff"
    assert check("vendor.citation-file-format", path) == ""
    citation = YAML(typ="safe", pure=True).load(path)
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    headings = re.findall(r"^## (.*)$", changelog, flags=re.MULTILINE)
    newest = next(heading for heading in headings if heading != "Unreleased")
    assert newest == f"{citation['version']} - {citation['date-released']}"
    assert PYPROJECT["version"] == citation["version"]
    kinds = set(re.findall(r"^### (.*)$", changelog, flags=re.MULTILINE))
    assert kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_the_issue_forms_are_valid_and_their_commands_exist(capsys: pytest.CaptureFixture) -> None:
    forms = sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml"))
    assert [form.stem for form in forms] == ["bug", "bytes", "idea"]
    assert check("vendor.github-issue-forms", *forms) == ""
    assert "`python -m pipeline.environment`" in forms[0].read_text(encoding="utf-8")
    environment.main()
    printed = capsys.readouterr().out
    assert re.search(r"^python: 3\.\d+\.\d+\n(.*\n)*torch: ", printed)


def test_the_license_is_the_same_everywhere() -> None:
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert text.startswith("MIT License\n")
    assert PYPROJECT["license"] == "MIT"
    assert PYPROJECT["license-files"] == ["LICENSE"]
    citation = YAML(typ="safe", pure=True).load(ROOT / "CITATION.cff")
    assert citation["license"] == "MIT"
    (author,) = citation["authors"]
    assert f"Copyright (c) 2026 {author['name']}\n" in text


def test_every_command_and_file_in_the_changelog_exists() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"`make ([a-z-]+)\b", changelog):
        assert re.search(rf"^{target}: ", makefile, flags=re.MULTILINE), target
    for path in re.findall(r"`([\w/.-]+\.(?:md|cff|py|yaml)|charlm/\w+)`", changelog):
        assert (ROOT / path).exists(), path
