"""dvc.yaml declares what the stages really are: their modules, parameters and plots."""

import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from charlm.core.params import MIXED
from tests.conftest import MODELS, ROOT, STAGES, Project, copy_checkout

REPORT = "plots/report.html"
"""The only plot that is too large for git."""


def read_yaml(path: Path) -> Any:
    return YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))


def declared() -> dict[str, Any]:
    stages: dict[str, Any] = read_yaml(ROOT / "dvc.yaml")["stages"]
    return stages


def test_there_is_a_training_stage_for_each_model() -> None:
    trainings = [f"train_{model}" for model in MODELS]
    assert ["build_dataset", "split", *trainings, "evaluate", "sample", "plot"] == STAGES
    for name, stage in declared().items():
        assert stage["cmd"] == f"python -m stages.{name}"
        assert (ROOT / f"stages/{name}.py").is_file()
        assert stage["desc"]


def test_every_parameter_is_used_by_a_stage() -> None:
    used = [param for stage in declared().values() for param in stage.get("params", [])]
    assert {param.partition(".")[0] for param in used} == set(read_yaml(ROOT / "params.yaml"))


def test_metrics_and_plots_are_in_git_and_the_rest_in_the_cache() -> None:
    for stage in declared().values():
        for kind in ("metrics", "plots"):
            for entry in stage.get(kind, []):
                ((path, options),) = entry.items()
                assert options["cache"] is False, path
                assert path.startswith(f"{kind}/")
                template = options.get("template")
                known = template in (None, "simple")  # these come with DVC
                assert known or (ROOT / f".dvc/plots/{template}.json").is_file()
        for out in stage.get("outs", []):
            assert isinstance(out, str)
            assert out.startswith("data/") or out == REPORT, out


def test_stage_scripts_are_short_enough_to_read_at_a_glance() -> None:
    for name in STAGES:
        lines = (ROOT / f"stages/{name}.py").read_text(encoding="utf-8").splitlines()
        assert len(lines) <= 65, name


def test_the_library_is_independent_of_dvc_and_the_stages() -> None:
    for path in (ROOT / "charlm").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        for word in ("import dvc", "from dvc", "import stages", "from stages", "dvc repro"):
            assert word not in text, path
        if path.name != "params.py":
            for word in ("load_params", "params.yaml", "names.path", "sample."):
                assert word not in text, path


def test_the_committed_results_match_the_committed_code() -> None:
    """The committed dvc.lock matches the dependencies, metrics and plots in the tree."""
    status = subprocess.run(
        [sys.executable, "-m", "dvc", "status", "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    # A clone that has pulled nothing lacks what DVC caches; everything else must match.
    missing_is_fine = {"changed outs", "changed deps"}
    for stage, changes in json.loads(status.stdout).items():
        for change in changes:
            assert isinstance(change, dict), (stage, change)
            for kind, paths in change.items():
                assert kind in missing_is_fine, (stage, change)
                for path, state in paths.items():
                    states = {"deleted", "not in cache"}
                    # If one output in a folder is missing, DVC reports the folder as modified.
                    states |= {"modified"} if path == "data/checkpoints" else set()
                    assert state in states, (stage, path, state)
                    assert path.startswith("data/") or path == REPORT, (stage, path, state)


def test_packages_that_affect_the_bytes_are_pinned_and_installed() -> None:
    pinned = dict(
        line.split("#")[0].strip().split("==")
        for line in (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
        if "==" in line.split("#")[0]
    )
    assert {"torch", "numpy", "pandas", "matplotlib", "pillow", "safetensors"} <= set(pinned)
    for package, version in pinned.items():
        assert importlib.metadata.version(package).split("+")[0] == version, package
    for name, stage in declared().items():
        assert "requirements.txt" in stage["deps"], name


def test_dvc_yaml_stays_readable() -> None:
    text = (ROOT / "dvc.yaml").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 260
    assert "meta:" not in text
    assert max(map(len, text.splitlines())) <= 100


def changed_lines(project: Project) -> list[str]:
    """Return the lines of dvc.yaml that git sees as removed or added."""
    lines = project.git("diff", "--unified=0", "dvc.yaml").splitlines()[4:]
    return [line for line in lines if not line.startswith("@@")]


def test_dvc_commands_change_only_the_lines_they_should(tmp_path: Path) -> None:
    project = copy_checkout(tmp_path)
    project.commit("All")
    stages = [name for name in STAGES if name != "build_dataset"]
    project.dvc("freeze", *stages)
    assert changed_lines(project) == ["+    frozen: true"] * len(stages)
    project.dvc("unfreeze", *stages)
    assert changed_lines(project) == []
    refused = project.dvc("freeze", "build_dataset", code=1)
    assert "cannot dump a parametrized stage" in refused.text  # its deps contain ${names.path}
    count = ["--deps", "data/prenoms.txt", "--outs", "data/count.txt", "wc -l < data/prenoms.txt"]
    project.dvc("stage", "add", "--name", "count", "--desc", "Count", *count)
    assert changed_lines(project) == [
        "+  count:",
        "+    desc: Count",
        "+    cmd: wc -l < data/prenoms.txt",
        "+    deps:",
        "+    - data/prenoms.txt",
        "+    outs:",
        "+    - data/count.txt",
    ]
    project.dvc("remove", "count")
    assert changed_lines(project) == []


def test_a_training_depends_on_its_own_model_and_no_tool() -> None:
    stages = declared()
    hybrid = {"hybrid", "compact", "kneser_ney"}  # the teacher of the compact net
    parts = {"hybrid": hybrid, "compact": hybrid}
    for model in MODELS:
        deps = set(stages[f"train_{model}"]["deps"])
        used = {"base", model} | parts.get(model, set())
        assert {dep for dep in deps if dep.startswith("charlm/models")} == (
            {"charlm/models"} if model == MIXED else {f"charlm/models/{it}.py" for it in used}
        )
        folders = ("names", "evaluation", "sampling", "report")
        assert not deps.intersection(f"charlm/{folder}" for folder in folders)
    for stage in stages.values():
        assert not {"charlm", "pipeline", "stages"}.intersection(stage["deps"])


def test_the_mixture_depends_on_the_checkpoint_of_every_other_model() -> None:
    deps = declared()[f"train_{MIXED}"]["deps"]
    assert [dep for dep in deps if dep.startswith("data/checkpoints")] == sorted(
        f"data/checkpoints/{model}.safetensors" for model in MODELS if model != MIXED
    )


def test_stages_after_the_trainings_name_no_model() -> None:
    for name, stage in declared().items():
        if not name.startswith("train_"):
            for model in MODELS:
                assert not any(model in entry for entry in stage["deps"]), name
