"""Trained models as files that need nothing else, and run no code when opened."""

import importlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from charlm.core.errors import FileError
from charlm.core.files import load_arrays, load_tensors, save_tensors
from charlm.data.corpus import Corpus, Vocabulary

if TYPE_CHECKING:  # who looks at the weights alone does not wait for torch
    from charlm.models.base import LanguageModel


@dataclass(frozen=True)
class Checkpoint:
    """A trained model (in evaluation mode, on the CPU) and what its tokens stand for."""

    model: "LanguageModel"
    vocabulary: Vocabulary


@dataclass(frozen=True)
class Weights:
    """What a checkpoint holds, without the model that it makes up.

    Attributes:
        title: what a figure calls the model.
        architecture: the module of `charlm.models` that holds it.
        hyperparameters: what it was built with.
        vocabulary: what its V tokens stand for.
        tensors: float32, by name; "embedding.weight" (V, C) among them.
    """

    title: str
    architecture: str
    hyperparameters: dict[str, Any]
    vocabulary: Vocabulary
    tensors: dict[str, NDArray[np.float32]]

    @property
    def embedding(self) -> NDArray[np.float32]:
        """(V, C) where the model puts its tokens."""
        return self.tensors["embedding.weight"]


def save(path: Path, model: "LanguageModel", vocabulary: Vocabulary) -> None:
    """Write weights, architecture and vocabulary as one safetensors file."""
    metadata = {
        "architecture": type(model).__module__.rpartition(".")[2],
        "class": type(model).__name__,
        "title": model.title,
        "hyperparameters": model.hyperparameters(),
        "characters": vocabulary.characters,
    }
    save_tensors(path, model.state_dict(), metadata)


def load(path: Path) -> Checkpoint:
    """Build the model that a checkpoint describes and give it its weights.

    Raises:
        FileError: the file is missing, damaged, or describes no model that
            `charlm.models` has.
    """
    tensors, metadata = load_tensors(path)
    with _describing_a_model(path):
        architecture = _architecture(metadata["architecture"], metadata["class"])
        model = architecture(**metadata["hyperparameters"])
        model.load_state_dict(tensors)
        vocabulary = Vocabulary(metadata["characters"])
        if len(vocabulary) != model.vocab_size:
            raise ValueError(f"{len(vocabulary)} tokens for a model of {model.vocab_size}")
    return Checkpoint(model.eval(), vocabulary)


def load_for(path: Path, corpus: Corpus) -> Checkpoint:
    """`load`, with FileError for a model trained on another vocabulary or block size."""
    checkpoint = load(path)
    trained_on = (checkpoint.vocabulary, checkpoint.model.block_size)
    if trained_on != (corpus.vocabulary, corpus.block_size):
        raise FileError(
            f"{path} was trained with another vocabulary or block size than the data set's"
        )
    return checkpoint


def load_weights(paths: Mapping[str, Path]) -> dict[str, Weights]:
    """What each of the checkpoints `paths` holds, without building their models.

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
        title, vocabulary = str(metadata["title"]), Vocabulary(metadata["characters"])
        architecture, hyperparameters = metadata["architecture"], metadata["hyperparameters"]
        embedding = arrays["embedding.weight"]
        if embedding.ndim != 2 or len(embedding) != len(vocabulary):
            raise ValueError(f"an embedding {embedding.shape} for {len(vocabulary)} tokens")
    return Weights(title, architecture, dict(hyperparameters), vocabulary, arrays)


@contextmanager
def _describing_a_model(path: Path) -> Iterator[None]:
    """Turn what goes wrong over what a whole file says into one FileError."""
    try:
        yield
    except (KeyError, TypeError, ValueError, ImportError, RuntimeError) as error:
        raise FileError(
            f"{path} is not a checkpoint that this version can load ({error})"
        ) from None


def _architecture(module_name: Any, class_name: Any) -> "type[LanguageModel]":
    """The model class of that name; a file can name no other kind of object."""
    if not (isinstance(module_name, str) and module_name.isidentifier()):
        raise ValueError(f"no architecture {module_name!r}")
    from charlm.models.base import LanguageModel

    module = importlib.import_module(f"charlm.models.{module_name}")
    found = getattr(module, class_name, None)
    if not (isinstance(found, type) and LanguageModel in found.__mro__[1:]):
        raise ValueError(f"no model {class_name!r} in charlm.models.{module_name}")
    return found
