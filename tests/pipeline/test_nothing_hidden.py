"""Each stage touches everything that dvc.yaml declares for it, and nothing else.

tests/record.py runs a stage under an audit hook, and the record is compared with dvc.yaml in both
directions. Declaring a folder declares everything in it.
"""

import ast
import copy
import json
import shutil
import sys
from pathlib import Path, PurePath
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.conftest import IN_TURN, MODELS, STAGES, TRAINED, Project, made_once
from tests.pipeline.test_dvc_yaml import REPORT
from tests.watch import files_opened

Record = dict[str, list[str]]

VARIABLES = {"DVC_ROOT", "DVC_STAGE", "TORCHELASTIC_ERROR_FILE"}
"""Environment variables that a stage reads; none of them affects a byte."""
TRAINING_VARIABLES = VARIABLES | {"COLUMNS", "LINES"}
"""A training by gradient descent also reads these, for the width of its progress bar."""
REQUIREMENTS = "requirements.txt"
"""A dependency that no stage reads: it determines which packages are installed."""
RECORDS = ".git/records.json"
"""What the stages touched, kept in the checkout for all workers."""
SCRATCH = ".resume"
"""The folder where a training keeps its state, in addition to its outputs."""


def read_yaml(path: Path) -> Any:
    return YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))


def record(project: Project, stage: str) -> Record:
    """Record what a stage touches, and check that the kernel saw no other file of the checkout."""
    target = project.path.parent / "record.json"
    command = ["python", "-m", "tests.record", stage, str(target)]
    # If there is bytecode, Python does not open the source of a module.
    for bytecode in project.path.rglob("*.pyc"):
        bytecode.unlink()
    with files_opened(project.path) as opened:
        project.run(*command)
    recorded: Record = json.loads(target.read_text(encoding="utf-8"))
    if sys.platform == "linux":
        unseen = opened - set(recorded["read"]) - set(recorded["written"])
        unseen = {file for file in unseen if "__pycache__" not in file}  # Numba looks into it
        assert {file for file in unseen if not file.startswith("tests/")} == set()
    return recorded


def within(file: str, declared: set[str]) -> bool:
    """Return whether a file, or a folder that contains it, is declared."""
    return not declared.isdisjoint({file, *map(str, PurePath(file).parents)})


def decides_nothing(path: Path) -> bool:
    """Return whether a file contains only the docstring of a package."""
    if path.name != "__init__.py":
        return False
    body = ast.parse(path.read_text(encoding="utf-8")).body
    return all(isinstance(it, ast.Expr) and isinstance(it.value, ast.Constant) for it in body)


def differences(
    recorded: Record, name: str, stage: dict[str, Any], params: dict[str, Any], root: Path
) -> list[str]:
    """Return what a stage touched but does not declare, and what it declares but did not touch.

    A cheap stage may depend on more of the library than it needs; a training may not.
    """
    training = name.startswith("train_")
    outs = {
        next(iter(entry)) if isinstance(entry, dict) else entry
        for kind in ("outs", "metrics", "plots")
        for entry in stage.get(kind, [])
    }
    deps = {dep.replace("${names.path}", params["names"]["path"]) for dep in stage["deps"]}
    keys = stage.get("params", [])
    used = set(recorded["parameters"])
    leaves = set()
    for key in keys:
        inside = params.get(key)
        its = {f"{key}.{leaf}" for leaf in inside} if isinstance(inside, dict) else {key}
        if inside is None and key in MODELS:
            its = set()  # the section is empty
        # `plot` needs only the recipe of each model, but cannot declare a key that params.yaml
        # leaves out.
        whole = key not in ("training", *MODELS) or not its & used
        leaves |= its if whole else its & used
    folders = {str(parent) for out in outs for parent in PurePath(out).parents}

    def aside(file: str) -> bool:
        """Return whether a file is temporary, in the scratch folder, or Python's own."""
        parts = PurePath(file).parts
        partial = [i for i, part in enumerate(parts) if part.startswith(".partial-")]
        beside_output = bool(partial) and str(PurePath(*parts[: partial[0]])) in folders
        own = "__pycache__" in parts or file == "tests/record.py"
        return beside_output or own or (training and parts[0] == SCRATCH)

    read = {
        file
        for file in recorded["read"]
        if not (aside(file) or within(file, outs) or decides_nothing(root / file))
    }
    written = {file for file in recorded["written"] if not aside(file)} - folders
    known = (deps | ({"params.yaml"} if keys else set())) - {REQUIREMENTS}
    compared = {
        "file read": (read, known, lambda entry: training or not entry.startswith("charlm/")),
        "file written": (written, outs, lambda entry: True),
    }
    exactly = {
        "parameter": (set(recorded["parameters"]), leaves),
        "environment variable": (
            set(recorded["variables"]),
            TRAINING_VARIABLES if name.removeprefix("train_") in TRAINED else VARIABLES,
        ),
    }
    found = []
    for kind, (done, said, needed) in compared.items():
        found += [f"undeclared {kind}: {file}" for file in sorted(done) if not within(file, said)]
        used = {entry for entry in said if any(within(file, {entry}) for file in done)}
        found += [f"unused {kind}: {entry}" for entry in sorted(said - used) if needed(entry)]
    for kind, (done, said) in exactly.items():
        found += [f"undeclared {kind}: {one}" for one in sorted(done - said)]
        found += [f"unused {kind}: {one}" for one in sorted(said - done)]
    return found


@pytest.fixture(scope="module")
def clone(template: Project) -> Project:
    """A checkout that had only compiled kernels, after its stages were run and recorded."""

    def make(target: Path) -> None:
        shutil.copytree(template.path, target, symlinks=True)
        clone = Project(target)
        clone.git("clean", "-dfqx", "--exclude", "__pycache__")
        records = {stage: record(clone, stage) for stage in IN_TURN}
        (target / RECORDS).write_text(json.dumps(records), encoding="utf-8")

    return made_once(template.path.parent / "recorded", make)


@pytest.fixture(scope="module")
def records(clone: Project) -> dict[str, Record]:
    records: dict[str, Record] = json.loads((clone.path / RECORDS).read_text(encoding="utf-8"))
    return records


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_touches_exactly_what_it_declares(
    name: str, clone: Project, records: dict[str, Record]
) -> None:
    stage = read_yaml(clone.path / "dvc.yaml")["stages"][name]
    params = read_yaml(clone.path / "params.yaml")
    assert differences(records[name], name, stage, params, clone.path) == []


def test_the_stages_leave_only_their_outputs(
    clone: Project, records: dict[str, Record], template: Project
) -> None:
    assert records
    assert clone.outputs() == template.outputs()
    others = clone.git("ls-files", "--others").split()
    written = {file for file in others if "__pycache__" not in file}
    declared = {f for f in template.outputs() if f.startswith("data/") or f == REPORT}
    assert written - declared == set()
    assert list((clone.path / SCRATCH).iterdir()) == []


OTHERS = ("charlm/names/", "charlm/evaluation/", "charlm/sampling/", "charlm/report/", "pipeline/")


@pytest.mark.parametrize("model", MODELS)
def test_a_training_reads_no_other_model_and_no_later_stage(
    model: str, records: dict[str, Record]
) -> None:
    read = records[f"train_{model}"]["read"]
    hybrid = ["hybrid", "compact", "kneser_ney"]  # the teacher of the compact net
    parts = {"hybrid": hybrid, "compact": hybrid, "mixture": MODELS}
    assert {f"charlm/models/{m}.py" for m in MODELS}.intersection(read) == {
        f"charlm/models/{its}.py" for its in [model, *parts.get(model, [])]
    }
    found = [f for f in read if f.startswith(OTHERS) and not f.endswith("__init__.py")]
    assert found == []


PLANTED = """
import os
import safetensors
from pathlib import Path
Path("data/few.txt").read_text(encoding="utf-8")
with safetensors.safe_open("data/checkpoints/fcn.safetensors", framework="pt"):
    pass
Path("stray.txt").write_text("stray")
os.environ.get("HOME")
from charlm.core.params import load_params as load
_ = (load().wavenet.hidden_dim, load().arguments("compact"), load().model_dump(include={"lr"}))
_ = (load().models, load().section("fcn"))
"""


def test_undeclared_use_is_caught(project: Project) -> None:
    """Add code to a stage that touches what the stage does not declare."""
    script = project.path / "stages/split.py"
    text = script.read_text(encoding="utf-8")
    script.write_text(PLANTED + text, encoding="utf-8")
    stage = read_yaml(project.path / "dvc.yaml")["stages"]["split"]
    params = read_yaml(project.path / "params.yaml")
    recorded = record(project, "split")
    assert differences(recorded, "split", stage, params, project.path) == [
        "undeclared file read: data/checkpoints/fcn.safetensors",
        "undeclared file read: data/few.txt",
        "undeclared file written: stray.txt",
        "undeclared parameter: compact.channels",
        "undeclared parameter: compact.shared",
        "undeclared parameter: lr",
        "undeclared parameter: wavenet.hidden_dim",
        "undeclared environment variable: HOME",
    ]


@pytest.mark.parametrize(
    ("stage", "kind", "entry", "fault"),
    [
        ("split", "deps", "data/few.txt", "unused file read: data/few.txt"),
        ("train_fcn", "deps", "charlm/sampling", "unused file read: charlm/sampling"),
        ("train_fcn", "deps", "charlm/models/compact.py", "unused file read: charlm/models/comp"),
        ("split", "outs", "data/more.safetensors", "unused file written: data/more.safetensors"),
        ("split", "metrics", {"metrics/more.json": {"cache": False}}, "unused file written: metr"),
        ("split", "params", "lr", "unused parameter: lr"),
        ("split", "params", "fcn", "unused parameter: fcn.dropout"),
    ],
    ids=str,
)
def test_unused_declarations_are_caught(
    clone: Project, records: dict[str, Record], stage: str, kind: str, entry: Any, fault: str
) -> None:
    its = copy.deepcopy(read_yaml(clone.path / "dvc.yaml")["stages"][stage])
    its.setdefault(kind, []).append(entry)
    params = read_yaml(clone.path / "params.yaml")
    found = differences(records[stage], stage, its, params, clone.path)
    assert found
    assert found[0].startswith(fault)


@pytest.mark.parametrize(
    ("stage", "kind"),
    [
        *(("split", "deps"), ("split", "params"), ("split", "outs"), ("sample", "outs")),
        *(("build_dataset", "metrics"), ("plot", "plots")),
    ],
)
def test_missing_declarations_are_caught(
    clone: Project, records: dict[str, Record], stage: str, kind: str
) -> None:
    its = copy.deepcopy(read_yaml(clone.path / "dvc.yaml")["stages"][stage])
    its[kind].pop()
    params = read_yaml(clone.path / "params.yaml")
    found = differences(records[stage], stage, its, params, clone.path)
    assert found
    assert found[0].startswith("undeclared ")
