"""Optimizers without torch's overhead."""

from typing import Any

import pytest
import torch

from charlm.core.params import Recipe
from charlm.models.base import LanguageModel
from charlm.models.compact import CompactWaveNet
from charlm.models.fcn import FCN
from charlm.models.wavenet import WaveNet
from charlm.training.initialization import initialize
from charlm.training.optimizers import (
    MovingAverage,
    bare_step,
    clip,
    hidden_matrices,
    optimizer_of,
    orthogonal,
)
from tests.helpers import ANY_MODEL, refused, run_python
from tests.models import GRU, CausalTransformer, new_model


def trained(bare: bool, steps: int = 3) -> tuple[torch.Tensor, torch.optim.Optimizer]:
    torch.manual_seed(1)
    weight = torch.nn.Parameter(torch.randn(5, 4))
    optimizer = torch.optim.SGD([weight], lr=0.3)
    step = bare_step(optimizer) if bare else optimizer.step
    for _ in range(steps):
        weight.grad = torch.autograd.grad(weight.pow(3).sum(), weight)[0]
        step()
    return weight, optimizer


def test_a_bare_step_equals_a_step_of_the_optimizer() -> None:
    assert torch.equal(trained(bare=True)[0], trained(bare=False)[0])


def test_a_step_subtracts_the_learning_rate_times_the_gradient() -> None:
    weight = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
    weight.grad = torch.tensor([0.5, -1.0])
    bare_step(torch.optim.SGD([weight], lr=0.2))()
    torch.testing.assert_close(weight.detach(), torch.tensor([0.9, 2.2]))
    assert weight.requires_grad


def test_the_learning_rate_of_a_bare_step_may_be_changed() -> None:
    weight, optimizer = trained(bare=True)
    before = weight.detach().clone()
    optimizer.param_groups[0]["lr"] = 0.0
    bare_step(optimizer)()
    assert torch.equal(weight, before)


def test_the_compiler_of_torch_is_not_imported() -> None:
    code = """if True:
        import sys
        from tests.unit.training.test_optimizers import trained
        _, optimizer = trained(bare=True)
        optimizer.load_state_dict(optimizer.state_dict())
        print("torch._dynamo" in sys.modules)
        optimizer.step()  # as torch has it
        print("torch._dynamo" in sys.modules)
    """
    assert run_python(code).split() == ["False", "True"]


def one_layer() -> torch.nn.Module:
    torch.manual_seed(2)
    return torch.nn.Linear(6, 9)


@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_adamw_matches_torch(kind: torch.dtype) -> None:
    """Test the compiled loop as well as torch's operations."""
    mine, plain = (one_layer().to(kind) for _ in range(2))
    recipe = Recipe(lr=0.02, batch_size=1, epochs=1, optimizer="adamw", weight_decay=0.3)
    ours = optimizer_of(recipe, mine)
    theirs = torch.optim.AdamW(plain.parameters(), lr=0.02, weight_decay=0.3)
    for step in range(30):
        for layer, optimizer in ((mine, ours), (plain, theirs)):
            loss = (layer.weight - step).pow(2).sum() + layer.bias.sin().sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    for one, other in zip(mine.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(9, 6), (6, 9), (40, 40)])
def test_an_orthogonal_step_has_singular_values_near_one(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    u, s, v = torch.linalg.svd(matrix, full_matrices=False)
    found = orthogonal(matrix)
    values = torch.linalg.svdvals(found)
    assert values.max() < 1.3
    assert values[s > 0.05 * s.max()].min() > 0.6
    between = u.T @ found @ v.T  # diagonal if the singular vectors are the same
    torch.testing.assert_close(between, torch.diag(between.diagonal()), rtol=0, atol=1e-4)
    torch.testing.assert_close(found, orthogonal(matrix.double()).float(), rtol=0, atol=1e-4)


def test_muon_matches_torch_on_hidden_layers_and_uses_adamw_elsewhere() -> None:
    mine, plain = one_layer(), one_layer()
    recipe = Recipe(
        lr=0.02, batch_size=1, epochs=1, optimizer="muon", momentum=0.9, weight_decay=0.3
    )
    ours = optimizer_of(recipe, mine)
    theirs = [
        torch.optim.Muon(
            [plain.weight],
            lr=0.02,
            momentum=0.9,
            weight_decay=0.3,
            adjust_lr_fn="match_rms_adamw",
        ),
        torch.optim.AdamW([plain.bias], lr=0.02, weight_decay=0.3),
    ]
    goal = torch.randn(9, 6)
    for _ in range(20):
        for layer, optimizers in ((mine, [ours]), (plain, theirs)):
            loss = (layer.weight - goal).pow(2).sum() + layer.bias.sin().sum()
            layer.zero_grad()
            loss.backward()
            for optimizer in optimizers:
                optimizer.step()
    torch.testing.assert_close(mine.bias, plain.bias, rtol=1e-5, atol=1e-6)
    # torch multiplies in bfloat16, which has 8 bits of precision.
    assert (mine.weight - plain.weight).abs().max() < 0.05 * 20 * 0.02 * 0.2 * 3
    assert (mine.weight - one_layer().weight).abs().max() > 0.02


def test_muon_is_for_the_matrices_between_hidden_layers() -> None:
    def of(architecture: type[LanguageModel]) -> set[str]:
        model = new_model(architecture, 31, 8)
        chosen = hidden_matrices(model)
        every = dict(model.named_parameters())
        return {name for name, its in every.items() if any(its is other for other in chosen)}

    assert of(FCN) == {"hidden.weight"}
    assert of(WaveNet) == {f"tree.{level}.weight" for level in range(3)}
    assert of(CompactWaveNet) == {"value.0.weight", "gate.0.weight"}
    assert of(GRU) == {"gru.weight_ih_l0", "gru.weight_hh_l0"}
    assert of(CausalTransformer) == {
        "layer.self_attn.in_proj_weight",
        "layer.self_attn.out_proj.weight",
        "layer.linear1.weight",
        "layer.linear2.weight",
    }


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "muon"])
@ANY_MODEL
def test_every_parameter_is_optimized_once(
    architecture: type[LanguageModel], optimizer: Any
) -> None:
    model = new_model(architecture, 31, 8)
    recipe = Recipe(lr=0.1, batch_size=1, epochs=1, optimizer=optimizer)
    found = [p for group in optimizer_of(recipe, model).param_groups for p in group["params"]]
    assert sorted(map(id, found)) == sorted(map(id, model.parameters()))


def test_a_step_of_muon_is_the_same_with_any_number_of_threads() -> None:
    """The layer is large enough for torch to use several threads."""

    def after_a_step(threads: int) -> torch.Tensor:
        torch.manual_seed(4)
        layer = torch.nn.Linear(260, 259)
        layer.weight.grad, layer.bias.grad = torch.randn(259, 260), torch.randn(259)
        recipe = Recipe(lr=0.1, batch_size=1, epochs=1, optimizer="muon", momentum=0.9)
        step = bare_step(optimizer_of(recipe, layer))
        torch.set_num_threads(threads)
        try:
            step()
            step()
        finally:
            torch.set_num_threads(1)
        return layer.weight.detach()

    assert torch.equal(after_a_step(1), after_a_step(3))


def test_only_a_gradient_above_the_norm_is_clipped() -> None:
    parameters = [torch.nn.Parameter(torch.zeros(3, 2)), torch.nn.Parameter(torch.zeros(4))]
    for longest, expected in ((1.0, 1.0), (100.0, 5.0)):
        for parameter, value in zip(parameters, (3 / 6**0.5, 2.0), strict=True):
            parameter.grad = torch.full_like(parameter, value)
        clip(parameters, longest)
        length = torch.cat([p.grad.flatten() for p in parameters]).norm()
        assert length.item() == pytest.approx(expected, rel=1e-6)
        assert parameters[0].grad[0, 0] / parameters[1].grad[0] == pytest.approx(3 / 6**0.5 / 2)


def test_initializations_have_the_right_spread_and_keep_the_embedding() -> None:
    def built(name: str) -> FCN:
        torch.manual_seed(1)
        model = FCN(vocab_size=46, block_size=8)
        torch.manual_seed(2)
        initialize(model, name)
        return model

    plain, xavier, kaiming = (built(name) for name in ("torch", "xavier", "kaiming"))
    gain, (outputs, inputs) = 5 / 3, plain.hidden.weight.shape
    assert plain.hidden.weight.detach().std().item() == pytest.approx(
        (1 / inputs / 3) ** 0.5, rel=0.05
    )
    assert xavier.hidden.weight.detach().std().item() == pytest.approx(
        gain * (2 / (inputs + outputs)) ** 0.5, rel=0.05
    )
    assert kaiming.hidden.weight.detach().std().item() == pytest.approx(
        gain / inputs**0.5, rel=0.05
    )
    for model in (xavier, kaiming):
        assert not model.hidden.bias.any()
        assert torch.equal(model.embedding.weight, plain.embedding.weight)


@pytest.mark.parametrize("options", [{"optimizer": "adamw"}, {"clip_norm": 1.0}, {}])
def test_sparse_gradients_require_plain_sgd(options: dict[str, Any]) -> None:
    model = torch.nn.Embedding(5, 5, sparse=True)
    recipe = Recipe(lr=0.1, batch_size=2, epochs=1, **options)
    if not options:
        optimizer_of(recipe, model)
        return
    with refused("sparse=True requires optimizer sgd without"):
        optimizer_of(recipe, model)


def test_an_average_of_a_model_that_cannot_be_copied_is_refused() -> None:
    model = torch.nn.Linear(2, 2)
    model.kept = model(torch.ones(2))
    with refused("training.average needs a model that can be copied"):
        MovingAverage(model, 0.9)
