"""Checks of a model before it is trained.

N batch, T context length, V vocabulary.
"""

import inspect
import os
import pickle
import random
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from charlm.core.errors import InputError
from charlm.data.corpus import END
from charlm.fast.running import title_of
from charlm.models.base import LanguageModel

M = TypeVar("M", bound=nn.Module)

CONTEXTS = 64
"""Contexts on which `forward` is tried."""


def construct(architecture: type[M], arguments: dict[str, Any]) -> M:
    """Return a new model.

    Raises InputError, with its line, if the constructor raises an error, or if it leaves weights
    to be drawn later or from generators that are not seeded.
    """
    if not issubclass(architecture, LanguageModel):
        raise InputError(f"{architecture.__name__} is no LanguageModel; derive it from that class")
    with _drawing_from_torch_alone(architecture):
        try:
            model = architecture(**arguments)
            lazy = any(map(is_lazy, model.parameters()))
        except (
            Exception,
            SystemExit,
        ) as error:  # nn.MultiheadAttention asserts, others raise KeyError
            raise InputError(
                f"the constructor of {architecture.__name__} raises an error "
                f"({_where(error, architecture)}): {_message(error)}; fix it"
            ) from None
    if lazy:
        raise InputError(
            f"{architecture.__name__} has lazy layers, whose weights no seed determines; give the "
            "sizes (nn.Linear instead of nn.LazyLinear)"
        )
    return model


def check_forward(
    model: nn.Module, vocab_size: int, block_size: int, log: Callable[[str], None] = print
) -> None:
    """Raise InputError unless contexts (N, T) give logits (N, V) that can be trained.

    The message has the line of the model's file in which a mistake shows. A line is logged if
    some parameters have no effect on the logits. The model is changed as by training.
    """
    kind = type(model)
    contexts = torch.arange(CONTEXTS * block_size).remainder(vocab_size).view(CONTEXTS, block_size)
    contexts[0] = END  # nothing but padding, as in front of a name
    parameters = [*model.parameters()]
    with torch.random.fork_rng(devices=[]), _drawing_from_torch_alone(kind):
        try:
            for _ in range(2):  # what the first step keeps may fail in the second
                wrong, unused = _try(model.train(), contexts, vocab_size)
            with torch.no_grad():
                for part in (contexts, contexts[:1]):
                    wrong = wrong or _difference_from_logits(model.eval()(part), part, vocab_size)
        except (Exception, SystemExit) as error:
            where = _where(error, kind)
            raise InputError(
                f"{where}: forward of {kind.__name__} raises an error: {_message(error)}; fix it"
            ) from None
    if [*map(id, parameters)] != [*map(id, model.parameters())]:
        wrong = "replaces a parameter, which is then not trained; change its values in place"
    if wrong:
        raise InputError(f"{_file(kind)}: forward of {kind.__name__} {wrong}")
    if unused:
        log(
            f"{title_of(model)}: {', '.join(unused)} will not be trained: forward of "
            f"{kind.__name__} does not use {'it' if len(unused) == 1 else 'them'}"
        )


def _try(model: nn.Module, contexts: Tensor, vocab_size: int) -> tuple[str, list[str]]:
    """Run forward and backward; return what is wrong, and the parameters without a gradient."""
    logits = model(contexts)
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if wrong := _difference_from_logits(logits, contexts, vocab_size):
        return wrong, []
    if not trainable or not logits.requires_grad:
        return "depends on no trainable parameter", []
    gradients = torch.autograd.grad(logits.sum(), [*trainable.values()], allow_unused=True)
    return "", [name for name, its in zip(trainable, gradients, strict=True) if its is None]


def _difference_from_logits(logits: Any, contexts: Tensor, vocab_size: int) -> str:
    wanted = (len(contexts), vocab_size)
    should = f"; it must compute logits {wanted} from contexts {tuple(contexts.shape)}"
    if not isinstance(logits, Tensor):
        return f"returns a {type(logits).__name__}{should}"
    if logits.shape != wanted or not logits.is_floating_point():
        return f"returns {tuple(logits.shape)} of {logits.dtype}{should}"
    if logits[0].isnan().any():
        return "computes NaN for a context of nothing but padding (token 0); handle it"
    return "computes NaN; fix it" if logits.isnan().any() else ""


@contextmanager
def _drawing_from_torch_alone(kind: type) -> Iterator[None]:
    """Raise InputError if a model of this class draws from generators that are not seeded."""
    before = _states_of_other_generators()
    yield
    if _states_of_other_generators() != before:
        raise InputError(
            f"{_file(kind)}: {kind.__name__} draws random numbers from Python's or NumPy's "
            "generator, which would differ each time; use torch's (torch.rand, nn.Dropout)"
        )


def _states_of_other_generators() -> bytes:
    return pickle.dumps((random.getstate(), np.random.get_state()))


def _message(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".removesuffix(": ")


def _where(error: BaseException, kind: type) -> str:
    """Return the file of a class, and the last of its lines that led to the error."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == inspect.getfile(kind)]
    return f"{_file(kind)}, line {lines[-1]}" if lines else _file(kind)


def _file(kind: type) -> str:
    file = Path(inspect.getfile(kind))
    return os.path.relpath(file) if file.is_relative_to(Path.cwd()) else str(file)
