"""Checks of a model before it is trained.

N batch, T context length, V vocabulary.
"""

import inspect
import os
import traceback
from pathlib import Path

import torch
from torch import Tensor, nn

from charlm.core.errors import InputError
from charlm.fast.running import unchanged

CONTEXTS = 64
"""Contexts on which `forward` is tried."""


def check_forward(model: nn.Module, vocab_size: int, block_size: int) -> None:
    """Raise InputError unless contexts (N, T) give logits (N, V) that can be trained.

    The message has the line of the model's file in which a mistake shows.
    """
    kind = type(model)
    contexts = torch.arange(CONTEXTS * block_size).remainder(vocab_size).view(CONTEXTS, block_size)
    with unchanged(model):
        try:
            logits = model(contexts)
        except Exception as error:
            raise InputError(
                f"{where(error, kind)}: forward of {kind.__name__} raises an error: {error}; fix it"
            ) from None
    wanted = (CONTEXTS, vocab_size)
    if not isinstance(logits, Tensor):
        wrong = f"returns a {type(logits).__name__}"
    elif logits.shape != wanted or not logits.is_floating_point():
        wrong = f"returns {tuple(logits.shape)} of {logits.dtype}"
    elif not logits.requires_grad:
        wrong = "depends on no trainable parameter"
    else:
        return
    raise InputError(
        f"{_file(kind)}: forward of {kind.__name__} {wrong}; "
        f"it must compute logits {wanted} from contexts {tuple(contexts.shape)}"
    )


def where(error: Exception, kind: type) -> str:
    """Return the file of a class, and the last of its lines that led to the error."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == inspect.getfile(kind)]
    return f"{_file(kind)}, line {lines[-1]}" if lines else _file(kind)


def _file(kind: type) -> str:
    file = Path(inspect.getfile(kind))
    return os.path.relpath(file) if file.is_relative_to(Path.cwd()) else str(file)
