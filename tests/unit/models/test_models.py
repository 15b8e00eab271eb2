"""The models, compared with their equations, and requirements for all models."""

import copy
import inspect
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from charlm.models.base import (
    LanguageModel,
    architecture_of,
    binary_levels,
    build,
    count_parameters,
)
from charlm.models.compact import CompactWaveNet
from charlm.models.fcn import FCN
from charlm.models.wavenet import WaveNet
from tests.helpers import ANY_MODEL, EVERY_MODEL
from tests.models import new_model

V = 46
BLOCK_SIZES = pytest.mark.parametrize("block_size", [1, 2, 4, 8, 16])


def evaluated(
    architecture: type[LanguageModel], block_size: int = 8, **options: Any
) -> LanguageModel:
    """Return a new model in evaluation mode, in float64 so that rounding hides no difference."""
    return new_model(architecture, V, block_size, **options).double().eval()


def contexts_of(block_size: int = 8, count: int = 3) -> Tensor:
    return (torch.arange(count * block_size) * 7 % V).reshape(count, block_size)


@ANY_MODEL
@BLOCK_SIZES
def test_contexts_give_logits(architecture: type[LanguageModel], block_size: int) -> None:
    model = new_model(architecture, V, block_size).eval()
    logits = model(contexts_of(block_size))
    assert logits.shape == (3, V)
    assert logits.dtype == torch.float32
    assert model(contexts_of(block_size, count=1)).shape == (1, V)


@ANY_MODEL
@BLOCK_SIZES
def test_the_output_depends_on_every_position(
    architecture: type[LanguageModel], block_size: int
) -> None:
    model = evaluated(architecture, block_size)
    contexts = contexts_of(block_size, count=1)
    before = model(contexts)
    for position in range(block_size):
        changed = contexts.clone()
        changed[0, position] = (changed[0, position] + 1) % V
        assert not torch.equal(model(changed), before), position


@ANY_MODEL
def test_the_output_depends_on_the_order_of_tokens(architecture: type[LanguageModel]) -> None:
    model = evaluated(architecture)
    contexts = contexts_of(count=1)
    assert not torch.allclose(model(contexts), model(contexts.flip(1)), rtol=1e-9, atol=1e-12)


@ANY_MODEL
def test_rows_of_a_batch_are_independent(
    architecture: type[LanguageModel],
) -> None:
    model = evaluated(architecture)
    contexts = contexts_of(count=5)
    alone = torch.cat([model(context[None]) for context in contexts])
    torch.testing.assert_close(model(contexts), alone)


@ANY_MODEL
def test_every_parameter_gets_a_gradient(architecture: type[LanguageModel]) -> None:
    """All parameters that are counted are also trained."""
    model = evaluated(architecture)
    model(contexts_of(count=20)).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


@ANY_MODEL
def test_a_model_has_what_the_stages_need(architecture: type[LanguageModel]) -> None:
    model = new_model(architecture, V, 8)
    assert isinstance(model, nn.Module)
    assert model.title == architecture.title != ""
    assert [*inspect.signature(architecture).parameters][:2] == ["vocab_size", "block_size"]
    assert count_parameters(model) == sum(p.numel() for p in model.parameters())


@ANY_MODEL
def test_hyperparameters_rebuild_the_same_model(architecture: type[LanguageModel]) -> None:
    model = evaluated(architecture, block_size=4)
    defaults = {
        name: parameter.default
        for name, parameter in inspect.signature(architecture).parameters.items()
        if parameter.default is not inspect.Parameter.empty
    }
    assert model.hyperparameters == {"vocab_size": V, "block_size": 4, **defaults}
    again = architecture(**model.hyperparameters).double().eval()
    assert str(again) == str(model)
    again.load_state_dict(model.state_dict())
    assert torch.equal(again(contexts_of(4)), model(contexts_of(4)))


@EVERY_MODEL
def test_a_model_is_built_by_the_name_of_its_module(architecture: type[LanguageModel]) -> None:
    module = architecture.__module__.rpartition(".")[2]
    assert architecture_of(module) is architecture
    model = new_model(architecture, V, 8)
    again = build(module, model.hyperparameters)
    assert type(again) is architecture
    assert again.hyperparameters == model.hyperparameters


@pytest.mark.parametrize("module", ["base", "../fcn", "fcn.torch", "os", ""])
def test_a_name_without_a_model_module_is_refused(module: str) -> None:
    with pytest.raises((ValueError, ImportError)):
        architecture_of(module)


# The base class requires nothing of a model and records its arguments.


class Own(LanguageModel):
    """A model with attribute names that a user might choose."""

    def __init__(
        self, vocab_size: int, block_size: int, size: int = 3, *, deep: bool = False
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, size)
        self.layers = nn.ModuleList([nn.Linear(size, size), nn.Linear(size, size)])
        self.norm = nn.LayerNorm(size)
        self.dropout = nn.Dropout(0.5)
        self.loss = nn.CrossEntropyLoss()
        self.share = self.levels = self.joins = self.arities = deep
        self.vocab_size, self.block_size = vocab_size, block_size
        self.output = nn.Linear(block_size * size, vocab_size)

    def forward(self, contexts: Tensor) -> Tensor:
        x = self.embedding(contexts)
        for layer in self.layers:
            x = self.dropout(self.norm(torch.tanh(layer(x))))
        logits: Tensor = self.output(x.flatten(1))
        return logits

    def build(self) -> str:
        return "mine"

    def num_parameters(self) -> int:
        return 7


def test_a_model_may_use_any_attribute_names() -> None:
    model = Own(V, 8).eval()
    assert model(contexts_of()).shape == (3, V)
    assert set(dict(model.named_children())) == {
        *("embedding", "layers", "norm", "dropout", "loss", "output")
    }
    assert model.hyperparameters["size"] == 3


def test_the_base_class_adds_only_two_public_names() -> None:
    """With only two names, a model is unlikely to override one of them by accident."""

    def public(value: object) -> set[str]:
        return {name for name in dir(value) if not name.startswith("_")}

    assert public(LanguageModel()) - public(nn.Module()) == {"title", "hyperparameters"}
    assert public(LanguageModel) - public(nn.Module) == {"title"}


@pytest.mark.parametrize(
    ("arguments", "options", "kept"),
    [
        ((5, 2), {}, {"size": 3, "deep": False}),
        ((5, 2, 4), {}, {"size": 4, "deep": False}),
        ((5,), {"block_size": 2, "deep": True}, {"size": 3, "deep": True}),
        ((), {"size": 6, "block_size": 2, "vocab_size": 5}, {"size": 6, "deep": False}),
    ],
)
def test_a_model_keeps_its_arguments_automatically(
    arguments: tuple[int, ...], options: dict[str, Any], kept: dict[str, Any]
) -> None:
    model = Own(*arguments, **options)
    expected = {"vocab_size": 5, "block_size": 2, **kept}
    assert model.hyperparameters == expected
    assert list(model.hyperparameters) == list(expected)
    for copied in (copy.deepcopy(model), copy.copy(model)):
        assert copied.hyperparameters == expected
    assert type(model)(**model.hyperparameters).hyperparameters == expected


def test_a_model_may_pass_on_all_its_arguments() -> None:
    class Passing(Own):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)

    model = Passing(vocab_size=5, block_size=2, size=4)
    assert model.hyperparameters == {"vocab_size": 5, "block_size": 2, "size": 4}


def test_a_model_without_a_constructor_has_the_arguments_of_its_base() -> None:
    """Python 3.11.2 finds the signature of `__new__` for such a class."""

    class Changed(WaveNet):
        pass

    assert inspect.signature(Changed) == inspect.signature(WaveNet)
    assert Changed(5, 4).hyperparameters == WaveNet(5, 4).hyperparameters


def test_arguments_passed_on_are_kept_by_name() -> None:
    class Changed(WaveNet):
        def __init__(self, vocab_size: int, block_size: int, **options: Any) -> None:
            super().__init__(vocab_size, block_size, **options)

    model = Changed(5, 4, hidden_dim=3, dropout=0.5)
    assert model.hyperparameters == {
        "vocab_size": 5,
        "block_size": 4,
        "hidden_dim": 3,
        "dropout": 0.5,
    }
    assert str(Changed(**model.hyperparameters)) == str(model)


def test_an_argument_that_the_constructor_changes_is_kept_unchanged() -> None:
    class Appending(Own):
        def __init__(self, vocab_size: int, block_size: int, sizes: Any = [3]) -> None:  # noqa: B006
            sizes.append(vocab_size)
            super().__init__(vocab_size, block_size)

    assert Appending(5, 2, [4]).hyperparameters["sizes"] == [4]
    assert Appending(5, 2).hyperparameters["sizes"] == [3]


def test_the_kept_arguments_are_not_part_of_the_state() -> None:
    assert "hyperparameters" not in "".join(Own(V, 8).state_dict())


@pytest.mark.parametrize("options", [{"sise": 4}, {"vocab_size": 5}, {}])
def test_wrong_arguments_raise_the_usual_type_error(options: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=r"__init__\(\) (got|missing)"):
        Own(**options)


def test_the_title_defaults_to_the_name_of_the_class() -> None:
    class Titled(Own):
        title = "A model of my own"

    class Below(Titled):
        pass

    assert (Own.title, Titled.title, Below.title) == ("Own", "A model of my own", "Below")


def test_the_base_class_cannot_be_called() -> None:
    with pytest.raises(NotImplementedError):
        LanguageModel()(torch.zeros(1, 8, dtype=torch.long))


def test_only_trainable_parameters_are_counted() -> None:
    model = Own(V, 8)
    every = count_parameters(model)
    model.embedding.weight.requires_grad_(False)
    assert count_parameters(model) == every - V * 3


# The models of the course and the compact one.


@pytest.mark.parametrize(
    ("architecture", "parameters"), [(FCN, 38_606), (WaveNet, 74_874), (CompactWaveNet, 35_598)]
)
def test_the_models_have_the_documented_sizes(
    architecture: type[LanguageModel], parameters: int
) -> None:
    model = new_model(architecture, V, 8)
    assert count_parameters(model) == parameters
    assert sum(tensor.numel() for tensor in model.state_dict().values()) == parameters


def test_fcn_matches_its_equation() -> None:
    model = new_model(FCN, V, 8)
    contexts = contexts_of()
    weights = model.state_dict()
    joined = torch.cat([weights["embedding.weight"][contexts[:, t]] for t in range(8)], dim=1)
    hidden = torch.tanh(joined @ weights["hidden.weight"].T + weights["hidden.bias"])
    logits = hidden @ weights["output.weight"].T + weights["output.bias"]
    torch.testing.assert_close(model(contexts), logits)


@BLOCK_SIZES
def test_wavenet_matches_its_tree(block_size: int) -> None:
    model = new_model(WaveNet, V, block_size)
    contexts = contexts_of(block_size)
    nodes = [model.embedding.weight[contexts[:, t]] for t in range(block_size)]
    assert 2 ** len(model.tree) == block_size
    for linear in model.tree:
        pairs = [torch.cat(nodes[i : i + 2], dim=1) for i in range(0, len(nodes), 2)]
        nodes = [torch.tanh(pair @ linear.weight.T + linear.bias) for pair in pairs]
    logits = nodes[0] @ model.output.weight.T + model.output.bias
    torch.testing.assert_close(model(contexts), logits)


@BLOCK_SIZES
@pytest.mark.parametrize("shared", [True, False])
def test_the_compact_wavenet_matches_its_equations(block_size: int, shared: bool) -> None:
    model = new_model(CompactWaveNet, V, block_size, channels=9, shared=shared)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    contexts = contexts_of(block_size, count=15)
    w = model.state_dict()

    def norm(x: Tensor, level: int) -> Tensor:
        size = (x.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        return x / size * w[f"norms.{level}.weight"]

    nodes = [w["embedding.weight"][contexts[:, t]] for t in range(block_size)]
    level = 0
    while len(nodes) > 1:
        pairs = zip(nodes[::2], nodes[1::2], strict=True)
        joined = [(torch.cat([norm(a, level), norm(b, level)], 1), b) for a, b in pairs]
        number = 0 if shared else level
        value, gate = (
            [pair @ w[f"{layer}.weight"].T + w[f"{layer}.bias"] for pair, _ in joined]
            for layer in (f"value.{number}", f"gate.{number}")
        )
        nodes = [b + v * g for (_, b), v, g in zip(joined, value, gate, strict=True)]
        level += 1
    logits = norm(nodes[0], level) @ w["embedding.weight"].T + w["bias"]
    torch.testing.assert_close(model(contexts), logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("block_size", [0, -2, 3, 6, 12])
@pytest.mark.parametrize("architecture", [WaveNet, CompactWaveNet])
def test_a_block_size_that_is_not_a_power_of_two_is_refused(
    architecture: type[LanguageModel], block_size: int
) -> None:
    with pytest.raises(ValueError, match=f"block_size {block_size} is not a power of two"):
        new_model(architecture, V, block_size)
    assert list(map(binary_levels, (1, 2, 4, 16))) == [0, 1, 2, 4]


def test_fcn_accepts_any_block_size() -> None:
    assert new_model(FCN, V, 6)(torch.zeros(2, 6, dtype=torch.long)).shape == (2, V)
