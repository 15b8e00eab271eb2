"""Trained models as files that need nothing else, and run no code when opened."""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from charlm.corpus import Corpus, Vocabulary
from charlm.errors import FileError
from charlm.files import load_tensors, save_tensors
from charlm.models.base import LanguageModel


@dataclass(frozen=True)
class Checkpoint:
    """A trained model (in evaluation mode, on the CPU) and what its tokens stand for."""

    model: LanguageModel
    vocabulary: Vocabulary


def save(path: Path, model: LanguageModel, vocabulary: Vocabulary) -> None:
    """Write weights, architecture and vocabulary as one safetensors file."""
    metadata = {
        "architecture": type(model).__module__.rpartition(".")[2],
        "class": type(model).__name__,
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
    try:
        architecture = _architecture(metadata["architecture"], metadata["class"])
        model = architecture(**metadata["hyperparameters"])
        model.load_state_dict(tensors)
        vocabulary = Vocabulary(metadata["characters"])
        if len(vocabulary) != model.vocab_size:
            raise ValueError(f"{len(vocabulary)} tokens for a model of {model.vocab_size}")
    except (KeyError, TypeError, ValueError, ImportError, RuntimeError) as error:
        raise FileError(
            f"{path} is not a checkpoint that this version can load ({error})"
        ) from None
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


def load_all(paths: Mapping[str, Path]) -> dict[str, Checkpoint]:
    """`load` for each of `paths`, with FileError for one whose vocabulary is not the first's."""
    checkpoints = {name: load(path) for name, path in paths.items()}
    first = next(iter(checkpoints))
    for name, checkpoint in checkpoints.items():
        if checkpoint.vocabulary != checkpoints[first].vocabulary:
            raise FileError(f"{paths[name]} has another vocabulary than {paths[first]}")
    return checkpoints


def _architecture(module_name: Any, class_name: Any) -> type[LanguageModel]:
    """The model class of that name; a file can name no other kind of object."""
    if not (isinstance(module_name, str) and module_name.isidentifier()):
        raise ValueError(f"no architecture {module_name!r}")
    module = importlib.import_module(f"charlm.models.{module_name}")
    found = getattr(module, class_name, None)
    if not (isinstance(found, type) and LanguageModel in found.__mro__[1:]):
        raise ValueError(f"no model {class_name!r} in charlm.models.{module_name}")
    return found
