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
from charlm.data import checkpoint
from charlm.data.corpus import END, Vocabulary
from charlm.fast.running import members_of
from charlm.models.base import LanguageModel, build

M = TypeVar("M", bound=nn.Module)

CONTEXTS = 64
"""Number of contexts on which to try `forward`."""


def construct(architecture: type[M], arguments: dict[str, Any]) -> M:
    """Return a new model.

    Raises InputError if the constructor raises an error (the message has the line), if it creates
    lazy layers, or if it draws from generators that are not seeded.
    """
    if not issubclass(architecture, LanguageModel):
        raise InputError(
            f"{architecture.__name__} is not a LanguageModel; derive it from that class"
        )
    with _drawing_from_torch_alone(architecture):
        try:
            model = architecture(**arguments)
            lazy = any(map(is_lazy, model.parameters()))
        except (Exception, SystemExit) as error:
            raise InputError(
                f"the constructor of {architecture.__name__} raises an error "
                f"({_where(error, architecture)}): {_message(error)}; fix it"
            ) from None
    if lazy:
        raise InputError(
            f"{architecture.__name__} has lazy layers, whose weights cannot be seeded; specify the "
            "sizes (nn.Linear instead of nn.LazyLinear)"
        )
    return model


def check(model: LanguageModel, vocabulary: Vocabulary, log: Callable[[str], None] = print) -> None:
    """Raise InputError unless the model can be trained, saved and rebuilt from its checkpoint.

    The message has the relevant line of the model's file. Parameters without an effect on the
    logits are logged. Only copies of the model are run.
    """
    kind = type(model)
    with torch.random.fork_rng(devices=[]), _drawing_from_torch_alone(kind):
        try:
            wrong, unused = _mistake_in(model, vocabulary)
        except InputError:
            raise
        except (Exception, SystemExit) as error:
            where = _where(error, kind)
            raise InputError(
                f"{where}: forward of {kind.__name__} raises an error: {_message(error)}; fix it"
            ) from None
    if wrong:
        raise InputError(f"{_file(kind)}: forward of {kind.__name__} {wrong}")
    if unused:
        log(
            f"{model.title}: {', '.join(unused)} will not be trained: forward of "
            f"{kind.__name__} does not use {'it' if len(unused) == 1 else 'them'}, or uses "
            "a function without a derivative"
        )


def _mistake_in(model: LanguageModel, vocabulary: Vocabulary) -> tuple[str, list[str]]:
    """Try copies of a model. Return what is wrong, and the parameters without a gradient."""
    used = _rebuilt(model, vocabulary)
    contexts = _contexts(used)
    before = _numbers_of(used)
    wrong, unused = _train_and_evaluate(used, contexts, len(vocabulary))
    wrong = wrong or _what_is_not_saved(model, used, before)
    if not wrong and not _same_logits(used, _rebuilt(used, vocabulary), contexts):
        wrong = (
            "computes different logits after the model is saved and rebuilt; use register_buffer "
            "for its state, nn.ModuleList for a list of layers, and torch's global generator"
        )
    return wrong, unused


def _contexts(model: LanguageModel) -> Tensor:
    """Return contexts (N, T) with every token. The first one is all padding."""
    T, V = model.hyperparameters["block_size"], model.hyperparameters["vocab_size"]
    contexts = torch.arange(CONTEXTS * T).remainder(V).view(CONTEXTS, T)
    contexts[0] = END
    return contexts


def _rebuilt(model: LanguageModel, vocabulary: Vocabulary) -> LanguageModel:
    kind = type(model)
    try:
        return checkpoint.rebuilt(model, vocabulary, build)
    except Exception as error:  # a constructor, a module or JSON can raise anything
        raise InputError(
            f"{_file(kind)}: {kind.__name__} cannot be saved and rebuilt ({_message(error)}); its "
            "arguments must be numbers, strings or lists of them, and it must be the only model in "
            "a module of charlm/models"
        ) from None


def _train_and_evaluate(
    model: nn.Module, contexts: Tensor, vocab_size: int
) -> tuple[str, list[str]]:
    """Train and evaluate. Return what is wrong, and the parameters without a gradient."""
    parameters = dict(model.named_parameters())
    for _ in range(2):  # state kept in the first step can make the second one fail
        wrong, unused = _backward(model.train(), contexts, vocab_size)
    with torch.no_grad():
        for part in (contexts, contexts[:1]):
            wrong = wrong or _difference_from_logits(model.eval()(part), part, vocab_size)
    if any(each is not parameters.get(name, each) for name, each in model.named_parameters()):
        wrong = "replaces a parameter, so that it is not trained; change its values in place"
    return wrong, unused


def _backward(model: nn.Module, contexts: Tensor, vocab_size: int) -> tuple[str, list[str]]:
    """Run forward and backward. Return what is wrong, and the parameters without a gradient."""
    each = members_of(model(contexts))
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    for logits in each:
        if wrong := _difference_from_logits(logits, contexts, vocab_size):
            return wrong, []
        if not trainable or not logits.requires_grad:
            return "depends on no trainable parameter", []
    total = torch.stack([logits.sum() for logits in each]).sum()
    gradients = torch.autograd.grad(total, [*trainable.values()], allow_unused=True)
    return "", [
        name for name, gradient in zip(trainable, gradients, strict=True) if gradient is None
    ]


def _difference_from_logits(logits: Any, contexts: Tensor, vocab_size: int) -> str:
    wanted = (len(contexts), vocab_size)
    should = f"; it must compute logits {wanted} from contexts {tuple(contexts.shape)}"
    if not isinstance(logits, Tensor):
        return f"returns a {type(logits).__name__}{should}"
    if logits.shape != wanted or not logits.is_floating_point():
        return f"returns {tuple(logits.shape)} of {logits.dtype}{should}"
    if logits[0].isnan().any():
        return "returns NaN for a context that is all padding (token 0); handle this case"
    return "returns NaN; fix it" if logits.isnan().any() else ""


def _what_is_not_saved(model: nn.Module, used: nn.Module, before: dict[str, Any]) -> str:
    """Describe the state that running a copy of the model has changed but a checkpoint lacks."""
    if used.state_dict().keys() != model.state_dict().keys():
        return "adds parameters or buffers; create them in the constructor"
    after = _numbers_of(used)
    changed = sorted(name for name in after if before.get(name) != after[name])
    if changed:
        return f"changes {', '.join(changed)}, which is not saved; use register_buffer"
    return ""


def _numbers_of(model: nn.Module) -> dict[str, Any]:
    """Return the numbers in ordinary attributes of the modules, by name."""
    return {
        f"{path}.{name}".removeprefix("."): value
        for path, module in model.named_modules()
        for name, value in vars(module).items()
        if isinstance(value, bool | int | float) and name != "training"
    }


@torch.no_grad()
def _same_logits(one: nn.Module, other: nn.Module, contexts: Tensor) -> bool:
    """Return whether two models compute the same logits, twice in each mode."""

    def logits(of: nn.Module, training: bool) -> Tensor:
        torch.manual_seed(0)
        return torch.cat(members_of(of.train(training)(contexts)))

    return all(
        torch.allclose(logits(one, mode), logits(other, mode), rtol=0, atol=0, equal_nan=True)
        for mode in (True, False, True, False)
    )


@contextmanager
def _drawing_from_torch_alone(kind: type) -> Iterator[None]:
    """Raise InputError if the model draws from generators that are not seeded."""
    before = _states_of_other_generators()
    yield
    if _states_of_other_generators() != before:
        raise InputError(
            f"{_file(kind)}: {kind.__name__} draws random numbers from Python's or NumPy's "
            "generator, which is not seeded; use torch's (torch.rand, nn.Dropout)"
        )


def _states_of_other_generators() -> bytes:
    return pickle.dumps((random.getstate(), np.random.get_state()))


def _message(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".removesuffix(": ")


def _where(error: BaseException, kind: type) -> str:
    """Return the file of a class, and its last line in the traceback."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if _relative(frame.filename) == _file(kind)]
    return f"{_file(kind)}, line {lines[-1]}" if lines else _file(kind)


def _file(kind: type) -> str:
    try:
        return _relative(inspect.getfile(kind))
    except (OSError, TypeError):  # defined in a notebook or at a prompt
        return kind.__module__


def _relative(file: str) -> str:
    return os.path.relpath(file) if Path(file).is_relative_to(Path.cwd()) else file
