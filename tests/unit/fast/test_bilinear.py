"""Normalisation and gates with gradients of their own, against torch's."""

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor

from charlm.fast.bilinear import RMSNorm, gated_join
from charlm.fast.dropout import Dropout, drop_by, dropouts_of
from charlm.fast.kernels import EPSILON
from charlm.fast.linear import JoinedLinear, tanh
from charlm.fast.sharing import Join, PlainJoin, share
from charlm.models.compact import CompactWaveNet

torch.manual_seed(5)
X = torch.randn(19, 13)
ROWS = torch.randint(19, (30, 2))
(JOIN,) = share(ROWS, [2], 19).joins
DISTINCT = JOIN.rows.long()


def gradients(function: Callable[..., Tensor], *inputs: Tensor) -> list[Tensor]:
    """What a function returns, and the gradients of its inputs by a weighted sum of it."""
    leaves = [x.clone().requires_grad_() for x in inputs]
    y = function(*leaves)
    weights = torch.linspace(-1, 2, y.numel(), dtype=y.dtype).reshape(y.shape)
    return [y.detach(), *torch.autograd.grad((y * weights).sum(), leaves)]


def assert_torchs(
    mine: Callable[..., Tensor], plain: Callable[..., Tensor], *inputs: Tensor
) -> None:
    """The same as `plain`, by the compiled loops, and in float64, where torch computes."""
    expected = gradients(plain, *(x.double() for x in inputs))
    for kind in (torch.float32, torch.float64):
        found = gradients(mine, *(x.to(kind) for x in inputs))
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other.to(kind), rtol=1e-5, atol=1e-5)


def test_rms_norm_is_torchs() -> None:
    weight = torch.linspace(0.5, 1.5, 13)
    norm = RMSNorm(13)

    def mine(x: Tensor, weight: Tensor) -> Tensor:
        return torch.func.functional_call(norm, {"weight": weight}, (x,))

    def plain(x: Tensor, weight: Tensor) -> Tensor:
        return torch.nn.functional.rms_norm(x, (13,), weight, EPSILON)

    assert_torchs(mine, plain, X, weight)


def test_a_row_of_zeros_is_normalised_to_zeros() -> None:
    y, grad = gradients(RMSNorm(13), torch.zeros(2, 13))
    assert torch.equal(y, torch.zeros(2, 13))
    assert torch.isfinite(grad).all()


class Level(torch.nn.Module):
    """A level of the compact WaveNet."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.norm, self.layer, self.drop = RMSNorm(13), JoinedLinear(26, 26, parts=2), Dropout(p)

    def forward(self, x: Tensor, join: Join) -> Tensor:
        return gated_join(x, self.norm, self.layer, self.drop, join)


def by_its_equations(
    x: Tensor, scale: Tensor, weight: Tensor, bias: Tensor, mask: Tensor
) -> Tensor:
    normed = torch.nn.functional.rms_norm(x, (13,), scale, EPSILON)
    both = normed[DISTINCT].flatten(1) @ weight.T + bias
    return x[DISTINCT[:, 1]] + mask.to(x.dtype) * both[:, :13] * both[:, 13:]


@pytest.mark.parametrize("p", [0.0, 0.4])
def test_a_gated_join_is_its_equations(p: float) -> None:
    level = Level(p)
    drop_by([level.drop], 12345)
    mask = level.drop(torch.ones(len(DISTINCT), 13))
    inputs = [X, torch.linspace(0.5, 1.5, 13), torch.randn(26, 26), torch.randn(26)]

    def mine(x: Tensor, *weights: Tensor) -> Tensor:
        names = ("norm.weight", "layer.weight", "layer.bias")
        return torch.func.functional_call(level, dict(zip(names, weights, strict=True)), (x, JOIN))

    found = gradients(mine, *inputs)
    expected = gradients(partial(by_its_equations, mask=mask), *inputs)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("join", [JOIN, PlainJoin(DISTINCT)])
def test_where_torch_computes_it_is_the_same(join: Join) -> None:
    level = Level(0.0).double()
    inputs = [X.double(), *(p.detach() for p in level.parameters())]
    expected = by_its_equations(*inputs, mask=torch.ones(1, 13))
    torch.testing.assert_close(level(inputs[0], join), expected)


def test_a_joined_linear_layer_is_one_over_the_joined() -> None:
    layer = JoinedLinear(26, 7)

    def mine(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return torch.func.functional_call(layer, {"weight": weight, "bias": bias}, (x, JOIN))

    def plain(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return torch.nn.functional.linear(x[DISTINCT].flatten(1), weight, bias)

    assert_torchs(mine, plain, X, torch.randn(7, 26), torch.randn(7))


def test_tanh_is_torchs() -> None:
    assert_torchs(tanh, torch.tanh, 3 * X)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_dropout_drops_that_share_and_keeps_the_mean(p: float) -> None:
    dropout, ones = Dropout(p), torch.ones(400, 500)
    drop_by([dropout], 2**62 + 12345)
    y = dropout(ones)
    assert set(y.unique().tolist()) == {0.0, np.float32(1 / (1 - p))}
    spread = (p * (1 - p) / y.numel()) ** 0.5
    assert (y == 0).double().mean().item() == pytest.approx(p, abs=5 * spread)
    # Nor is there a pattern along rows or columns: neighbours are dropped independently.
    zero = (y == 0).double()
    for one, other in ((zero[:, 1:], zero[:, :-1]), (zero[1:], zero[:-1])):
        assert (one * other).mean().item() == pytest.approx(p * p, abs=6 * spread)
    assert torch.equal(dropout.eval()(ones), ones)


def test_the_way_back_drops_the_same() -> None:
    dropout = Dropout(0.5)
    drop_by([dropout], 7)
    x = torch.ones(50, 60, requires_grad=True)
    y = dropout(x)
    y.sum().backward()
    assert torch.equal(x.grad, y.detach())


def test_each_key_layer_and_process_has_a_mask_of_its_own() -> None:
    pair = [Dropout(0.5), Dropout(0.5)]
    ones, masks = torch.ones(100, 100), []
    for key, rank in ((1, 0), (1, 1), (1, 2), (2, 0), (2**40, 0), (2**62, 0), (2**62, 1)):
        drop_by(pair, key, rank)
        masks += [layer(ones) for layer in pair]
    for i, mask in enumerate(masks):
        for other in masks[:i]:
            assert (mask == other).double().mean().item() == pytest.approx(0.5, abs=0.03)
    drop_by(pair, 1)
    assert torch.equal(pair[0](ones), masks[0])


def test_only_what_drops_anything_is_given_a_key() -> None:
    assert dropouts_of(CompactWaveNet(vocab_size=5, block_size=4, channels=4)) == []
    assert len(dropouts_of(CompactWaveNet(vocab_size=5, block_size=4, dropout=0.1))) == 2


@pytest.mark.parametrize("block_size", [1, 2, 8, 16])
def test_the_compact_wavenet_is_its_equations(block_size: int) -> None:
    model = CompactWaveNet(vocab_size=21, block_size=block_size, channels=9)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    contexts = torch.randint(21, (15, block_size))
    w = model.state_dict()

    def norm(x: Tensor, level: int) -> Tensor:
        return torch.nn.functional.rms_norm(x, (9,), w[f"norms.{level}.weight"], EPSILON)

    nodes = [w["embedding.weight"][contexts[:, t]] for t in range(block_size)]
    level = 0
    while len(nodes) > 1:
        pairs = zip(nodes[::2], nodes[1::2], strict=True)
        joined = [(torch.cat([norm(a, level), norm(b, level)], 1), b) for a, b in pairs]
        halves = [(pair @ w["join.weight"].T + w["join.bias"], b) for pair, b in joined]
        nodes = [b + both[:, :9] * both[:, 9:] for both, b in halves]
        level += 1
    logits = norm(nodes[0], level) @ w["embedding.weight"].T + w["bias"]
    torch.testing.assert_close(model(contexts), logits, rtol=1e-4, atol=1e-5)
