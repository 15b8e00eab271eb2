"""Checkpoints of trained models."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from charlm.core.files import save_tensors
from charlm.data import checkpoint
from charlm.data.corpus import Corpus, Vocabulary
from charlm.data.windows import every_window
from charlm.models.base import LanguageModel, build
from charlm.training.checks import check
from tests.helpers import (
    ARCHITECTURES,
    DAMAGED,
    NAMES,
    in_a_module,
    refused,
    run_python,
    small_corpus,
    small_model,
    write_evil_pickle,
)
from tests.models import GRU, BatchNormWaveNet, CausalTransformer

CORPUS = small_corpus()
MODEL = small_model(CORPUS)
V = len(CORPUS.vocabulary)
METADATA = {
    "architecture": "fcn",
    "class": "FCN",
    "title": "Fully connected net",
    "hyperparameters": MODEL.hyperparameters,
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
from charlm.models.base import build
torch.set_num_threads(1)  # as here: another number of threads rounds differently
loaded = charlm.data.checkpoint.load(Path("model"), build)
contexts = torch.arange(3 * loaded.model.hyperparameters["block_size"]).reshape(3, -1)
print(json.dumps([loaded.vocabulary.characters, loaded.model(contexts).tolist()]))
"""


@ARCHITECTURES
def test_a_loaded_model_gives_the_same_logits(
    tmp_path: Path, architecture: type[LanguageModel]
) -> None:
    model = small_model(CORPUS, architecture)
    checkpoint.save(tmp_path / "model", model, CORPUS.vocabulary)
    loaded = checkpoint.load(tmp_path / "model", build)
    contexts, _ = every_window(CORPUS).batch(slice(None))
    assert torch.equal(loaded.model(contexts), model(contexts))
    assert type(loaded.model) is architecture
    assert loaded.vocabulary == CORPUS.vocabulary
    assert not loaded.model.training
    assert next(loaded.model.parameters()).device == torch.device("cpu")


def test_another_process_writes_the_same_bytes(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "here", MODEL, CORPUS.vocabulary)
    run_python(SAVE, tmp_path / "there", PYTHONHASHSEED="1")
    assert (tmp_path / "here").read_bytes() == (tmp_path / "there").read_bytes()


def test_loading_needs_only_the_file(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "model", MODEL, CORPUS.vocabulary)
    characters, logits = json.loads(run_python(LOAD, cwd=tmp_path))
    assert characters == CORPUS.vocabulary.characters
    contexts = torch.arange(3 * CORPUS.block_size).reshape(3, -1)
    assert torch.equal(torch.tensor(logits), MODEL(contexts))


def test_a_checkpoint_has_only_weights_architecture_and_vocabulary(tmp_path: Path) -> None:
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
        checkpoint.load(tmp_path / "model", build)


def test_a_missing_checkpoint_and_a_folder_are_refused(tmp_path: Path) -> None:
    with refused(tmp_path / "none", "does not exist"):
        checkpoint.load(tmp_path / "none", build)
    with refused(tmp_path):
        checkpoint.load(tmp_path, build)


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
def test_metadata_that_describe_no_valid_model_are_refused(
    tmp_path: Path, changes: dict[str, object]
) -> None:
    save_tensors(tmp_path / "model", MODEL.state_dict(), {**METADATA, **changes})
    with refused(tmp_path / "model"):
        checkpoint.load(tmp_path / "model", build)


@pytest.mark.parametrize("key", sorted(METADATA.keys() - {"title", "class"}))
def test_metadata_with_a_missing_key_are_refused(tmp_path: Path, key: str) -> None:
    metadata = {name: value for name, value in METADATA.items() if name != key}
    save_tensors(tmp_path / "model", MODEL.state_dict(), metadata)
    with refused(tmp_path / "model", key):
        checkpoint.load(tmp_path / "model", build)


@pytest.mark.parametrize("metadata", [[], None, "text"])
def test_metadata_that_are_not_a_mapping_are_refused(tmp_path: Path, metadata: object) -> None:
    save_tensors(tmp_path / "model", MODEL.state_dict(), metadata)
    with refused(tmp_path / "model"):
        checkpoint.load(tmp_path / "model", build)


@pytest.mark.parametrize("architecture", [3, None, ["fcn"]])
def test_an_architecture_that_is_not_a_string_is_refused(
    tmp_path: Path, architecture: object
) -> None:
    metadata = {**METADATA, "architecture": architecture}
    save_tensors(tmp_path / "model", MODEL.state_dict(), metadata)
    with refused(tmp_path / "model"):
        checkpoint.load(tmp_path / "model", build)


@pytest.mark.parametrize("architecture", ["base", "fcn"])
def test_the_abstract_base_class_is_refused_as_a_model(tmp_path: Path, architecture: str) -> None:
    metadata = {"architecture": architecture, "class": "LanguageModel", "hyperparameters": {}}
    save_tensors(tmp_path / "model", {}, {**metadata, "characters": "AB"})
    with refused(tmp_path / "model"):
        checkpoint.load(tmp_path / "model", build)


@pytest.mark.parametrize("characters", ["AB", "", CORPUS.vocabulary.characters + "!", 3, None])
def test_a_vocabulary_of_the_wrong_size_is_refused(tmp_path: Path, characters: object) -> None:
    metadata = {**METADATA, "characters": characters}
    save_tensors(tmp_path / "model", MODEL.state_dict(), metadata)
    with refused(tmp_path / "model"):
        checkpoint.load(tmp_path / "model", build)


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    weights = MODEL.state_dict()
    del weights["output.bias"]
    save_tensors(tmp_path / "model", weights, METADATA)
    with refused(tmp_path / "model", "output.bias"):
        checkpoint.load(tmp_path / "model", build)


def test_load_for_accepts_a_model_of_the_same_data(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "model", MODEL, CORPUS.vocabulary)
    same = Corpus.from_names(NAMES[::-1], CORPUS.block_size)
    model = checkpoint.load_for(tmp_path / "model", same, build)
    assert str(model) == str(MODEL)
    assert not model.training


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
        checkpoint.load_for(tmp_path / "model", other, build)


@ARCHITECTURES
def test_weights_can_be_loaded_without_their_model(
    tmp_path: Path, architecture: type[LanguageModel]
) -> None:
    model = small_model(CORPUS, architecture)
    checkpoint.save(tmp_path / "model", model, CORPUS.vocabulary)
    loaded = checkpoint.load_weights({"it": tmp_path / "model"})["it"]
    assert loaded.title == architecture.title
    assert loaded.vocabulary == CORPUS.vocabulary
    assert np.array_equal(loaded.embedding, model.embedding.weight.detach())
    assert loaded.architecture == architecture.__module__.rpartition(".")[2]
    assert loaded.hyperparameters == model.hyperparameters
    assert set(loaded.tensors) == set(model.state_dict())


@DAMAGED
def test_the_weights_of_a_damaged_checkpoint_are_refused(tmp_path: Path, damage) -> None:
    checkpoint.save(tmp_path / "model", MODEL, CORPUS.vocabulary)
    (tmp_path / "model").write_bytes(damage((tmp_path / "model").read_bytes()))
    with refused(tmp_path / "model"):
        checkpoint.load_weights({"it": tmp_path / "model"})


@pytest.mark.parametrize(
    "changes", [{"characters": "AB"}, {"characters": "BA"}, {"characters": 3}, {"characters": None}]
)
def test_an_embedding_that_does_not_fit_the_tokens_is_refused(
    tmp_path: Path, changes: dict
) -> None:
    save_tensors(tmp_path / "model", MODEL.state_dict(), METADATA | changes)
    with refused(tmp_path / "model", "not a checkpoint that this version can load"):
        checkpoint.load_weights({"it": tmp_path / "model"})


@pytest.mark.parametrize("key", ["title", "characters", "architecture", "hyperparameters"])
def test_an_embedding_without_metadata_is_refused(tmp_path: Path, key: str) -> None:
    metadata = {name: value for name, value in METADATA.items() if name != key}
    save_tensors(tmp_path / "model", MODEL.state_dict(), metadata)
    with refused(tmp_path / "model", key):
        checkpoint.load_weights({"it": tmp_path / "model"})


@pytest.mark.parametrize(
    "tensors",
    [
        {},
        {"embedding.weight": torch.zeros(V)},
        {"embedding.weight": torch.zeros(5, V)},
        {"table.weight": torch.zeros(V, 5)},
    ],
    ids=str,
)
def test_a_model_without_an_embedding_table_has_no_embedding(
    tmp_path: Path, tensors: dict[str, torch.Tensor]
) -> None:
    save_tensors(tmp_path / "model", tensors, METADATA)
    assert checkpoint.load_weights({"it": tmp_path / "model"})["it"].embedding is None


@pytest.mark.parametrize("name", ["wte_emb", "token_embedding.weight", "embed.weight"])
def test_an_embedding_is_found_by_its_name_and_shape(tmp_path: Path, name: str) -> None:
    table = torch.rand(V, 5)
    tensors = {"embedded_positions": torch.rand(4, 5), name: table}
    save_tensors(tmp_path / "model", tensors, METADATA)
    found = checkpoint.load_weights({"it": tmp_path / "model"})["it"].embedding
    assert np.array_equal(found, table)


def test_embeddings_of_different_vocabularies_are_refused(tmp_path: Path) -> None:
    other = Corpus.from_names([*NAMES, "ß"], CORPUS.block_size)
    checkpoint.save(tmp_path / "one", MODEL, CORPUS.vocabulary)
    checkpoint.save(tmp_path / "two", small_model(other), other.vocabulary)
    with refused(tmp_path / "two", f"a different vocabulary than {tmp_path / 'one'}"):
        checkpoint.load_weights({"one": tmp_path / "one", "two": tmp_path / "two"})


def test_an_evil_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    write_evil_pickle(tmp_path / "model", trace=tmp_path / "trace")
    with refused(tmp_path / "model"):
        checkpoint.load(tmp_path / "model", build)
    assert not (tmp_path / "trace").exists()


def test_a_vocabulary_in_any_script_is_kept(tmp_path: Path) -> None:
    corpus = Corpus.from_names(["Ωμέγα", "中文", '"\\', "अि"], 4)
    checkpoint.save(tmp_path / "model", small_model(corpus), corpus.vocabulary)
    assert checkpoint.load(tmp_path / "model", build).vocabulary == Vocabulary(
        corpus.vocabulary.characters
    )


@pytest.mark.parametrize("plain", [CausalTransformer, GRU, BatchNormWaveNet])
def test_a_model_of_plain_pytorch_is_saved_and_loaded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, plain: type[LanguageModel]
) -> None:
    in_a_module(monkeypatch, plain)
    model = small_model(CORPUS, plain)
    check(model, CORPUS.vocabulary)
    contexts, _ = every_window(CORPUS).batch(slice(None))
    model(contexts)  # collects statistics, if the model keeps any
    checkpoint.save(tmp_path / "model", model.eval(), CORPUS.vocabulary)
    loaded = checkpoint.load(tmp_path / "model", build).model
    assert torch.equal(loaded(contexts), model(contexts))
    assert all(torch.equal(loaded.state_dict()[k], v) for k, v in model.state_dict().items())


def test_tied_weights_are_saved_and_loaded_as_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Tied(LanguageModel):
        def __init__(self, vocab_size: int, block_size: int, channels: int = 5) -> None:
            super().__init__()
            self.embedding = nn.Embedding(vocab_size, channels)
            self.output = nn.Linear(channels, vocab_size, bias=False)
            self.output.weight = self.embedding.weight

        def forward(self, contexts: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = self.output(self.embedding(contexts).mean(1))
            return logits

    in_a_module(monkeypatch, Tied)
    model = Tied(V, CORPUS.block_size)
    check(model, CORPUS.vocabulary)
    checkpoint.save(tmp_path / "model", model, CORPUS.vocabulary)
    loaded = checkpoint.load(tmp_path / "model", build).model
    assert torch.equal(loaded.output.weight, model.output.weight)
    assert loaded.output.weight is loaded.embedding.weight
