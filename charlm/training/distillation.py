"""Knowledge distillation: train a model on the predictions of another model.

N batch, T context length, V vocabulary, W windows.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from charlm.data.windows import Windows
from charlm.fast.running import Model, Runner, as_runner, batched_logits

STORED = 1 << 29
"""Maximum number of probabilities to store, at two bytes each. More are recomputed per batch."""


@dataclass(frozen=True)
class TaughtWindows(Windows):
    """Training windows whose targets are distributions over tokens.

    A target is the teacher's prediction, with weight `share`, plus the actual token, with weight
    1 - `share`. The cross-entropy is then equation 2 of Hinton, Vinyals and Dean (2015) at
    temperature 1. A teacher with n-gram counts leaves each window out of its counts, so that it
    predicts as for a name that is not in the list.

    Attributes:
        teacher: the runner of a model that maps contexts (N, T) to logits (N, V), on the device of
            the windows.
        vocab_size: V.
        share: weight of the teacher's prediction, from 0 to 1.
        predictions: (W, V) the teacher's predictions; None to compute them batch by batch.
    """

    teacher: Runner
    vocab_size: int
    share: float
    predictions: Tensor | None

    @property
    def numbers(self) -> int:
        return self.block_size + self.vocab_size

    def batch(self, index: Tensor | slice) -> tuple[Tensor, Tensor]:
        """Return the contexts (N, T) and target distributions (N, V) of the selected windows."""
        contexts, targets = super().batch(index)
        if self.predictions is None:
            some = Windows(self.stream, self.block_size, self.starts[index])
            probs = _predictions(self.teacher, some, self.vocab_size)
        else:
            probs = self.predictions[index]
        probs = self.share * probs.float()
        rest = torch.full_like(probs[:, :1], 1 - self.share)
        return contexts, probs.scatter_add_(1, targets[:, None], rest)


def taught(windows: Windows, teacher: Model, vocab_size: int, share: float) -> TaughtWindows:
    """Return the windows with a teacher's predictions mixed into their targets."""
    runner = as_runner(teacher)
    few = len(windows) * vocab_size <= STORED
    known = _predictions(runner, windows, vocab_size) if few else None
    fields = (windows.stream, windows.block_size, windows.starts)
    return TaughtWindows(*fields, runner, vocab_size, share, known)


def _predictions(teacher: Runner, windows: Windows, vocab_size: int) -> Tensor:
    """Return the teacher's predictions (W, V), with each window left out of its counts."""
    probs = windows.starts.new_empty((len(windows), vocab_size), dtype=torch.float16)
    done = 0
    for logits, targets in batched_logits(teacher, windows, leave_out=True):
        probs[done : done + len(targets)] = logits.softmax(1)
        done += len(targets)
    return probs
