"""The models, against their equations written out."""

import inspect
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from charlm.core.randomness import seeded
from charlm.models.base import LanguageModel
from charlm.models.compact import CompactWaveNet
from charlm.models.fcn import FCN
from charlm.models.wavenet import WaveNet
from stages.training import size
from tests.helpers import ARCHITECTURES, refused, taken

BLOCK_SIZES = pytest.mark.parametrize("block_size", [1, 2, 4, 8, 16])


def build(architecture: type[LanguageModel], block_size: int = 8, **sizes: Any) -> LanguageModel:
    with seeded(1, "init"):
        return architecture(vocab_size=46, block_size=block_size, **sizes)


def contexts_of(model: LanguageModel, count: int = 3) -> Tensor:
    numbers = torch.arange(count * model.block_size) * 7 % model.vocab_size
    return numbers.reshape(count, model.block_size)


@ARCHITECTURES
@BLOCK_SIZES
def test_contexts_in_logits_out(architecture: type[LanguageModel], block_size: int) -> None:
    model = build(architecture, block_size)
    logits = model(contexts_of(model, count=3))
    assert logits.shape == (3, 46)
    assert logits.dtype == torch.float32
    assert model(contexts_of(model, count=1)).shape == (1, 46)


@pytest.mark.parametrize(
    ("architecture", "parameters"), [(FCN, 38_606), (WaveNet, 74_874), (CompactWaveNet, 24_526)]
)
def test_the_default_sizes_are_the_courses_and_the_compact_one_is_small(
    architecture: type[LanguageModel], parameters: int
) -> None:
    model = build(architecture)
    assert model.num_parameters() == parameters
    assert sum(tensor.numel() for tensor in model.state_dict().values()) == parameters


def test_fcn_is_its_equation() -> None:
    model = build(FCN)
    contexts = contexts_of(model)
    weights = model.state_dict()
    joined = torch.cat([weights["embedding.weight"][contexts[:, t]] for t in range(8)], dim=1)
    hidden = torch.tanh(joined @ weights["hidden.weight"].T + weights["hidden.bias"])
    logits = hidden @ weights["output.weight"].T + weights["output.bias"]
    torch.testing.assert_close(model(contexts), logits)


@BLOCK_SIZES
def test_wavenet_is_its_tree(block_size: int) -> None:
    model = build(WaveNet, block_size)
    contexts = contexts_of(model)
    nodes = [model.embedding.weight[contexts[:, t]] for t in range(block_size)]
    linears = [layer for layer in model.tree if isinstance(layer, torch.nn.Linear)]
    assert 2 ** len(linears) == block_size
    for linear in linears:
        pairs = [torch.cat(nodes[i : i + 2], dim=1) for i in range(0, len(nodes), 2)]
        nodes = [torch.tanh(pair @ linear.weight.T + linear.bias) for pair in pairs]
    logits = nodes[0] @ model.output.weight.T + model.output.bias
    torch.testing.assert_close(model(contexts), logits)


@ARCHITECTURES
@BLOCK_SIZES
def test_the_output_depends_on_every_position(
    architecture: type[LanguageModel], block_size: int
) -> None:
    model = build(architecture, block_size)
    contexts = contexts_of(model, count=1)
    before = model(contexts)
    for position in range(block_size):
        changed = contexts.clone()
        changed[0, position] = (changed[0, position] + 1) % 46
        assert (model(changed) - before).abs().max() > 1e-4, position


@ARCHITECTURES
def test_the_output_depends_on_the_order(architecture: type[LanguageModel]) -> None:
    model = build(architecture)
    contexts = contexts_of(model, count=1)
    assert not torch.allclose(model(contexts), model(contexts.flip(1)))


@ARCHITECTURES
def test_a_row_of_a_batch_does_not_depend_on_the_others(
    architecture: type[LanguageModel],
) -> None:
    model = build(architecture)
    contexts = contexts_of(model, count=5)
    alone = torch.cat([model(context[None]) for context in contexts])
    torch.testing.assert_close(model(contexts), alone)


@pytest.mark.parametrize("block_size", [0, -2, 3, 6, 12])
@pytest.mark.parametrize("architecture", [WaveNet, CompactWaveNet])
def test_a_tree_refuses_a_block_size_that_is_no_power_of_two(
    architecture: type[LanguageModel], block_size: int
) -> None:
    with pytest.raises(ValueError, match=f"block_size {block_size} "):
        build(architecture, block_size)


def test_fcn_takes_any_block_size() -> None:
    assert build(FCN, 6)(torch.zeros(2, 6, dtype=torch.long)).shape == (2, 46)


@ARCHITECTURES
def test_the_logits_of_a_shared_batch_are_those_of_its_different_contexts(
    architecture: type[LanguageModel],
) -> None:
    model = build(architecture)
    contexts = contexts_of(model, count=3)
    shared = model.share(contexts[[0, 1, 0, 2, 1]])
    logits = model(shared)
    assert logits.shape == (3, 46)
    torch.testing.assert_close(logits[shared.place], model(contexts)[[0, 1, 0, 2, 1]])


@ARCHITECTURES
def test_hyperparameters_build_the_same_architecture_again(
    architecture: type[LanguageModel],
) -> None:
    own = taken(architecture, embed_dim=3, hidden_dim=7, channels=7, norm="layer", dropout=0.25)
    model = build(architecture, block_size=4, **own).eval()
    hyperparameters = model.hyperparameters()
    assert hyperparameters == {"vocab_size": 46, "block_size": 4, **own}
    again = architecture(**hyperparameters)
    assert str(again) == str(model)
    again.eval().load_state_dict(model.state_dict())
    assert torch.equal(again(contexts_of(model)), model(contexts_of(model)))


@ARCHITECTURES
def test_a_model_is_built_from_keyword_arguments_alone(architecture: type[LanguageModel]) -> None:
    for parameter in inspect.signature(architecture).parameters.values():
        assert parameter.kind is inspect.Parameter.KEYWORD_ONLY


@ARCHITECTURES
def test_a_model_has_what_the_stages_ask_of_it(architecture: type[LanguageModel]) -> None:
    model = build(architecture, **taken(architecture, embed_dim=3, channels=3))
    assert model.title
    assert model.block_size == 8
    assert model.vocab_size == 46
    assert model.embedding.weight.shape == (46, 3)


def test_the_base_class_is_no_model() -> None:
    with pytest.raises(NotImplementedError):
        LanguageModel()(torch.zeros(1, 8, dtype=torch.long))


SIZES = {"embed_dim": 2, "hidden_dim": 3, "norm": "none", "dropout": 0.0}


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        ({**SIZES, "hidden_dim": "3"}, "the model's constructor refuses it: "),
        ({**SIZES, "block_size": 3}, "refuses it: block_size 3 is not a power of two; fix it"),
    ],
)
def test_a_value_that_the_models_constructor_refuses_is_told(
    section: dict[str, object], expected: str
) -> None:
    build = partial(WaveNet, **{"vocab_size": 5, "block_size": 4, **section})
    with refused(expected):
        size(build)


def test_the_size_of_a_section_is_its_models() -> None:
    build = partial(WaveNet, vocab_size=5, block_size=4, **SIZES)
    assert size(build) == build().num_parameters()
