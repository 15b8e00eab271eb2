"""A stage touches what dvc.yaml declares, all of it, and nothing else: seen while it runs.

tests/record.py runs a stage under an audit hook; what it records is held against dvc.yaml
both ways.
"""

import copy
import json
import sys
from pathlib import Path, PurePath
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.conftest import MODELS, STAGES, Project
from tests.pipeline.test_dvc_yaml import REPORT
from tests.pipeline.test_same_bytes import results
from tests.watch import files_opened

Record = dict[str, list[str]]


def read_yaml(path: Path) -> Any:
    return YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))


def record(project: Project, stage: str) -> Record:
    """What a stage touches; the kernel must have seen the same files of the checkout."""
    target = project.path.parent / "record.json"
    command = [sys.executable, "-B", "-m", "tests.record", stage, str(target)]
    with files_opened(project.path) as opened:
        # Where bytecode is at hand, Python does not open the module that it comes from; and what
        # Numba compiles is kept beside it.
        aside = str(project.path.parent / "no bytecode")
        project.run(*command, PYTHONPYCACHEPREFIX=aside, NUMBA_CACHE_DIR=aside)
    recorded: Record = json.loads(target.read_text(encoding="utf-8"))
    if sys.platform == "linux":
        unseen = opened - set(recorded["read"]) - set(recorded["written"])
        assert {file for file in unseen if not file.startswith("tests/")} == set()
    return recorded


def differences(recorded: Record, stage: dict[str, Any], params: dict[str, Any]) -> list[str]:
    """What a stage did and does not declare, and what it declares and did not do."""
    meta = stage.get("meta", {})
    scratch = meta.get("scratch", "no scratch folder")
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
        its = {f"{key}.{leaf}" for leaf in params[key]} if isinstance(params[key], dict) else {key}
        # `plot` needs the recipe of each model alone, but a key that is left out has no name
        # that it could declare.
        whole = key not in ("training", *MODELS) or not its & used
        leaves |= its if whole else its & used
    folders = {str(parent) for out in outs for parent in PurePath(out).parents}

    def aside(file: str) -> bool:
        """A file being written beside an output, the scratch folder, or Python's own."""
        parts = PurePath(file).parts
        partial = [i for i, part in enumerate(parts) if part.startswith(".partial-")]
        beside_output = bool(partial) and str(PurePath(*parts[: partial[0]])) in folders
        own = "__pycache__" in parts or file == "tests/record.py"
        return beside_output or own or parts[0] == scratch

    read = {file for file in recorded["read"] if not aside(file)}
    written = {file for file in recorded["written"] if not aside(file)} - folders
    variables, declared = set(recorded["variables"]), set(meta.get("environment", []))
    compared = {
        "file read": (read - outs, deps | ({"params.yaml"} if keys else set())),
        "file written": (written, outs),
        "parameter": (used, leaves),
        "environment variable": (variables, declared),
    }
    return [
        f"{fault} {kind}: {name}"
        for kind, (done, said) in compared.items()
        for fault, names in (("undeclared", done - said), ("unused", said - done))
        for name in sorted(names)
    ]


@pytest.fixture(scope="module")
def clone(template: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    return template.clone(tmp_path_factory.mktemp("hidden") / "clone")


@pytest.fixture(scope="module")
def records(clone: Project) -> dict[str, Record]:
    return {stage: record(clone, stage) for stage in STAGES}


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_touches_exactly_what_it_declares(
    name: str, clone: Project, records: dict[str, Record]
) -> None:
    stage = read_yaml(clone.path / "dvc.yaml")["stages"][name]
    params = read_yaml(clone.path / "params.yaml")
    assert differences(records[name], stage, params) == []


def test_the_stages_leave_nothing_but_their_outputs(
    clone: Project, records: dict[str, Record], template: Project
) -> None:
    assert records
    assert results(clone.outputs()) == results(template.outputs())
    written = set(clone.git("ls-files", "--others").split())
    declared = {f for f in template.outputs() if f.startswith("data/") or f == REPORT}
    assert written - declared == set()
    assert list((clone.path / ".resume").iterdir()) == []


def test_only_the_stages_own_model_is_read_when_training(records: dict[str, Record]) -> None:
    assert "charlm/models/wavenet.py" not in records["train_fcn"]["read"]
    assert "charlm/models/fcn.py" not in records["train_wavenet"]["read"]
    assert "charlm/models/wavenet.py" not in records["train_compact"]["read"]


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


@pytest.fixture
def planted(project: Project) -> list[str]:
    """The differences of a stage that touches things that it does not declare."""
    script = project.path / "stages/split.py"
    text = script.read_text(encoding="utf-8")
    script.write_text(PLANTED + text, encoding="utf-8")
    stage = read_yaml(project.path / "dvc.yaml")["stages"]["split"]
    params = read_yaml(project.path / "params.yaml")
    return differences(record(project, "split"), stage, params)


def test_what_is_planted_and_not_declared_is_caught(planted: list[str]) -> None:
    assert planted == [
        "undeclared file read: data/checkpoints/fcn.safetensors",
        "undeclared file read: data/few.txt",
        "undeclared file written: stray.txt",
        "undeclared parameter: compact.channels",
        "undeclared parameter: compact.dropout",
        "undeclared parameter: lr",
        "undeclared parameter: wavenet.hidden_dim",
        "undeclared environment variable: HOME",
    ]


@pytest.mark.parametrize(
    ("kind", "entry", "fault"),
    [
        ("deps", "data/few.txt", "unused file read: data/few.txt"),
        ("deps", "charlm/sampling/sampler.py", "unused file read: charlm/sampling/sampler.py"),
        ("outs", "data/more.safetensors", "unused file written: data/more.safetensors"),
        ("metrics", {"metrics/more.json": {"cache": False}}, "unused file written: metrics/more."),
        ("params", "lr", "unused parameter: lr"),
        ("params", "fcn", "unused parameter: fcn.dropout"),
        ("environment", "HOME", "unused environment variable: HOME"),
    ],
    ids=str,
)
def test_what_is_declared_and_not_used_is_caught(
    clone: Project, records: dict[str, Record], kind: str, entry: Any, fault: str
) -> None:
    stage = copy.deepcopy(read_yaml(clone.path / "dvc.yaml")["stages"]["split"])
    (stage["meta"] if kind == "environment" else stage).setdefault(kind, []).append(entry)
    found = differences(records["split"], stage, read_yaml(clone.path / "params.yaml"))
    assert found
    assert found[0].startswith(fault)


@pytest.mark.parametrize("kind", ["deps", "params", "outs", "metrics", "environment"])
def test_what_is_used_and_no_longer_declared_is_caught(
    clone: Project, records: dict[str, Record], kind: str
) -> None:
    stage = copy.deepcopy(read_yaml(clone.path / "dvc.yaml")["stages"]["split"])
    (stage["meta"] if kind == "environment" else stage)[kind].pop()
    found = differences(records["split"], stage, read_yaml(clone.path / "params.yaml"))
    assert found
    assert found[0].startswith("undeclared ")
