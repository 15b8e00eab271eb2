"""A step recorded once as a CUDA graph and replayed for every batch.

A step of these models is some fifty kernels of a few microseconds each, which Python launches
more slowly than a GPU runs them; a graph is launched as one (PyTorch documentation, "CUDA
Graphs", whole-network capture).
"""

from collections.abc import Callable

import torch
from torch import Tensor

WARM_UP = 3
"""Steps before recording, in which libraries allocate what may not be allocated meanwhile."""

Step = Callable[[Tensor, Tensor, int], None]


def on_side_stream(function: Callable[[], None]) -> None:
    """Run a function on a CUDA stream of its own, and wait for it on the current one."""
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        function()
    torch.cuda.current_stream().wait_stream(stream)


def record(function: Callable[[], None]) -> Callable[[], None]:
    """A CUDA graph of what a function does, as a function that replays it."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        function()
    return graph.replay


class Captured:
    """Calls a step with one batch after the other, from a recording as soon as there is one.

    The step must change tensors in place only, allocate nothing that outlives it but the
    gradients, and not wait for the device. A batch of another size than the first, as the last
    of an epoch may be, is not recorded.
    """

    def __init__(
        self,
        step: Step,
        on_side_stream: Callable[[Callable[[], None]], None] = on_side_stream,
        record: Callable[[Callable[[], None]], Callable[[], None]] = record,
    ) -> None:
        """
        Args:
            step: takes contexts (N, T), targets (N,) and a count that goes with N.
            on_side_stream: runs a function as capturing wants its warm-up to be run.
            record: takes a function and returns its replay, without running it.
        """
        self._step = step
        self._on_side_stream = on_side_stream
        self._record = record
        self._warm = 0
        self._batch: tuple[Tensor, Tensor] | None = None  # where the recording looks for it
        self._replay: Callable[[], None] | None = None

    def __call__(self, contexts: Tensor, targets: Tensor, count: int) -> None:
        """Do a step; all the tensors that it changes have to stay where they are."""
        if self._batch is None:
            self._batch = torch.empty_like(contexts), torch.empty_like(targets)
        its_contexts, its_targets = self._batch
        if contexts.shape != its_contexts.shape:
            self._step(contexts, targets, count)
            return
        its_contexts.copy_(contexts)
        its_targets.copy_(targets)
        if self._warm < WARM_UP:
            self._on_side_stream(lambda: self._step(its_contexts, its_targets, count))
            self._warm += 1
            return
        if self._replay is None:
            self._replay = self._record(lambda: self._step(its_contexts, its_targets, count))
        self._replay()
