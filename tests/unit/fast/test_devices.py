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
    """Restore the settings that `set_up` changes."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)
    torch.utils.deterministic.fill_uninitialized_memory = True


def test_a_cpu_is_always_available() -> None:
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
def test_auto_is_cuda_if_available_and_otherwise_the_cpu(
    cuda: bool, mps: bool, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert available_devices() == expected
    assert choose_device("auto") == torch.device(expected[0])
    if mps:
        assert choose_device("mps") == torch.device("mps")


def test_sums_have_the_widest_type_that_the_device_supports() -> None:
    assert widest(torch.device("mps")) == torch.float32
    for device in ("cpu", "cuda"):
        assert widest(torch.device(device)) == torch.float64


@pytest.mark.parametrize("missing", ["cuda", "mps"])
def test_the_error_for_a_missing_device_lists_the_available_ones(
    missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(charlm.fast.devices, "available_devices", lambda: ["cpu"])
    with refused(f"finds no {missing}", "auto or cpu"):
        choose_device(missing)


@pytest.mark.parametrize(
    ("device", "threads", "deterministic"), [("cpu", 1, False), ("cpu", 3, True), ("cuda", 1, True)]
)
@pytest.mark.usefixtures("settings")
def test_set_up_sets_threads_and_deterministic_algorithms(
    device: str, threads: int, deterministic: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(charlm.fast.devices, "available_devices", lambda: ["cuda", "cpu"])
    assert set_up(device, threads) == torch.device(device)
    assert torch.get_num_threads() == threads
    assert torch.are_deterministic_algorithms_enabled() == deterministic
    assert torch.utils.deterministic.fill_uninitialized_memory != deterministic


def test_set_up_with_one_cpu_thread_imports_nothing_more() -> None:
    """With deterministic algorithms, torch imports 800 modules, slower than a cheap stage."""
    code = (
        "import sys; from charlm.fast.devices import set_up; before = len(sys.modules); "
        "set_up('cpu', 1); print(len(sys.modules) - before)"
    )
    assert int(run_python(code)) < 20


@pytest.mark.parametrize("architecture", [FCN, WaveNet])
def test_a_model_without_memory_has_its_shapes_and_draws_no_random_numbers(
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


def test_parameters_of_a_model_larger_than_memory_can_be_counted() -> None:
    with without_memory():
        model = FCN(vocab_size=2**20, block_size=8, embed_dim=2**20, hidden_dim=2**20)
    assert count_parameters(model) > 2**41
