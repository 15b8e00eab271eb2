"""What every model has in common."""

import importlib
import inspect
from typing import Any, ClassVar

from torch import nn


class LanguageModel(nn.Module):
    """Contexts (N, T) of tokens in, logits (N, V) of the next token out.

    A model is an ordinary module: `__init__` takes `vocab_size`, `block_size` and whatever else it
    needs, `forward` computes the logits as PyTorch's users write it, and that is what is trained,
    evaluated and sampled. A model keeps the arguments that it was built with, so that a checkpoint
    can build it again.

    Attributes:
        hyperparameters: the arguments, by name, defaults included.
    """

    title: ClassVar[str] = ""
    """What figures and tables call the model; the name of its class if empty."""

    hyperparameters: dict[str, Any]

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.title = vars(cls).get("title") or cls.__name__

    def __new__(cls, *args: Any, **kwargs: Any) -> "LanguageModel":
        model: LanguageModel = super().__new__(cls)
        signature = inspect.signature(cls)
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError:
            return model  # __init__ raises it again; or a copy is made, which gets them later
        bound.apply_defaults()
        for parameter in signature.parameters.values():
            if parameter.kind is parameter.VAR_KEYWORD:  # by the names that they were given by
                bound.arguments |= bound.arguments.pop(parameter.name)
        model.__dict__["hyperparameters"] = bound.arguments
        return model


def architecture_of(module: str) -> type[LanguageModel]:
    """The one model that the module of that name in `charlm.models` defines.

    Raises ImportError if there is no such module, ValueError if it defines no model or several.
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
    """Build the model that the module of that name in `charlm.models` defines.

    Raises what `architecture_of` and the model's constructor raise.
    """
    return architecture_of(module)(**hyperparameters)


def binary_levels(block_size: int) -> int:
    """How many levels of pairs join a context of `block_size` tokens: its logarithm to base 2.

    Raises ValueError if it is not a power of two.
    """
    if block_size < 1 or block_size & (block_size - 1):
        raise ValueError(f"block_size {block_size} is not a power of two")
    return block_size.bit_length() - 1


def count_parameters(model: nn.Module) -> int:
    """How many numbers training may change."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
