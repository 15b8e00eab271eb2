"""The device, the number of threads, and determinism."""

from collections.abc import Iterator

import pytest
import torch

import charlm.fast.devices
from charlm.fast.devices import available_devices, choose_device, set_up, widest, without_memory
from charlm.models.base import count_parameters
from charlm.models.fcn import FCN
from charlm.models.wavenet import WaveNet
from tests.helpers import refused, run_python


@pytest.fixture
def settings() -> Iterator[None]:
    """Restore what `set_up` changes."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)
    torch.utils.deterministic.fill_uninitialized_memory = True


def test_there_is_always_a_cpu() -> None:
    assert "cpu" in available_devices()
    assert choose_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"),
    [
        (True, False, ["cuda", "cpu"]),
        (False, True, ["cpu", "mps"]),
        (False, False, ["cpu"]),
    ],
)
def test_auto_is_cuda_where_there_is_one_and_a_cpu_otherwise(
    cuda: bool, mps: bool, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert available_devices() == expected
    assert choose_device("auto") == torch.device(expected[0])
    if mps:
        assert choose_device("mps") == torch.device("mps")


def test_numbers_are_added_up_as_widely_as_a_device_can() -> None:
    assert widest(torch.device("mps")) == torch.float32
    for device in ("cpu", "cuda"):
        assert widest(torch.device(device)) == torch.float64


@pytest.mark.parametrize("missing", ["cuda", "mps"])
def test_a_device_that_is_not_there_is_refused_with_those_that_are(
    missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(charlm.fast.devices, "available_devices", lambda: ["cpu"])
    with refused(f"finds no {missing}", "auto or cpu"):
        choose_device(missing)


@pytest.mark.parametrize(
    ("device", "threads", "deterministic"), [("cpu", 1, False), ("cpu", 3, True), ("cuda", 1, True)]
)
@pytest.mark.usefixtures("settings")
def test_the_threads_are_those_asked_for_and_algorithms_repeatable(
    device: str, threads: int, deterministic: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(charlm.fast.devices, "available_devices", lambda: ["cuda", "cpu"])
    assert set_up(device, threads) == torch.device(device)
    assert torch.get_num_threads() == threads
    assert torch.are_deterministic_algorithms_enabled() == deterministic
    assert torch.utils.deterministic.fill_uninitialized_memory != deterministic


def test_on_one_thread_of_a_cpu_torch_imports_nothing_more() -> None:
    """Deterministic algorithms make torch import 800 modules, longer than a cheap stage takes."""
    code = (
        "import sys; from charlm.fast.devices import set_up; before = len(sys.modules); "
        "set_up('cpu', 1); print(len(sys.modules) - before)"
    )
    assert int(run_python(code)) < 20


@pytest.mark.parametrize("architecture", [FCN, WaveNet])
def test_without_memory_a_model_has_its_shapes_and_draws_no_numbers(
    architecture: type[FCN] | type[WaveNet],
) -> None:
    before = torch.get_rng_state()
    with without_memory():
        model = architecture(vocab_size=46, block_size=8)
    assert all(parameter.is_meta for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), before)
    usual = architecture(vocab_size=46, block_size=8)
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    assert shapes == {name: parameter.shape for name, parameter in usual.named_parameters()}
    assert not any(parameter.is_meta for parameter in usual.parameters())


def test_without_memory_a_model_larger_than_any_machine_can_be_counted() -> None:
    with without_memory():
        model = FCN(vocab_size=2**20, block_size=8, embed_dim=2**20, hidden_dim=2**20)
    assert count_parameters(model) > 2**41
