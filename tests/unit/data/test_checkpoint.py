"""Trained models as files."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from charlm.core.files import save_tensors
from charlm.data import checkpoint
from charlm.data.corpus import Corpus, Vocabulary
from charlm.data.windows import every_window
from charlm.models.base import LanguageModel
from tests.helpers import (
    ARCHITECTURES,
    DAMAGED,
    NAMES,
    bytes_of_two_processes,
    refused,
    run_python,
    small_corpus,
    small_model,
    write_evil_pickle,
)

CORPUS = small_corpus()
MODEL = small_model(CORPUS)
METADATA = {
    "architecture": "fcn",
    "class": "FCN",
    "title": "Fully connected net",
    "hyperparameters": MODEL.hyperparameters(),
    "characters": CORPUS.vocabulary.characters,
}

SAVE = """
import sys
from pathlib import Path
from charlm.data import checkpoint
from tests.helpers import small_corpus, small_model
corpus = small_corpus()
checkpoint.save(Path(sys.argv[1]), small_model(corpus), corpus.vocabulary)
"""

LOAD = """
import json
from pathlib import Path
import charlm.data.checkpoint
import torch
torch.set_num_threads(1)  # as here: another number of threads rounds differently
loaded = charlm.data.checkpoint.load(Path("model"))
contexts = torch.arange(3 * loaded.model.block_size).reshape(3, -1)
print(json.dumps([loaded.vocabulary.characters, loaded.model(contexts).tolist()]))
"""


@ARCHITECTURES
def test_a_loaded_model_gives_the_same_logits(
    tmp_path: Path, architecture: type[LanguageModel]
) -> None:
    model = small_model(CORPUS, architecture)
    checkpoint.save(tmp_path / "model", model, CORPUS.vocabulary)
    loaded = checkpoint.load(tmp_path / "model")
    contexts, _ = every_window(CORPUS).batch(slice(None))
    assert torch.equal(loaded.model(contexts), model(contexts))
    assert type(loaded.model) is architecture
    assert loaded.vocabulary == CORPUS.vocabulary
    assert not loaded.model.training
    assert next(loaded.model.parameters()).device == torch.device("cpu")


def test_two_processes_write_the_same_bytes(tmp_path: Path) -> None:
    first, second = bytes_of_two_processes(SAVE, tmp_path)
    assert first == second
    checkpoint.save(tmp_path / "here", MODEL, CORPUS.vocabulary)
    assert (tmp_path / "here").read_bytes() == first


def test_loading_needs_the_file_alone(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "model", MODEL, CORPUS.vocabulary)
    characters, logits = json.loads(run_python(LOAD, cwd=tmp_path))
    assert characters == CORPUS.vocabulary.characters
    contexts = torch.arange(3 * MODEL.block_size).reshape(3, -1)
    assert torch.equal(torch.tensor(logits), MODEL(contexts))


def test_nothing_but_weights_architecture_and_vocabulary_is_in_it(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "model", MODEL, CORPUS.vocabulary)
    size = int.from_bytes((tmp_path / "model").read_bytes()[:8], "little")
    header = json.loads((tmp_path / "model").read_bytes()[8 : 8 + size])
    assert json.loads(header.pop("__metadata__")["charlm"]) == METADATA
    assert set(header) == set(MODEL.state_dict())


@DAMAGED
def test_a_damaged_checkpoint_is_refused(tmp_path: Path, damage) -> None:
    checkpoint.save(tmp_path / "model", MODEL, CORPUS.vocabulary)
    (tmp_path / "model").write_bytes(damage((tmp_path / "model").read_bytes()))
    with refused(tmp_path / "model"):
        checkpoint.load(tmp_path / "model")


def test_a_missing_checkpoint_and_a_folder_are_refused(tmp_path: Path) -> None:
    with refused(tmp_path / "none", "does not exist"):
        checkpoint.load(tmp_path / "none")
    with refused(tmp_path):
        checkpoint.load(tmp_path)


def hyperparameters(**changes: object) -> dict[str, object]:
    return {"hyperparameters": {**METADATA["hyperparameters"], **changes}}


@pytest.mark.parametrize(
    "changes",
    [
        {"architecture": "os"},
        {"architecture": "../x"},
        {"architecture": "fcn.torch"},
        {"architecture": ""},
        {"architecture": "wavenet"},
        {"class": "Tensor"},
        {"class": "torch"},
        {"class": "nothing"},
        {"class": ""},
        {"class": None},
        {"architecture": "wavenet", "class": "Linear"},
        {"architecture": "wavenet", "class": "WaveNet"},
        {"hyperparameters": None},
        {"hyperparameters": {}},
        hyperparameters(hidden_dim=13),
        hyperparameters(hidden_dim=-1),
        hyperparameters(hidden_dim="12"),
        hyperparameters(vocab_size=2**70),
        hyperparameters(vocab_size=2**45),
        hyperparameters(unknown=1),
    ],
    ids=repr,
)
def test_metadata_that_describe_no_such_model_are_refused(
    tmp_path: Path, changes: dict[str, object]
) -> None:
    save_tensors(tmp_path / "model", MODEL.state_dict(), {**METADATA, **changes})
    with refused(tmp_path / "model"):
        checkpoint.load(tmp_path / "model")


@pytest.mark.parametrize("key", sorted(METADATA.keys() - {"title"}))
def test_metadata_without_a_key_are_refused(tmp_path: Path, key: str) -> None:
    metadata = {name: value for name, value in METADATA.items() if name != key}
    save_tensors(tmp_path / "model", MODEL.state_dict(), metadata)
    with refused(tmp_path / "model", key):
        checkpoint.load(tmp_path / "model")


@pytest.mark.parametrize("metadata", [[], None, "text"])
def test_metadata_that_are_no_mapping_are_refused(tmp_path: Path, metadata: object) -> None:
    save_tensors(tmp_path / "model", MODEL.state_dict(), metadata)
    with refused(tmp_path / "model"):
        checkpoint.load(tmp_path / "model")


@pytest.mark.parametrize("architecture", [3, None, ["fcn"]])
def test_an_architecture_that_is_no_text_is_refused(tmp_path: Path, architecture: object) -> None:
    metadata = {**METADATA, "architecture": architecture}
    save_tensors(tmp_path / "model", MODEL.state_dict(), metadata)
    with refused(tmp_path / "model"):
        checkpoint.load(tmp_path / "model")


@pytest.mark.parametrize("architecture", ["base", "fcn"])
def test_the_abstract_base_class_is_refused_as_a_model(tmp_path: Path, architecture: str) -> None:
    metadata = {"architecture": architecture, "class": "LanguageModel", "hyperparameters": {}}
    save_tensors(tmp_path / "model", {}, {**metadata, "characters": "AB"})
    with refused(tmp_path / "model"):
        checkpoint.load(tmp_path / "model")


def test_a_module_that_is_no_model_is_refused_though_it_could_be_built(tmp_path: Path) -> None:
    metadata = {"architecture": "wavenet", "class": "Linear", "characters": "AB"}
    save_tensors(
        tmp_path / "model",
        {},
        {**metadata, "hyperparameters": {"in_features": 2, "out_features": 3}},
    )
    with refused(tmp_path / "model", "Linear"):
        checkpoint.load(tmp_path / "model")


@pytest.mark.parametrize("characters", ["AB", "", CORPUS.vocabulary.characters + "!", 3, None])
def test_a_vocabulary_of_another_size_than_the_models_is_refused(
    tmp_path: Path, characters: object
) -> None:
    metadata = {**METADATA, "characters": characters}
    save_tensors(tmp_path / "model", MODEL.state_dict(), metadata)
    with refused(tmp_path / "model"):
        checkpoint.load(tmp_path / "model")


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    weights = MODEL.state_dict()
    del weights["output.bias"]
    save_tensors(tmp_path / "model", weights, METADATA)
    with refused(tmp_path / "model", "output.bias"):
        checkpoint.load(tmp_path / "model")


def test_load_for_takes_a_model_of_the_same_data(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "model", MODEL, CORPUS.vocabulary)
    same = Corpus.from_names(NAMES[::-1], CORPUS.block_size)
    assert checkpoint.load_for(tmp_path / "model", same).vocabulary == CORPUS.vocabulary


@pytest.mark.parametrize(
    "other",
    [
        Corpus.from_names([*NAMES, "ß"], CORPUS.block_size),
        Corpus.from_names([name.replace("X", "x") for name in NAMES], CORPUS.block_size),
        Corpus.from_names(NAMES, 2 * CORPUS.block_size),
    ],
    ids=["more characters", "other characters", "other block size"],
)
def test_load_for_refuses_a_model_of_other_data(tmp_path: Path, other: Corpus) -> None:
    checkpoint.save(tmp_path / "model", MODEL, CORPUS.vocabulary)
    with refused(tmp_path / "model", "vocabulary or block size"):
        checkpoint.load_for(tmp_path / "model", other)


@ARCHITECTURES
def test_the_weights_are_loaded_without_their_model(
    tmp_path: Path, architecture: type[LanguageModel]
) -> None:
    model = small_model(CORPUS, architecture)
    checkpoint.save(tmp_path / "model", model, CORPUS.vocabulary)
    loaded = checkpoint.load_weights({"it": tmp_path / "model"})["it"]
    assert loaded.title == architecture.title
    assert loaded.vocabulary == CORPUS.vocabulary
    assert np.array_equal(loaded.embedding, model.embedding.weight.detach())
    assert loaded.architecture == architecture.__module__.rpartition(".")[2]
    assert loaded.hyperparameters == model.hyperparameters()
    assert set(loaded.tensors) == set(model.state_dict())


@DAMAGED
def test_the_weights_of_a_damaged_checkpoint_is_refused(tmp_path: Path, damage) -> None:
    checkpoint.save(tmp_path / "model", MODEL, CORPUS.vocabulary)
    (tmp_path / "model").write_bytes(damage((tmp_path / "model").read_bytes()))
    with refused(tmp_path / "model"):
        checkpoint.load_weights({"it": tmp_path / "model"})


@pytest.mark.parametrize(
    "changes", [{"characters": "AB"}, {"characters": "BA"}, {"characters": 3}, {"characters": None}]
)
def test_an_embedding_of_other_tokens_is_refused(tmp_path: Path, changes: dict) -> None:
    save_tensors(tmp_path / "model", MODEL.state_dict(), METADATA | changes)
    with refused(tmp_path / "model", "not a checkpoint that this version can load"):
        checkpoint.load_weights({"it": tmp_path / "model"})


@pytest.mark.parametrize("key", ["title", "characters", "architecture", "hyperparameters"])
def test_an_embedding_of_which_nothing_is_said_is_refused(tmp_path: Path, key: str) -> None:
    metadata = {name: value for name, value in METADATA.items() if name != key}
    save_tensors(tmp_path / "model", MODEL.state_dict(), metadata)
    with refused(tmp_path / "model", key):
        checkpoint.load_weights({"it": tmp_path / "model"})


@pytest.mark.parametrize("weight", [None, torch.zeros(29), torch.zeros(5, 29)])
def test_another_embedding_than_a_table_of_tokens_is_refused(
    tmp_path: Path, weight: torch.Tensor | None
) -> None:
    tensors = {} if weight is None else {"embedding.weight": weight}
    save_tensors(tmp_path / "model", tensors, METADATA)
    with refused(tmp_path / "model", "embedding"):
        checkpoint.load_weights({"it": tmp_path / "model"})


def test_embeddings_of_other_vocabularies_do_not_go_together(tmp_path: Path) -> None:
    other = Corpus.from_names([*NAMES, "ß"], CORPUS.block_size)
    checkpoint.save(tmp_path / "one", MODEL, CORPUS.vocabulary)
    checkpoint.save(tmp_path / "two", small_model(other), other.vocabulary)
    with refused(tmp_path / "two", f"another vocabulary than {tmp_path / 'one'}"):
        checkpoint.load_weights({"one": tmp_path / "one", "two": tmp_path / "two"})


def test_an_evil_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    write_evil_pickle(tmp_path / "model", trace=tmp_path / "trace")
    with refused(tmp_path / "model"):
        checkpoint.load(tmp_path / "model")
    assert not (tmp_path / "trace").exists()


def test_a_vocabulary_of_any_script_is_kept(tmp_path: Path) -> None:
    corpus = Corpus.from_names(["Ωμέγα", "中文", '"\\', "अि"], 4)
    checkpoint.save(tmp_path / "model", small_model(corpus), corpus.vocabulary)
    assert checkpoint.load(tmp_path / "model").vocabulary == Vocabulary(
        corpus.vocabulary.characters
    )
