"""DVC records a stage run by `make repro` with the inputs that the stage really had."""

import sys
import time
from pathlib import Path

import pytest
from dvc.repo import Repo
from dvc.utils.serialize import load_yaml

from pipeline import recorded
from pipeline.inputs import Inputs
from tests.conftest import IN_TURN, LONG, STAGES, Project, start, wait_for_state
from tests.helpers import refused


@pytest.fixture
def here(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.chdir(project.path)
    return project


def run_cache() -> list[Path]:
    return sorted(path for path in Path(".dvc/cache/runs").rglob("*") if path.is_file())


def test_dvc_records_the_inputs_of_every_stage(here: Project) -> None:
    entries = recorded.recorded_stages()
    assert list(entries) == IN_TURN
    for stage in STAGES:
        assert recorded.agree(Inputs(stage), entries[stage]), stage
    data = entries["build_dataset"]
    for path in ("./data/few.txt", "data//few.txt", str(here.path / "data/few.txt")):
        here.set(names__path=path)
        data["params"]["params.yaml"]["names"]["path"] = path
        assert recorded.agree(Inputs("build_dataset"), data), path
    data["params"]["params.yaml"]["names"]["path"] = "data/few.txt"
    here.set(names__path="data/few.txt", wavenet__lr="0.1")
    assert [its for its in STAGES if not recorded.agree(Inputs(its), entries[its])] == [
        "train_wavenet",
        "plot",
    ]
    Path("charlm/names/added.py").touch()
    assert not recorded.agree(Inputs("build_dataset"), entries["build_dataset"])


def test_a_record_made_after_an_edit_is_removed(here: Project) -> None:
    """As if DVC had read `params.yaml` after the edit."""
    runs = run_cache()
    here.set(sample__count="21")
    inputs = Inputs("sample")
    here.set(sample__count="22")

    def record() -> None:
        with recorded.refusing_other_inputs():
            here.dvc("repro", "--single-item", "sample")
            assert len(run_cache()) > len(runs)
            inputs.leave()
            Path("dvc.lock").touch()

    with refused("changed before DVC recorded sample: sample.count in params.yaml (21, now 22)"):
        record()
    assert "sample" not in recorded.recorded_stages()
    assert run_cache() == runs


@pytest.mark.slow
def test_inputs_left_by_an_earlier_run_are_not_compared(here: Project) -> None:
    here.set(sample__count="21")
    Inputs("sample").leave()
    here.set(sample__count="22")
    with recorded.refusing_other_inputs():
        here.dvc("repro", "--single-item", "sample")
    assert "sample" in recorded.recorded_stages()
    with recorded.refusing_other_inputs("sample"):
        here.dvc("repro", "--single-item", "plot")
        here.set(sample__count="23")
    assert Path(".dvc/tmp/inputs/plot.json").exists()


@pytest.mark.slow
def test_a_record_made_after_an_edit_while_dvc_waits_for_its_lock_is_removed(here: Project) -> None:
    """This can take as long as another DVC command runs, and `make repro` prints nothing."""
    here.set(**LONG)
    before, runs = here.outputs(), run_cache()
    left = Path(".dvc/tmp/inputs/train_wavenet.json")
    command = [sys.executable, "-m", "pipeline.side_by_side", "--only", "train_wavenet"]
    process = start(here, *command)
    wait_for_state(here, process)
    with Repo() as repo, repo.lock:
        while not left.exists():
            assert process.poll() is None
            time.sleep(0.02)
        here.set(wavenet__lr="0.1")
    text, _ = process.communicate(timeout=120)
    assert process.returncode == 1
    assert text.splitlines()[-1] == (
        "error: changed before DVC recorded train_wavenet: wavenet.lr in params.yaml "
        "(empty, now 0.1). The record was removed. Run the same command again"
    )
    assert run_cache() == runs
    assert "train_wavenet" not in load_yaml("dvc.lock")["stages"]
    here.run(*command)
    assert here.outputs() != before
    entry = load_yaml("dvc.lock")["stages"]["train_wavenet"]
    assert entry["params"]["params.yaml"]["wavenet"]["lr"] == 0.1
