"""Capture a training step as a CUDA graph and replay it for every batch.

A step of these models is about fifty kernels of a few microseconds each. Python launches them more
slowly than a GPU runs them, and a graph needs only one launch (PyTorch documentation, "CUDA
Graphs", whole-network capture).
"""

import warnings
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

WARM_UP = 3
"""Number of steps before capture, in which libraries make allocations that capture forbids."""

Step = Callable[[Tensor, Tensor, int], None]


def on_side_stream(function: Callable[[], None]) -> bool:
    """Run a function on a separate CUDA stream, and make the current stream wait for it.

    Returns whether the function waited for the device (`.item()`, a copy from the CPU). If so, it
    cannot be captured.
    """
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            function()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    torch.cuda.current_stream().wait_stream(stream)
    return any("called a synchronizing" in str(warning.message) for warning in caught)


def record(function: Callable[[], None]) -> Callable[[], None]:
    """Capture a function as a CUDA graph without running it; return a function that replays it."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        function()
    return graph.replay


class Captured:
    """A training step that is captured after `WARM_UP` batches and replayed from then on.

    The step must change tensors only in place, and allocate nothing that outlives it except
    gradients. A batch whose shape differs from the first one (for example, the last batch of an
    epoch) is run directly. So are all batches if a step waits for the device.
    """

    def __init__(
        self,
        step: Step,
        on_side_stream: Callable[[Callable[[], None]], bool] = on_side_stream,
        record: Callable[[Callable[[], None]], Callable[[], None]] = record,
    ) -> None:
        """
        Args:
            step: takes contexts (N, T), targets (N,), and a count that depends only on N.
            on_side_stream: runs a function for warm-up, and returns whether it waited for the
                device.
            record: captures a function without running it, and returns a function to replay it.
        """
        self._step = step
        self._on_side_stream = on_side_stream
        self._record = record
        self._warm = 0
        self._waits = False
        self._batch: tuple[Tensor, Tensor] | None = None  # the input buffers of the graph
        self._replay: Callable[[], None] | None = None

    def __call__(self, contexts: Tensor, targets: Tensor, count: int) -> None:
        """Take a step. Tensors that it changes must keep their addresses."""
        if self._batch is None:
            self._batch = torch.empty_like(contexts), torch.empty_like(targets)
        static_contexts, static_targets = self._batch
        if self._waits or contexts.shape != static_contexts.shape:
            self._step(contexts, targets, count)
            return
        static_contexts.copy_(contexts)
        static_targets.copy_(targets)
        if self._warm < WARM_UP:
            step = partial(self._step, static_contexts, static_targets, count)
            self._waits = self._on_side_stream(step)
            self._warm += 1
            return
        if self._replay is None:
            self._replay = self._record(lambda: self._step(static_contexts, static_targets, count))
        self._replay()
