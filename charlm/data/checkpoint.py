"""Checkpoints of trained models: self-contained, and loaded without running code from them."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from charlm.core.errors import FileError, InputError
from charlm.core.files import load_arrays, load_tensors, save_tensors, tensors_as_bytes
from charlm.data.corpus import Corpus, Vocabulary

if TYPE_CHECKING:  # slow to import, and not needed to read the weights
    from torch import Tensor


class Model(Protocol):
    """What a checkpoint needs of a model; `charlm.models.base.LanguageModel` provides it."""

    @property
    def title(self) -> str: ...

    hyperparameters: dict[str, Any]

    def state_dict(self) -> "Mapping[str, Tensor]": ...

    def load_state_dict(self, state_dict: "Mapping[str, Tensor]", /) -> Any: ...

    def eval(self) -> Any: ...


M = TypeVar("M", bound=Model)

Build = Callable[[str, dict[str, Any]], M]
"""A function from architecture and hyperparameters to a model: `charlm.models.base.build`."""


@dataclass(frozen=True)
class Checkpoint(Generic[M]):
    """A trained model (in evaluation mode, on the CPU) and its vocabulary."""

    model: M
    vocabulary: Vocabulary


@dataclass(frozen=True)
class Weights:
    """The contents of a checkpoint, without building the model.

    Attributes:
        title: the model's name in figures.
        architecture: the module of `charlm.models` that defines it.
        hyperparameters: its constructor arguments.
        vocabulary: its V tokens.
        tensors: parameters and buffers by name.
    """

    title: str
    architecture: str
    hyperparameters: dict[str, Any]
    vocabulary: Vocabulary
    tensors: dict[str, NDArray[Any]]

    @property
    def embedding(self) -> NDArray[np.float32] | None:
        """The token embedding (V, C); None if no tensor looks like one."""
        for name, tensor in self.tensors.items():
            if "emb" in name and tensor.ndim == 2 and len(tensor) == len(self.vocabulary):
                return tensor
        return None


def save(path: Path, model: Model, vocabulary: Vocabulary) -> None:
    """Write weights, architecture and vocabulary as one safetensors file."""
    save_tensors(path, model.state_dict(), _metadata(model, vocabulary))


def refuse_unsavable(model: Model, vocabulary: Vocabulary, build: Build[Any]) -> None:
    """Raise InputError for a model that could not be restored from a checkpoint.

    Call it before training, so that no result is lost.
    """
    module, kind = type(model).__module__, type(model).__name__
    try:
        metadata = json.loads(json.dumps(_metadata(model, vocabulary), allow_nan=False))
        tensors_as_bytes(model.state_dict(), metadata)
        again = build(metadata["architecture"], metadata["hyperparameters"])
        again.load_state_dict(model.state_dict())
        if type(again) is not type(model):
            raise ValueError(f"{module} defines {type(again).__name__}")
        different = _first_difference(model, build, metadata)
    except Exception as error:  # whatever a constructor, a module or JSON may raise
        raise InputError(
            f"{kind} cannot be saved and rebuilt ({_first_line(error)}); its arguments must be "
            "numbers, strings or lists of them, and its class the only model in a module of "
            "charlm/models"
        ) from None
    if different:
        raise InputError(f"{kind} cannot be saved and rebuilt: {different}")


def _first_difference(model: Model, build: Build[Any], metadata: Any) -> str | None:
    """Return how a model that has run differs from a new one with its `state_dict`, or None."""
    import torch

    def copy_of(other: Model) -> Any:
        copied = build(metadata["architecture"], metadata["hyperparameters"])
        copied.load_state_dict(other.state_dict())
        return copied

    def logits(of: Any, training: bool) -> torch.Tensor:
        torch.manual_seed(0)
        result: torch.Tensor = of.train(training)(contexts)
        return result

    T, V = metadata["hyperparameters"]["block_size"], metadata["hyperparameters"]["vocab_size"]
    contexts = torch.arange(64 * T).remainder(V).view(64, T)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        used = copy_of(model)
        before = _numbers_of(used)
        for training in (True, True, False):
            logits(used, training)
        if used.state_dict().keys() != model.state_dict().keys():
            return "forward adds parameters or buffers; make them in the constructor"
        after = _numbers_of(used)
        if changed := sorted(name for name in after if before.get(name) != after[name]):
            return f"forward changes {', '.join(changed)}, which is not saved; use register_buffer"
        new = copy_of(used)
        for training in (True, False, True, False):
            of_used, of_new = (logits(it, training) for it in (used, new))
            if not torch.allclose(of_used, of_new, rtol=0, atol=0, equal_nan=True):
                return (
                    "with the same weights it computes other logits; use register_buffer for its "
                    "state, nn.ModuleList for a list of layers, and torch's global generator"
                )
    return None


def _numbers_of(model: Any) -> dict[str, Any]:
    """Return the numbers that the modules keep as plain attributes, by name."""
    return {
        f"{path}.{name}".removeprefix("."): value
        for path, module in model.named_modules()
        for name, value in vars(module).items()
        if isinstance(value, bool | int | float) and name != "training"
    }


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _metadata(model: Model, vocabulary: Vocabulary) -> dict[str, Any]:
    return {
        "architecture": type(model).__module__.rpartition(".")[2],
        "class": type(model).__name__,
        "title": model.title,
        "hyperparameters": model.hyperparameters,
        "characters": vocabulary.characters,
    }


def load(path: Path, build: Build[M]) -> Checkpoint[M]:
    """Load a checkpoint: build its model and load the weights.

    Raises FileError if the file is missing or damaged, or `build` cannot build the model.
    """
    tensors, metadata = load_tensors(path)
    with _describing_a_model(path):
        model = build(metadata["architecture"], metadata["hyperparameters"])
        model.load_state_dict(tensors)
        vocabulary = _vocabulary(metadata)
    model.eval()
    return Checkpoint(model, vocabulary)


def load_for(path: Path, corpus: Corpus, build: Build[M]) -> M:
    """Load the model of a checkpoint for use with a corpus.

    Raises what `load` raises, and FileError if the vocabulary or block size is not the corpus's.
    """
    checkpoint = load(path, build)
    trained_on = (checkpoint.vocabulary, checkpoint.model.hyperparameters["block_size"])
    if trained_on != (corpus.vocabulary, corpus.block_size):
        raise FileError(f"{path} has a different vocabulary or block size from the data set")
    return checkpoint.model


def load_weights(paths: Mapping[str, Path]) -> dict[str, Weights]:
    """Read the contents of checkpoints, without building their models.

    Raises FileError if a file is missing or not a checkpoint, or if the vocabularies differ.
    """
    loaded = {name: _load_weights(path) for name, path in paths.items()}
    first = next(iter(loaded))
    for name, weights in loaded.items():
        if weights.vocabulary != loaded[first].vocabulary:
            raise FileError(f"{paths[name]} has a different vocabulary from {paths[first]}")
    return loaded


def _load_weights(path: Path) -> Weights:
    arrays, metadata = load_arrays(path)
    with _describing_a_model(path):
        title, vocabulary = str(metadata["title"]), _vocabulary(metadata)
        architecture, hyperparameters = metadata["architecture"], metadata["hyperparameters"]
    return Weights(title, architecture, dict(hyperparameters), vocabulary, arrays)


def _vocabulary(metadata: Any) -> Vocabulary:
    vocabulary = Vocabulary(metadata["characters"])
    size = metadata["hyperparameters"]["vocab_size"]
    if len(vocabulary) != size:
        raise ValueError(f"{len(vocabulary)} tokens for a model of {size}")
    return vocabulary


@contextmanager
def _describing_a_model(path: Path) -> Iterator[None]:
    """Turn an error in the contents of an intact file into a FileError."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, ImportError, RuntimeError) as error:
        raise FileError(
            f"{path} is not a checkpoint that this version can load ({error})"
        ) from None
