"""Trained models as files that need nothing else, and run no code when opened."""

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

if TYPE_CHECKING:  # who looks at the weights alone does not wait for torch
    from torch import Tensor


class Model(Protocol):
    """What a checkpoint needs to know of a model; `charlm.models.base.LanguageModel` has it."""

    @property
    def title(self) -> str: ...

    hyperparameters: dict[str, Any]

    def state_dict(self) -> "Mapping[str, Tensor]": ...

    def load_state_dict(self, state_dict: "Mapping[str, Tensor]", /) -> Any: ...

    def eval(self) -> Any: ...


M = TypeVar("M", bound=Model)

Build = Callable[[str, dict[str, Any]], M]
"""Builds a model from its architecture and hyperparameters: `charlm.models.base.build`."""


@dataclass(frozen=True)
class Checkpoint(Generic[M]):
    """A trained model (in evaluation mode, on the CPU) and what its tokens stand for."""

    model: M
    vocabulary: Vocabulary


@dataclass(frozen=True)
class Weights:
    """What a checkpoint holds, without the model that it makes up.

    Attributes:
        title: what a figure calls the model.
        architecture: the module of `charlm.models` that holds it.
        hyperparameters: what it was built with.
        vocabulary: what its V tokens stand for.
        tensors: by name.
    """

    title: str
    architecture: str
    hyperparameters: dict[str, Any]
    vocabulary: Vocabulary
    tensors: dict[str, NDArray[Any]]

    @property
    def embedding(self) -> NDArray[np.float32] | None:
        """(V, C) where the model puts its tokens; None if no tensor looks like that."""
        for name, tensor in self.tensors.items():
            if "emb" in name and tensor.ndim == 2 and len(tensor) == len(self.vocabulary):
                return tensor
        return None


def save(path: Path, model: Model, vocabulary: Vocabulary) -> None:
    """Write weights, architecture and vocabulary as one safetensors file."""
    save_tensors(path, model.state_dict(), _metadata(model, vocabulary))


def refuse_unsavable(model: Model, vocabulary: Vocabulary, build: Build[Any]) -> None:
    """Raise InputError for a model that no checkpoint could bring back.

    Before a training, whose result could otherwise not be saved.
    """
    module, kind = type(model).__module__, type(model).__name__
    try:
        metadata = json.loads(json.dumps(_metadata(model, vocabulary), allow_nan=False))
        tensors_as_bytes(model.state_dict(), metadata)
        again = build(metadata["architecture"], metadata["hyperparameters"])
        again.load_state_dict(model.state_dict())
        if type(again) is not type(model):
            raise ValueError(f"{module} defines {type(again).__name__}")
    except Exception as error:  # of many kinds: what a constructor, a module or JSON may raise
        raise InputError(
            f"{kind} could not be saved and built again ({_first_line(error)}); give it arguments "
            f"that are numbers, texts or lists of them, and define it in charlm/models"
        ) from None


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _metadata(model: Model, vocabulary: Vocabulary) -> dict[str, Any]:
    return {
        "architecture": type(model).__module__.rpartition(".")[2],
        "class": type(model).__name__,
        "title": model.title,
        "hyperparameters": model.hyperparameters,
        "characters": vocabulary.characters,
    }


def load(path: Path, build: Build[M]) -> Checkpoint[M]:
    """Build the model that a checkpoint describes and give it its weights.

    Raises FileError if the file is missing, damaged, or describes no model that `build` can build.
    """
    tensors, metadata = load_tensors(path)
    with _describing_a_model(path):
        model = build(metadata["architecture"], metadata["hyperparameters"])
        model.load_state_dict(tensors)
        vocabulary = _vocabulary(metadata)
    model.eval()
    return Checkpoint(model, vocabulary)


def load_for(path: Path, corpus: Corpus, build: Build[M]) -> M:
    """The model of `load`.

    Raises FileError if its vocabulary or block size is not the corpus's.
    """
    checkpoint = load(path, build)
    trained_on = (checkpoint.vocabulary, checkpoint.model.hyperparameters["block_size"])
    if trained_on != (corpus.vocabulary, corpus.block_size):
        raise FileError(
            f"{path} was trained with another vocabulary or block size than the data set's"
        )
    return checkpoint.model


def load_weights(paths: Mapping[str, Path]) -> dict[str, Weights]:
    """Read what each of the checkpoints `paths` holds, without building their models.

    Raises FileError for a file that is missing or no checkpoint, and for one whose vocabulary is
    not the first's.
    """
    loaded = {name: _load_weights(path) for name, path in paths.items()}
    first = next(iter(loaded))
    for name, weights in loaded.items():
        if weights.vocabulary != loaded[first].vocabulary:
            raise FileError(f"{paths[name]} has another vocabulary than {paths[first]}")
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
    """Turn what goes wrong with the content of a whole file into one FileError."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, ImportError, RuntimeError) as error:
        raise FileError(
            f"{path} is not a checkpoint that this version can load ({error})"
        ) from None
