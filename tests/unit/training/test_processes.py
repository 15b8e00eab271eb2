"""Several processes, on systems that do not support them."""

import pytest
import torch

from charlm.training.distributed import join
from charlm.training.processes import run_in_processes
from tests.conftest import ROOT
from tests.helpers import refused


def test_on_windows_several_processes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("sys.platform", "win32")
    with refused(
        "params.yaml, line ", "training.processes: ", "need Linux or macOS", "set it to 1"
    ):
        run_in_processes("stages.train_fcn", 2)


def test_several_processes_do_not_share_the_gpu_of_a_mac(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    with refused("Apple's GPU", "device to cpu"):
        join(2, torch.device("mps"))
