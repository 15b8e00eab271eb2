"""Captured steps, with a stand-in for CUDA graphs that replays on the CPU."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from charlm.core.params import Recipe
from charlm.fast.capture import WARM_UP, Captured
from charlm.models.wavenet import WaveNet
from charlm.training.trainer import Trainer
from tests.helpers import small_corpus, small_model, small_split

RECIPE = Recipe(lr=0.2, batch_size=16, epochs=4)


class Graph:
    """A stand-in for `torch.cuda.graph`: records a function once, without running it."""

    def __init__(self, waits: bool = False) -> None:
        self.waits = waits
        self.recorded = 0
        self.replayed = 0
        self.on_side_stream = 0

    def aside(self, function: Callable[[], None]) -> bool:
        self.on_side_stream += 1
        function()
        return self.waits

    def record(self, function: Callable[[], None]) -> Callable[[], None]:
        self.recorded += 1

        def replay() -> None:
            self.replayed += 1
            function()

        return replay


def test_every_batch_is_run_once_in_order_from_one_recording() -> None:
    seen: list[tuple[list[int], list[int], int]] = []

    def step(contexts: Tensor, targets: Tensor, count: int) -> None:
        seen.append((contexts.flatten().tolist(), targets.tolist(), count))

    graph = Graph()
    captured = Captured(step, graph.aside, graph.record)
    batches = [(torch.full((4, 2), i), torch.full((4,), 100 + i), 4) for i in range(10)]
    batches.insert(7, (torch.full((3, 2), 77), torch.full((3,), 177), 3))  # an epoch ends here
    for batch in batches:
        captured(*batch)
    assert seen == [(c.flatten().tolist(), t.tolist(), n) for c, t, n in batches]
    assert graph.recorded == 1
    assert graph.on_side_stream == WARM_UP
    assert graph.replayed == 10 - WARM_UP


def test_a_step_that_waits_for_the_device_is_not_recorded() -> None:
    seen: list[int] = []
    graph = Graph(waits=True)
    captured = Captured(lambda c, t, _: seen.append(int(t[0])), graph.aside, graph.record)
    for i in range(6):
        captured(torch.full((4, 2), i), torch.full((4,), i), 4)
    assert seen == list(range(6))
    assert (graph.on_side_stream, graph.recorded) == (1, 0)


def test_every_batch_is_copied_to_the_recorded_address() -> None:
    places: set[tuple[int, int]] = set()
    graph = Graph()
    captured = Captured(
        lambda c, t, _: places.add((c.data_ptr(), t.data_ptr())), graph.aside, graph.record
    )
    for i in range(6):
        captured(torch.full((4, 2), i), torch.full((4,), i), 4)
    assert len(places) == 1


def trained(captured: bool, seed: int = 1) -> tuple[Trainer, Graph]:
    """Train a small model as on a GPU: on all rows, with autograd."""
    corpus = small_corpus()
    windows = small_split(corpus)
    model = small_model(corpus, seed=seed).double()  # a type that the NumPy path does not handle
    trainer = Trainer(model, *list(windows.values())[:2], RECIPE, seed=seed)
    graph = Graph()
    if captured:
        trainer._update = Captured(trainer._take_step, graph.aside, graph.record)
    for _ in trainer.run(3):
        pass
    return trainer, graph


def test_captured_training_gives_the_same_results() -> None:
    eager, _ = trained(captured=False)
    captured, graph = trained(captured=True)
    assert captured.history == eager.history
    for name, weights in eager.model.state_dict().items():
        assert torch.equal(captured.model.state_dict()[name], weights)
    full = len(eager.train) // 16
    assert len(eager.train) % 16  # at least one batch is not recorded
    assert graph.replayed == 3 * full - WARM_UP


def test_a_recording_stays_valid_after_resuming() -> None:
    """The weights and the summed loss must keep their addresses."""
    trainer, _ = trained(captured=True)
    other, _ = trained(captured=True, seed=2)
    before = [p.data_ptr() for p in other.model.parameters()] + [other._total.data_ptr()]
    other.load_state_dict(trainer.state_dict())
    after = [p.data_ptr() for p in other.model.parameters()] + [other._total.data_ptr()]
    assert after == before
    for _ in other.run(4):
        pass
    assert [p.data_ptr() for p in other.model.parameters()] + [other._total.data_ptr()] == before


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_training_on_a_gpu_is_captured_and_matches_a_cpu() -> None:
    corpus = small_corpus()
    histories = []
    for device in ("cpu", "cuda"):
        parts = [part.to(torch.device(device)) for part in small_split(corpus).values()][:2]
        model = small_model(corpus).to(device)
        trainer = Trainer(model, *parts, RECIPE, seed=1)
        histories.append([epoch.val_loss for epoch in trainer.run(3)])
        assert isinstance(trainer._update, Captured) == (device == "cuda")
    assert histories[0] == pytest.approx(histories[1], rel=1e-4)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_a_model_that_waits_for_the_gpu_is_trained_without_capture() -> None:
    class Waiting(WaveNet):
        def forward(self, contexts: Tensor) -> Tensor:
            return super().forward(contexts) * self.output.bias[0].detach().exp().item()

    corpus = small_corpus()
    parts = [part.to(torch.device("cuda")) for part in small_split(corpus).values()][:2]
    trainer = Trainer(small_model(corpus, Waiting).to("cuda"), *parts, RECIPE, seed=1)
    assert len([*trainer.run(3)]) == 3
