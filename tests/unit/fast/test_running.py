"""A model uses the fast path only if it gives the results of plain PyTorch."""

import copy
import io
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from charlm.data.splits import Part
from charlm.fast import running
from charlm.fast.products import PortableProducts
from charlm.fast.rows import RULES, Rows
from charlm.fast.running import Runner, batched_logits, losses, mean_loss, summed_loss
from charlm.models.base import LanguageModel
from charlm.models.wavenet import WaveNet
from tests.helpers import ARCHITECTURES, small_corpus, small_split
from tests.models import CausalTransformer, new_model

CORPUS = small_corpus(8)
WINDOWS = small_split(CORPUS)
V, T = len(CORPUS.vocabulary), 8
CONTEXTS, TARGETS = WINDOWS[Part.TRAIN].batch(slice(64))


class Changed(WaveNet):
    """A WaveNet with a change to each level."""

    change: Callable[[Any], Any] = staticmethod(lambda x: x)

    def forward(self, contexts: Tensor) -> Tensor:
        x = self.embedding(contexts)
        for linear in self.tree:
            N, P, C = x.shape
            x = torch.tanh(type(self).change(linear(x.view(N, P // 2, 2 * C))))
        return self.output(x.squeeze(1))


def runner_of(model: nn.Module, **options: Any) -> tuple[Runner, list[str]]:
    lines: list[str] = []
    return Runner(model, log=lines.append, **options), lines


def step(runner: Runner, key: int = 1) -> dict[str, Tensor]:
    runner.model.zero_grad()
    with runner:
        loss = F.cross_entropy(runner(CONTEXTS, key), TARGETS)
        loss.backward()
    grads = {n: p.grad.clone() for n, p in runner.model.named_parameters() if p.grad is not None}
    return {"loss": loss.detach().float(), **grads}


@ARCHITECTURES
def test_every_model_gives_the_same_results_on_both_paths(
    architecture: type[LanguageModel],
) -> None:
    model = new_model(architecture, V, T)
    fast, lines = runner_of(model)
    fast.check(CONTEXTS, TARGETS)
    assert (fast.path.fast, lines) == (True, [])
    ours, theirs = step(fast), step(Runner(model, fast=False))
    assert ours.keys() == theirs.keys()
    for name, expected in theirs.items():
        torch.testing.assert_close(ours[name], expected, rtol=1e-4, atol=1e-6, msg=name)
    plain = Runner(model, fast=False)
    torch.testing.assert_close(fast.logits(CONTEXTS), plain.logits(CONTEXTS))
    for part in Part:
        assert mean_loss(fast, WINDOWS[part]) == pytest.approx(
            mean_loss(plain, WINDOWS[part]), 1e-6
        )


def test_the_fast_path_runs_the_model_and_nothing_else() -> None:
    """All of `forward` is computed, including a GELU added after each level."""
    torch.manual_seed(1)
    model = new_model(type("WithGELU", (Changed,), {"change": staticmethod(F.gelu)}), V, T)
    runner, lines = runner_of(model)
    runner.check(CONTEXTS, TARGETS)
    assert runner.path.fast
    assert not lines
    plain = copy.deepcopy(model)
    type(plain).change = staticmethod(lambda x: x)
    with_gelu = new_model(type("With", (Changed,), {"change": staticmethod(F.gelu)}), V, T)
    with_gelu.load_state_dict(model.state_dict())
    assert step(Runner(with_gelu))["loss"] != step(Runner(plain))["loss"]


def test_a_function_without_a_rule_is_reported_and_the_model_runs_as_plain_pytorch() -> None:
    model = new_model(type("M", (Changed,), {"change": staticmethod(lambda x: x.cumsum(1))}), V, T)
    runner, lines = runner_of(model)
    runner.check(CONTEXTS, TARGETS)
    assert runner.path.fast is False
    assert lines == [
        "M: runs as plain PyTorch, because the fast path does not support torch.Tensor.cumsum; "
        f"a step can take {running.SLOWER} times as long as on the fast path"
    ]
    assert isinstance(runner(CONTEXTS), Tensor)
    step(runner)


def test_a_custom_backward_pass_is_not_ignored() -> None:
    """While it is the identity, gradients do not reveal it."""

    class Clip(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> Tensor:
            return grad.clamp(-9, 9)

    model = new_model(type("M", (Changed,), {"change": staticmethod(Clip.apply)}), V, T)
    runner, lines = runner_of(model)
    runner.check(CONTEXTS, TARGETS)
    assert runner.path.fast is False
    assert "because the fast path does not support an autograd.Function; " in lines[0]
    step(runner)


def test_a_wrong_rule_is_detected_and_the_model_runs_as_plain_pytorch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = new_model(WaveNet, V, T)
    right = step(Runner(model, fast=False))
    tanh = RULES[torch.tanh]
    monkeypatch.setitem(RULES, torch.tanh, lambda x: tanh(x) * 1.01)
    runner, lines = runner_of(model)
    runner.check(CONTEXTS, TARGETS)
    assert runner.path.fast is False
    assert "because the fast path computes a different loss; a step" in lines[0]
    assert torch.equal(step(runner)["loss"], right["loss"])


def test_a_wrong_gradient_is_detected(monkeypatch: pytest.MonkeyPatch) -> None:
    """This works even if the loss is right."""

    def frozen(x: Rows) -> Rows:  # as if its backward pass had been forgotten
        return x.with_rows(torch.tanh(torch.from_numpy(x.node.x)).numpy())

    monkeypatch.setitem(RULES, torch.tanh, frozen)
    runner, lines = runner_of(new_model(WaveNet, V, T))
    runner.check(CONTEXTS, TARGETS)
    assert runner.path.fast is False
    assert "computes a different gradient of " in lines[0]


def test_logits_are_compared_without_targets(monkeypatch: pytest.MonkeyPatch) -> None:
    model = new_model(WaveNet, V, T)
    expected = Runner(model, fast=False).logits(CONTEXTS)
    monkeypatch.setitem(RULES, torch.tanh, lambda x: x)
    runner, lines = runner_of(model)
    torch.testing.assert_close(runner.logits(CONTEXTS), expected)
    assert "because the fast path computes different logits; a step" in lines[0]


def test_a_branch_without_a_rule_is_found_when_it_is_taken() -> None:
    class Branching(WaveNet):
        calls = 0

        def forward(self, contexts: Tensor) -> Tensor:
            x = super().forward(contexts)
            type(self).calls += 1
            return x if type(self).calls < 4 else x.cumsum(1)

    runner, lines = runner_of(new_model(Branching, V, T))
    step(runner)  # the third pass, because the check makes two
    assert (runner.path.fast, lines) == (True, [])
    ours = step(runner)
    assert runner.path.fast is False
    theirs = step(Runner(runner.model, fast=False))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs), "other products"
    assert "the fast path does not support torch.Tensor.cumsum" in lines[0]


def test_a_bug_in_a_model_raises_its_own_error() -> None:
    class Broken(WaveNet):
        def forward(self, contexts: Tensor) -> Tensor:
            return self.outptu(self.embedding(contexts))

    with pytest.raises(AttributeError, match="has no attribute 'outptu'"):
        step(Runner(new_model(Broken, V, T)))


@pytest.mark.parametrize("batches", [0, 1], ids=["on the first batch", "later"])
@pytest.mark.parametrize(
    "error",
    [OSError(28, "No space left on device"), ModuleNotFoundError("<dynamic>"), MemoryError()],
    ids=lambda error: type(error).__name__,
)
def test_an_error_of_the_system_does_not_change_the_path(
    error: Exception, batches: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The paths differ in the last digits, so the choice must depend only on the model."""

    def fail(x: Rows) -> Rows:
        raise error

    runner, lines = runner_of(new_model(WaveNet, V, T))
    for _ in range(batches):
        step(runner)
    monkeypatch.setitem(RULES, torch.tanh, fail)
    with pytest.raises(type(error)):
        step(runner)
    assert lines == []


def test_the_check_changes_nothing() -> None:
    class Noisy(WaveNet):
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            self.bn = nn.BatchNorm1d(128)

        def forward(self, contexts: Tensor) -> Tensor:
            x = self.embedding(contexts).flatten(1)
            torch.rand(3)
            return self.output(self.bn(torch.tanh(self.tree[0](x.view(len(x), 4, -1))[:, -1])))

    model = new_model(Noisy, V, T)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    before = copy.deepcopy(model.state_dict())
    state = torch.get_rng_state()
    runner, lines = runner_of(model)
    runner.check(CONTEXTS, TARGETS)
    assert (runner.path.fast, lines) == (True, [])
    assert torch.equal(torch.get_rng_state(), state)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert all((p.grad == 1).all() for p in model.parameters() if p.grad is not None)


def test_a_model_with_dropout_is_compared_without_it() -> None:
    model = new_model(WaveNet, V, T, dropout=0.5)
    runner, lines = runner_of(model)
    runner.check(CONTEXTS, TARGETS)
    assert (runner.path.fast, lines) == (True, [])
    assert step(runner, key=1)["loss"] != step(runner, key=2)["loss"]
    assert step(runner, key=1)["loss"] == step(runner, key=1)["loss"]


def test_a_transformer_of_torch_runs_as_plain_pytorch() -> None:
    model = new_model(CausalTransformer, V, T)
    runner, lines = runner_of(model)
    runner.check(CONTEXTS, TARGETS)
    assert runner.path.fast is False
    assert "Causal transformer: runs as plain PyTorch, because " in lines[0]
    model.eval()
    torch.testing.assert_close(runner.logits(CONTEXTS), model(CONTEXTS.long()))


def test_types_other_than_float32_are_left_to_torch_silently() -> None:
    model = new_model(WaveNet, V, T).double()
    runner, lines = runner_of(model)
    assert runner.logits(CONTEXTS).dtype == torch.float64
    assert (runner.path.fast, lines) == (False, [])


def test_only_deterministic_models_can_be_captured_for_a_gpu() -> None:
    for architecture, options, repeats in (
        (WaveNet, {}, True),
        (WaveNet, {"dropout": 0.1}, False),
        (CausalTransformer, {}, False),
    ):
        model = new_model(architecture, V, T, **options)
        assert Runner(model).is_capturable(CONTEXTS) is repeats

    class Noise(WaveNet):
        def forward(self, contexts: Tensor) -> Tensor:
            return super().forward(contexts) * torch.rand(1).item()

    assert not Runner(new_model(Noise, V, T)).is_capturable(CONTEXTS)


@pytest.mark.parametrize("chunk", [1, 7, 10**6])
def test_losses_are_cross_entropy_window_by_window(
    chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "CHUNK", chunk)
    model, windows = new_model(WaveNet, V, T, dropout=0.5), WINDOWS[Part.VAL]
    contexts, targets = windows.batch(slice(None))
    model.eval()
    expected = F.cross_entropy(model(contexts.long()), targets, reduction="none")
    model.train()
    torch.testing.assert_close(losses(model, windows), expected)
    torch.testing.assert_close(summed_loss(model, windows).float(), expected.sum())
    assert mean_loss(model, windows) == pytest.approx(expected.mean().item(), 1e-5)
    assert [len(t) for _, t in batched_logits(model, windows)][:1] == [min(chunk, len(windows))]
    assert model.training
    with redirect_stdout(io.StringIO()) as printed:
        mean_loss(new_model(CausalTransformer, V, T), windows)
    assert printed.getvalue() == ""


# What the first batch alone would not reveal.


class Small(LanguageModel):
    """An embedding, a tanh layer, and an output layer whose weights start at zero.

    On the first batch, all gradients except those of the output layer are therefore zero.
    """

    def __init__(self, vocab_size: int, block_size: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, 4)
        self.hidden = nn.Linear(4 * block_size, 8)
        self.output = nn.Linear(8, vocab_size)
        nn.init.zeros_(self.output.weight)

    def forward(self, contexts: Tensor) -> Tensor:
        x = torch.tanh(self.hidden(self.embedding(contexts).flatten(1)))
        return self.output(x)


def trained(architecture: type[LanguageModel], fast: bool) -> Runner:
    """Return the runner of a model after a few steps of SGD."""
    runner = Runner(new_model(architecture, V, T), fast)
    runner.check(CONTEXTS, TARGETS)
    for _ in range(5):
        step(runner)
        with torch.no_grad():
            for parameter in runner.model.parameters():
                if parameter.grad is not None:
                    parameter.sub_(parameter.grad)
    return runner


def assert_trained_alike(architecture: type[LanguageModel]) -> Runner:
    ours, theirs = trained(architecture, True), trained(architecture, False)
    weights = ours.model.state_dict()
    for name, expected in theirs.model.state_dict().items():
        torch.testing.assert_close(weights[name], expected, rtol=1e-4, atol=1e-5, msg=name)
    return ours


def test_code_under_no_grad_gets_no_gradients() -> None:
    class Frozen(Small):
        def forward(self, contexts: Tensor) -> Tensor:
            with torch.no_grad():
                x = self.embedding(contexts).flatten(1)
            return self.output(torch.tanh(self.hidden(x)))

    assert not assert_trained_alike(Frozen).path.fast


def test_hooks_on_parameters_are_called() -> None:
    class Hooked(Small):
        def __init__(self, **sizes: int) -> None:
            super().__init__(**sizes)
            self.hidden.weight.register_hook(lambda grad: grad * 0.1)

    assert assert_trained_alike(Hooked).path.fast


def test_a_module_with_a_backward_hook_runs_as_plain_pytorch() -> None:
    model = new_model(WaveNet, V, T)
    model.output.register_full_backward_hook(lambda module, inputs, outputs: None)
    runner, lines = runner_of(model)
    runner.check(CONTEXTS, TARGETS)
    assert "because a module has a backward hook" in lines[0]


@pytest.mark.parametrize("value", [-1e9, float("-inf"), True])
def test_large_values_in_a_buffer_do_not_affect_the_check_of_gradients(
    value: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = new_model(WaveNet, V, T)
    model.register_buffer("mask", torch.full((4, 4), value))
    runner, lines = runner_of(model)
    runner.check(CONTEXTS, TARGETS)
    assert (runner.path.fast, lines) == (True, [])
    tanh = RULES[torch.tanh]
    monkeypatch.setitem(RULES, torch.tanh, lambda x: x.with_rows(tanh(x).node.x))
    runner, lines = runner_of(model)
    runner.check(CONTEXTS, TARGETS)
    assert "a different gradient of" in lines[0]


def test_evaluation_mode_is_checked_too() -> None:
    class Slip(Small):
        def forward(self, contexts: Tensor) -> Tensor:
            return F.dropout(super().forward(contexts) + 1, 0.5)  # self.training forgotten

    class InPlace(Small):
        def forward(self, contexts: Tensor) -> Tensor:
            x = super().forward(contexts)
            if not self.training:
                x[:, 0] = 0
            return x

    for architecture in (Slip, InPlace):
        runner, lines = runner_of(new_model(architecture, V, T))
        runner.check(CONTEXTS, TARGETS)
        assert runner.path.fast is False
        assert "in evaluation" in lines[0]
        assert runner.model.training


def test_the_input_of_tanh_can_be_used_again() -> None:
    class Before(Small):
        def forward(self, contexts: Tensor) -> Tensor:
            h = self.hidden(self.embedding(contexts).flatten(1))
            return self.output(F.gelu(h) * torch.tanh(h) + h)

    class Halves(Small):
        def forward(self, contexts: Tensor) -> Tensor:
            h = self.hidden(self.embedding(contexts).flatten(1))
            a, b = h.chunk(2, dim=-1)
            return self.output(torch.tanh(h)) + (a * b) @ self.output.weight[:, :4].T

    assert assert_trained_alike(Before).path.fast
    assert_trained_alike(Halves)


def test_a_tensor_kept_in_evaluation_can_be_used_in_training() -> None:
    class Keeping(Small):
        kept: Tensor | None = None

        def forward(self, contexts: Tensor) -> Tensor:
            if self.kept is None and not self.training:
                self.kept = torch.ones(8)
            x = torch.tanh(self.hidden(self.embedding(contexts).flatten(1)))
            return self.output(x if self.kept is None else x * self.kept)

    runner = Runner(new_model(Keeping, V, T))
    runner.model.eval()
    runner.logits(CONTEXTS)
    summed_loss(runner, WINDOWS[Part.VAL])
    runner.model.train()
    assert step(runner)


class LowRank(Small):
    """A model whose hidden layer has a product as its weights."""

    def __init__(self, vocab_size: int, block_size: int) -> None:
        super().__init__(vocab_size, block_size)
        self.left = nn.Parameter(torch.randn(8, 300))
        self.right = nn.Parameter(torch.randn(300, 4 * block_size))
        nn.init.normal_(self.output.weight)

    def forward(self, contexts: Tensor) -> Tensor:
        x = self.embedding(contexts).flatten(1)
        return self.output(torch.tanh(F.linear(x, self.left @ self.right)))


def test_products_of_weights_are_portable_too() -> None:
    model = new_model(LowRank, V, T)
    runner, lines = runner_of(model)
    runner.check(CONTEXTS, TARGETS)
    assert (runner.path.fast, runner.path.mixed, lines) == (True, True, [])
    ours = step(runner)
    with PortableProducts():
        portable = step(runner)
    runner.path = replace(runner.path, mixed=False)
    others = step(runner)
    assert all(torch.equal(ours[name], portable[name]) for name in ours)
    assert not all(torch.equal(ours[name], others[name]) for name in ours), "the same anyway"


def test_a_buffer_is_not_a_product_of_weights() -> None:
    class Scaled(Small):
        def __init__(self, vocab_size: int, block_size: int) -> None:
            super().__init__(vocab_size, block_size)
            self.register_buffer("scale", torch.ones(8))

        def forward(self, contexts: Tensor) -> Tensor:
            x = self.hidden(self.embedding(contexts).flatten(1))
            return self.output(torch.tanh(x * self.scale))

    runner, lines = runner_of(new_model(Scaled, V, T))
    runner.check(CONTEXTS, TARGETS)
    assert (runner.path.fast, runner.path.mixed, lines) == (True, False, [])


def test_weights_computed_by_torch_are_not_cached() -> None:
    model = new_model(Small, V, T)
    nn.utils.parametrizations.weight_norm(model.hidden)
    runner = Runner(model)
    for _ in range(5):
        runner.logits(CONTEXTS)
        step(runner)
    assert runner.path.fast
    assert len(runner._leaves) <= len([*model.parameters()])
