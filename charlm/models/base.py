"""The base class of all models, and functions to find and build them."""

import copy
import importlib
import inspect
from typing import Any, ClassVar

from torch import nn


class LanguageModel(nn.Module):
    """A module that maps contexts (N, T) of tokens to logits (N, V) of the next token.

    A model is an ordinary module: `__init__` takes `vocab_size`, `block_size` and any other
    arguments, and `forward` computes the logits in plain PyTorch. The same module is trained,
    evaluated and sampled. The constructor's arguments are recorded, so that the model can be
    rebuilt from a checkpoint.

    An ensemble's `forward` returns a list in training mode: the logits of each member. The mean of
    their losses is minimized.

    Attributes:
        hyperparameters: the constructor's arguments by name, including defaults.
    """

    title: ClassVar[str] = ""
    """The model's name in figures and tables; by default the name of its class."""

    __signature__: ClassVar[inspect.Signature]

    hyperparameters: dict[str, Any]

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.title = vars(cls).get("title") or cls.__name__
        # For a class without `__init__`, early releases of Python 3.11 return that of `__new__`.
        signature = inspect.signature(cls.__init__)
        _, *parameters = signature.parameters.values()
        cls.__signature__ = signature.replace(parameters=parameters)

    def __new__(cls, *args: Any, **kwargs: Any) -> "LanguageModel":
        model: LanguageModel = super().__new__(cls)
        signature = inspect.signature(cls)
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError:
            return model  # __init__ raises the error; or this is a copy, whose state is set later
        bound.apply_defaults()
        bound.arguments = copy.deepcopy(bound.arguments)  # the constructor may change a list
        for parameter in signature.parameters.values():
            if parameter.kind is parameter.VAR_KEYWORD:
                bound.arguments |= bound.arguments.pop(parameter.name)
            elif parameter.kind is parameter.VAR_POSITIONAL and not bound.arguments[parameter.name]:
                del bound.arguments[parameter.name]
        model.__dict__["hyperparameters"] = bound.arguments
        return model


def architecture_of(module: str) -> type[LanguageModel]:
    """Return the model class defined in a module of `charlm.models`.

    Raises ImportError if there is no such module, and ValueError if it does not define exactly one
    model.
    """
    if not module.isidentifier():
        raise ValueError(f"no architecture {module!r}")
    loaded = importlib.import_module(f"charlm.models.{module}")
    found = [
        each
        for each in vars(loaded).values()
        if isinstance(each, type)
        and issubclass(each, LanguageModel)
        and each is not LanguageModel
        and each.__module__ == loaded.__name__
    ]
    if len(found) != 1:
        raise ValueError(f"charlm/models/{module}.py defines {len(found)} models instead of one")
    return found[0]


def build(module: str, hyperparameters: dict[str, Any]) -> LanguageModel:
    """Build the model defined in a module of `charlm.models`.

    Raises what `architecture_of` and the model's constructor raise.
    """
    return architecture_of(module)(**copy.deepcopy(hyperparameters))


def binary_levels(block_size: int) -> int:
    """Return log2(block_size), the depth of a binary tree over a context.

    Raises ValueError if `block_size` is not a power of two.
    """
    if block_size < 1 or block_size & (block_size - 1):
        raise ValueError(f"block_size {block_size} is not a power of two")
    return block_size.bit_length() - 1


def count_parameters(model: nn.Module) -> int:
    """Return the number of trainable parameters, plus n-gram counts if there are any."""
    counts = sum(getattr(module, "counted", 0) for module in model.modules())
    return counts + sum(p.numel() for p in model.parameters() if p.requires_grad)
