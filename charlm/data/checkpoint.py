"""Checkpoints of trained models. They are self-contained, and loading one runs no code from it."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from charlm.core.errors import FileError
from charlm.core.files import load_arrays, load_tensors, save_tensors, tensors_as_bytes
from charlm.data.corpus import Corpus, Vocabulary

if TYPE_CHECKING:  # slow to import and not needed to read weights
    from torch import Tensor


class Model(Protocol):
    """What a checkpoint needs from a model. `charlm.models.base.LanguageModel` provides it."""

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
        architecture: the module of `charlm.models` that defines the model.
        hyperparameters: its constructor arguments.
        vocabulary: its V tokens.
        tensors: its parameters and buffers by name.
    """

    title: str
    architecture: str
    hyperparameters: dict[str, Any]
    vocabulary: Vocabulary
    tensors: dict[str, NDArray[Any]]

    @property
    def embedding(self) -> NDArray[np.float32] | None:
        """The token embedding (V, C), or None if no tensor of the model itself looks like one."""
        for name, tensor in self.tensors.items():
            if (
                "emb" in name
                and not name.startswith("members.")
                and tensor.ndim == 2
                and len(tensor) == len(self.vocabulary)
            ):
                return tensor
        return None


def save(path: Path, model: Model, vocabulary: Vocabulary) -> None:
    """Write weights, architecture and vocabulary as one safetensors file."""
    save_tensors(path, model.state_dict(), _metadata(model, vocabulary))


def rebuilt(model: M, vocabulary: Vocabulary, build: Build[M]) -> M:
    """Return the model as loaded from its checkpoint, without writing the file.

    Raises any error that saving or loading would raise.
    """
    metadata = json.loads(json.dumps(_metadata(model, vocabulary), allow_nan=False))
    tensors_as_bytes(model.state_dict(), metadata)
    again = build(metadata["architecture"], metadata["hyperparameters"])
    again.load_state_dict(model.state_dict())
    if type(again) is not type(model):
        raise ValueError(f"{type(model).__module__} defines {type(again).__name__}")
    return again


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

    Raises what `load` raises, and FileError if the vocabulary or block size differs from the
    corpus.
    """
    checkpoint = load(path, build)
    trained_on = (checkpoint.vocabulary, checkpoint.model.hyperparameters["block_size"])
    if trained_on != (corpus.vocabulary, corpus.block_size):
        raise FileError(f"{path} has a different vocabulary or block size than the dataset")
    return checkpoint.model


def load_weights(paths: Mapping[str, Path]) -> dict[str, Weights]:
    """Read the contents of checkpoints without building their models.

    Raises FileError if a file is missing or not a checkpoint, or if the vocabularies differ.
    """
    loaded = {name: _load_weights(path) for name, path in paths.items()}
    first = next(iter(loaded))
    for name, weights in loaded.items():
        if weights.vocabulary != loaded[first].vocabulary:
            raise FileError(f"{paths[name]} has a different vocabulary than {paths[first]}")
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
        raise ValueError(f"{len(vocabulary)} tokens instead of {size}")
    return vocabulary


@contextmanager
def _describing_a_model(path: Path) -> Iterator[None]:
    """Convert errors in the contents of an intact file into FileError."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, ImportError, RuntimeError) as error:
        raise FileError(
            f"{path} is not a checkpoint that this version can load ({error})"
        ) from None
