"""Every rule matches torch in float64: results, gradients and statistics."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from charlm.fast import rules
from charlm.fast.rows import RULES, Contexts, NoRuleError, Rows
from tests.helpers import few

V, C, T = 7, 6, 4


class Around(nn.Module):
    """An embedding, the function to be tested, and a linear layer to logits."""

    def __init__(
        self, function: Callable[..., Any], channels: int = C, **layers: nn.Module
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(V, C)
        self.function = function
        self.output = nn.Linear(channels, V)
        self.scale = nn.Parameter(torch.randn(C))
        self.single = nn.Parameter(torch.randn(()))
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, contexts: Tensor) -> Tensor:
        x = self.function(self, self.embedding(contexts))
        return self.output(x.flatten(1))


def contexts_and_targets(count: int = 24, seed: int = 1) -> tuple[Tensor, Tensor]:
    """Return contexts (N, T) of few tokens, so that many rows coincide, and targets (N,)."""
    generator = torch.Generator().manual_seed(seed)
    contexts = torch.randint(3, (count, T), generator=generator)
    return contexts, torch.randint(V, (count,), generator=generator)


def results(model: nn.Module, contexts: Any, targets: Tensor) -> dict[str, Tensor]:
    """Return the loss, the gradients and the buffers."""
    model.zero_grad()
    loss = F.cross_entropy(model(contexts), targets)
    loss.backward()
    grads = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return {"loss": loss.detach(), **grads, **dict(model.named_buffers())}


def assert_as_in_float64(model: nn.Module, contexts: Tensor, targets: Tensor) -> None:
    exact = results(copy.deepcopy(model).double(), contexts, targets)
    ours = results(model, Contexts(contexts), targets)
    assert ours.keys() == exact.keys()
    for name, expected in exact.items():
        rounding = 3e-5 * max(1.0, expected.abs().max().item())
        torch.testing.assert_close(
            ours[name].double(), expected.double(), rtol=0, atol=rounding, msg=name
        )


def pairs(x: Any) -> Any:
    N, P, channels = x.shape
    return x.view(N, P // 2, 2 * channels)


def several_uses(m: Any, x: Any) -> Any:
    """Use a value more than once, so that its gradients must add up."""
    h = m.join(pairs(x))
    return torch.tanh(h) * h + h


FUNCTIONS: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "nothing": (lambda m, x: x, {"channels": T * C}),
    "linear": (lambda m, x: m.inner(x), {"channels": T * 5, "inner": nn.Linear(C, 5)}),
    "linear without bias": (
        lambda m, x: m.inner(pairs(x)),
        {"channels": 2 * 5, "inner": nn.Linear(2 * C, 5, bias=False)},
    ),
    "two levels of pairs": (
        lambda m, x: m.top(pairs(torch.tanh(m.join(pairs(x))))),
        {"channels": 5, "join": nn.Linear(2 * C, C), "top": nn.Linear(2 * C, 5)},
    ),
    "several uses": (several_uses, {"channels": 2 * C, "join": nn.Linear(2 * C, C)}),
    # The backward passes of tanh and rms_norm overwrite their gradient.
    "sum of two tanh": (
        lambda m, x: torch.tanh(m.join(x)) + torch.tanh(m.top(x)),
        {"channels": T * C, "join": nn.Linear(C, C), "top": nn.Linear(C, C)},
    ),
    "difference of tanh and rms_norm": (
        lambda m, x: torch.tanh(m.join(x)) - m.norm(x),
        {"channels": T * C, "join": nn.Linear(C, C), "norm": nn.RMSNorm(C)},
    ),
    "product of tanh and rms_norm": (
        lambda m, x: m.norm(m.join(x)) * torch.tanh(x),
        {"channels": T * C, "join": nn.Linear(C, C), "norm": nn.RMSNorm(C)},
    ),
    "one channel times all": (
        lambda m, x: m.one(x) * x + x * m.one(torch.tanh(x)),
        {"channels": T * C, "one": nn.Linear(C, 1)},
    ),
    "one channel added to all": (
        lambda m, x: torch.tanh(m.one(x) + x) + (x + m.one(torch.tanh(x))),
        {"channels": T * C, "one": nn.Linear(C, 1)},
    ),
    "one channel of two contexts times all": (
        lambda m, x: m.one(x)[:, 1:] * x[:, :-1],
        {"channels": (T - 1) * C, "one": nn.Linear(C, 1)},
    ),
    "tanh": (lambda m, x: torch.tanh(x), {"channels": T * C}),
    "method": (lambda m, x: x.tanh(), {"channels": T * C}),
    "function of pairs": (lambda m, x: torch.tanh(pairs(x)), {"channels": T * C}),
    "residual of the right neighbor": (
        lambda m, x: x[:, 1::2] + m.join(pairs(x)),
        {"channels": 2 * C, "join": nn.Linear(2 * C, C)},
    ),
    "broadcast": (lambda m, x: x * x[:, -1:], {"channels": T * C}),
    "slices": (lambda m, x: x[:, -1] - x[:, 0], {"channels": C}),
    "ellipsis": (lambda m, x: x[..., 1:, :], {"channels": 3 * C}),
    "minus, division, power": (lambda m, x: -(x - 2) / (1 + x**2), {"channels": T * C}),
    "roots and logarithms": (
        lambda m, x: torch.sqrt(x * x + 1) + torch.rsqrt(x * x + 1) * torch.log(x * x + 1),
        {"channels": T * C},
    ),
    "tensors of torch": (
        lambda m, x: m.scale / (m.scale - x * x - 9) + m.scale * (m.scale - x),
        {"channels": T * C},
    ),
    "numbers from the left": (lambda m, x: 1 / (3 - 0.5 * (1 + x * x)), {"channels": T * C}),
    "weights": (lambda m, x: (x * m.scale + m.scale) * m.single, {"channels": T * C}),
    "weights from the left": (lambda m, x: m.scale + m.scale * x, {"channels": T * C}),
    "weights that torch computes": (lambda m, x: x * F.softplus(m.scale), {"channels": T * C}),
    "chunk": (
        lambda m, x: (lambda a, b: a * torch.sigmoid(b))(*m.join(x).chunk(2, dim=-1)),
        {"channels": T * C, "join": nn.Linear(C, 2 * C)},
    ),
    "one of three chunks": (lambda m, x: x.chunk(3, dim=2)[1], {"channels": T * 2}),
    "cat": (
        lambda m, x: m.join(torch.cat([x[:, ::2], x[:, 1::2]], dim=-1)),
        {"channels": 2 * C, "join": nn.Linear(2 * C, C)},
    ),
    "flat and back": (
        lambda m, x: m.inner(x.flatten(0, 1)).view(-1, T, C),
        {"channels": T * C, "inner": nn.Linear(C, C)},
    ),
    "unflatten, squeeze, unsqueeze": (
        lambda m, x: x.flatten(1).unflatten(1, (2, 2 * C)).unsqueeze(1).squeeze(1),
        {"channels": T * C},
    ),
    "functions of shapes": (
        lambda m, x: torch.chunk(
            torch.permute(
                torch.transpose(
                    torch.squeeze(torch.unsqueeze(torch.reshape(x, (-1, 2, 2, C)), 1), 1), 1, 2
                ),
                (0, 2, 1, 3),
            ),
            2,
            dim=-1,
        )[0],
        {"channels": T * C // 2},
    ),
    "flatten": (lambda m, x: torch.flatten(x, 1), {"channels": T * C}),
    "transposed positions": (lambda m, x: x.transpose(0, 1).permute(1, 0, 2), {"channels": T * C}),
    "rms_norm": (lambda m, x: m.norm(x), {"channels": T * C, "norm": nn.RMSNorm(C, eps=1e-3)}),
    "rms_norm of pairs": (
        lambda m, x: m.norm(pairs(x)),
        {"channels": T * C, "norm": nn.RMSNorm(2 * C, elementwise_affine=False)},
    ),
    "layer_norm": (lambda m, x: m.norm(x), {"channels": T * C, "norm": nn.LayerNorm(C)}),
    "layer_norm without weights": (
        lambda m, x: m.norm(x),
        {"channels": T * C, "norm": nn.LayerNorm(C, elementwise_affine=False)},
    ),
    "batch_norm of rows": (
        lambda m, x: m.norm(m.join(pairs(x)).flatten(0, 1)).view(-1, 2, C),
        {"channels": 2 * C, "join": nn.Linear(2 * C, C), "norm": nn.BatchNorm1d(C)},
    ),
    "batch_norm of channels": (
        lambda m, x: torch.tanh(m.norm(x.transpose(1, 2)).transpose(1, 2)),
        {"channels": T * C, "norm": nn.BatchNorm1d(C, momentum=0.3)},
    ),
    "batch_norm without weights": (
        lambda m, x: m.norm(x.transpose(1, 2)).permute(0, 2, 1),
        {"channels": T * C, "norm": nn.BatchNorm1d(C, affine=False, track_running_stats=False)},
    ),
    "softmax": (lambda m, x: F.softmax(x, dim=-1), {"channels": T * C}),
    "log_softmax": (lambda m, x: torch.log_softmax(x, 2), {"channels": T * C}),
    "glu": (lambda m, x: F.glu(x, dim=-1), {"channels": T * C // 2}),
    "clamp": (lambda m, x: torch.clamp(x, min=-0.5, max=0.7), {"channels": T * C}),
    "leaky_relu": (lambda m, x: F.leaky_relu(x, negative_slope=0.3), {"channels": T * C}),
}
for _function in (
    nn.ReLU,
    nn.GELU,
    nn.SiLU,
    nn.ELU,
    nn.Sigmoid,
    nn.Softplus,
    nn.Mish,
    nn.Hardswish,
):
    FUNCTIONS[_function.__name__] = (
        lambda m, x: m.join(x) * m.function_(x),
        {"channels": T * C, "join": nn.Linear(C, C), "function_": _function()},
    )


def model_of(name: str, seed: int = 1) -> Around:
    torch.manual_seed(seed)
    function, options = FUNCTIONS[name]
    model = Around(function, **{key: copy.deepcopy(its) for key, its in options.items()})
    for parameter in model.parameters():  # biases too, because 1 and 0 would hide mistakes
        nn.init.normal_(parameter)
    return model


@pytest.mark.parametrize("name", FUNCTIONS)
def test_rules_match_torch_in_float64(name: str) -> None:
    assert_as_in_float64(model_of(name), *contexts_and_targets())


@pytest.mark.parametrize("name", ["batch_norm of rows", "batch_norm of channels", "layer_norm"])
def test_rules_match_torch_in_evaluation_mode(name: str) -> None:
    model = model_of(name)
    results(model, *contexts_and_targets())  # collects statistics
    assert_as_in_float64(model.eval(), *contexts_and_targets(seed=2))


@few
@given(st.sampled_from(sorted(FUNCTIONS)), st.integers(2, 40), st.integers(0, 999))
def test_rules_match_torch_for_any_batch(name: str, count: int, seed: int) -> None:
    assert_as_in_float64(model_of(name, seed), *contexts_and_targets(count, seed))


def test_an_empty_batch_gives_zero_gradients() -> None:
    model = model_of("two levels of pairs")
    loss = F.cross_entropy(
        model(Contexts(torch.empty(0, T, dtype=torch.long))), torch.empty(0).long(), reduction="sum"
    )
    loss.backward()
    assert loss.item() == 0
    assert not any(p.grad.any() for p in model.parameters() if p.grad is not None)


def test_batch_norm_weights_rows_by_their_counts() -> None:
    """Otherwise the tests above would also pass with statistics over distinct rows."""
    model = model_of("batch_norm of channels")
    contexts, targets = contexts_and_targets()
    contexts[1:] = contexts[0]
    contexts[1:, 0] = 2
    results(model, Contexts(contexts), targets)
    x = model.embedding(contexts).reshape(-1, C)
    torch.testing.assert_close(model.norm.running_mean, 0.3 * x.mean(0).detach())


def test_gradients_accumulate() -> None:
    model = model_of("two levels of pairs")
    contexts, targets = contexts_and_targets()
    once = {n: g.clone() for n, g in results(model, Contexts(contexts), targets).items()}
    F.cross_entropy(model(Contexts(contexts)), targets).backward()
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(parameter.grad, 2 * once[name])


def test_a_frozen_weight_gets_no_gradient() -> None:
    model = model_of("two levels of pairs")
    model.join.weight.requires_grad_(False)
    assert "join.weight" not in results(
        model, Contexts(contexts_and_targets()[0]), torch.zeros(24).long()
    )
    assert model.join.weight.grad is None
    assert model.join.bias.grad is not None


def test_a_replaced_weight_is_used() -> None:
    model = model_of("two levels of pairs")
    leaves: dict[int, Any] = {}
    contexts, _ = contexts_and_targets()
    with torch.no_grad():
        model(Contexts(contexts, leaves=leaves))
        model.join.weight.data = torch.randn_like(model.join.weight)
        model.output.bias.add_(1)
        logits = model(Contexts(contexts, leaves=leaves)).dense()
        torch.testing.assert_close(logits, model(contexts))


def test_a_dense_tensor_passes_its_gradient_back() -> None:
    """A loss without a rule needs this."""
    model = model_of("two levels of pairs")
    contexts, targets = contexts_and_targets()
    exact = results(copy.deepcopy(model), contexts, targets)
    model.zero_grad()
    F.cross_entropy(model(Contexts(contexts)).dense(), targets).backward()
    for name, parameter in model.named_parameters():
        if name in exact:
            torch.testing.assert_close(parameter.grad, exact[name])


def test_options_of_cross_entropy() -> None:
    model = model_of("nothing")
    contexts, targets = contexts_and_targets()
    logits = model(contexts)
    for reduction in ("mean", "sum"):
        ours = F.cross_entropy(model(Contexts(contexts)), targets, reduction=reduction)
        expected = F.cross_entropy(logits, targets, reduction=reduction)
        torch.testing.assert_close(ours.detach().float(), expected)
        assert (3 * ours / 2).item() == pytest.approx(1.5 * ours.item())
        assert ours.detach().dtype == torch.float64
    with pytest.raises(NoRuleError, match=r"an option of torch\.nn\.functional\.cross_entropy"):
        F.cross_entropy(model(Contexts(contexts)), targets, label_smoothing=0.1)


def test_targets_may_be_distributions() -> None:
    model = model_of("two levels of pairs")
    contexts, targets = contexts_and_targets()
    soft = 0.3 * F.one_hot(targets, V).float() + 0.7 * torch.rand(len(targets), V).softmax(1)
    assert_as_in_float64(model, contexts, soft)
    with pytest.raises(ValueError, match="the shapes of the probabilities and the logits differ"):
        F.cross_entropy(model(Contexts(contexts)), soft[:, 1:])
    with pytest.raises(ValueError, match="the shapes of the probabilities and the logits differ"):
        F.cross_entropy(model(Contexts(contexts)), soft[1:])


@pytest.mark.parametrize("target", [-1, V])
def test_a_target_or_token_outside_the_vocabulary_is_refused(target: int) -> None:
    model = model_of("two levels of pairs")
    contexts, targets = contexts_and_targets()
    targets[7] = target
    with pytest.raises(IndexError, match="a target is not in the vocabulary"):
        F.cross_entropy(model(Contexts(contexts)), targets)
    contexts[3, 2] = target
    with pytest.raises(IndexError, match="a token is not in the vocabulary"):
        model(Contexts(contexts))
    with pytest.raises(ValueError, match="the numbers of targets and contexts differ"):
        F.cross_entropy(model(Contexts(contexts_and_targets()[0])), targets[:-1])


# Dropout.


def dropped(p: float, key: int | None, count: int = 24) -> tuple[Rows, Any]:
    model = nn.Embedding(V, 5000)
    nn.init.ones_(model.weight)
    return F.dropout(model(Contexts(contexts_and_targets(count)[0], key)), p), model


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_dropout_zeroes_a_fraction_and_scales_the_rest(p: float) -> None:
    rows, model = dropped(p, key=5)
    y = rows.dense()
    kept = (y != 0).float().mean().item()
    assert kept == pytest.approx(1 - p, abs=0.02)
    assert set(y.unique().tolist()) == {0.0, float(np.float32(1 / (1 - p)))}
    y.sum().backward()
    counts = torch.bincount(contexts_and_targets()[0].flatten(), minlength=V)
    torch.testing.assert_close(model.weight.grad, counts[:, None] * (y_of(rows) / 1))


def y_of(rows: Rows) -> Tensor:
    return torch.from_numpy(rows.node.x)


def test_the_key_determines_dropout_and_each_use_drops_other_elements() -> None:
    first, again, other = (dropped(0.5, key)[0].node.x for key in (5, 5, 6))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    contexts = Contexts(contexts_and_targets()[0], 5)
    x = nn.Embedding(V, 1000)(contexts)
    one, two = F.dropout(x, 0.5).node.x != 0, F.dropout(x, 0.5).node.x != 0
    assert 0.4 < (one == two).mean() < 0.6


def test_dropout_edge_cases() -> None:
    assert (dropped(0.5, None)[0].dense() == 1).all()
    assert (dropped(0.0, 5)[0].dense() == 1).all()
    assert not dropped(1.0, 5)[0].dense().any()
    layer = nn.Dropout(0.5).eval()
    x = nn.Embedding(V, 9)(Contexts(contexts_and_targets()[0], 5))
    assert layer(x) is x


# Functions without a rule.

NO_RULE: dict[str, tuple[Callable[[Any, Any], Any], str]] = {
    "a function": (lambda m, x: torch.cumsum(x, 1), "torch.cumsum"),
    "a method": (lambda m, x: x.cumsum(1), "torch.Tensor.cumsum"),
    "a product": (lambda m, x: x @ m.output.weight.T, "matmul"),
    "conv1d": (lambda m, x: F.conv1d(x, torch.ones(1, T, 1)), "torch.nn.functional.conv1d"),
    "along positions": (lambda m, x: F.softmax(x, dim=1), "dimension other than"),
    "channels": (lambda m, x: x[..., 0], "indexing channels"),
    "a mask": (lambda m, x: x[:, torch.tensor([0, 1])], "with a tensor"),
    "a split of channels": (lambda m, x: x.view(-1, T, 2, C // 2), "torch.Tensor.view"),
    "a branch": (lambda m, x: x if x else -x, "a branch"),
    "a comparison": (lambda m, x: x * (x > 0), "a comparison"),
    "positions": (lambda m, x: x + torch.randn(T, C), "torch.add with a tensor (4, 6)"),
    "in place": (lambda m, x: F.relu(x, inplace=True), "in place"),
    "other channels": (lambda m, x: x + x[:, :2].flatten(1), "with different numbers of channels"),
    "float64": (lambda m, x: x * torch.ones(C).double(), "torch.float64"),
    "batch_norm of positions": (
        lambda m, x: F.batch_norm(x, None, None, training=True),
        "positions",
    ),
}


@pytest.mark.parametrize("name", NO_RULE)
def test_a_function_without_a_rule_is_named(name: str) -> None:
    function, name_in_error = NO_RULE[name]
    model = Around(function, T * C)
    with pytest.raises(NoRuleError) as caught:
        model(Contexts(contexts_and_targets()[0]))
    assert name_in_error in str(caught.value)


def test_an_embedding_with_options_has_no_rule() -> None:
    for options in ({"padding_idx": 0}, {"max_norm": 1.0}, {"scale_grad_by_freq": True}):
        with pytest.raises(NoRuleError):
            nn.Embedding(V, C, **options)(Contexts(contexts_and_targets()[0]))


def test_every_rule_is_tested() -> None:
    """Run all tests of rules and record which rules they call."""
    called: set[int] = set()
    originals = dict(RULES)

    def counting(function: Any, rule: Any) -> Any:
        def counted(*args: Any, **kwargs: Any) -> Any:
            called.add(id(function))
            return rule(*args, **kwargs)

        return counted

    RULES.update({f: counting(f, rule) for f, rule in originals.items()})
    try:
        for name in FUNCTIONS:
            test_rules_match_torch_in_float64(name)
        for name in ELEMENTWISE:
            test_elementwise_rules_match_torch_in_float64(name)
        test_options_of_cross_entropy()
        dropped(0.5, 5)
    finally:
        RULES.update(originals)
    missing = [f for f in originals if id(f) not in called and not isinstance(f, str)]
    assert missing == [], missing


ELEMENTWISE = {
    getattr(function, "__qualname__", str(function)): function
    for function in (
        *(torch.abs, torch.square, torch.sin, torch.cos, torch.exp, torch.neg, torch.relu, F.relu6),
        *(F.selu, F.celu, F.softsign, F.hardtanh, F.hardsigmoid, F.logsigmoid, F.silu, F.gelu),
        *(torch.softmax, F.log_softmax),
    )
}


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_elementwise_rules_match_torch_in_float64(name: str) -> None:
    function = ELEMENTWISE[name]
    along = {"dim": -1} if "softmax" in name else {}
    torch.manual_seed(1)
    model = Around(lambda m, x: function(x * m.scale, **along), T * C)
    assert_as_in_float64(model, *contexts_and_targets())


assert rules  # importing it fills RULES
