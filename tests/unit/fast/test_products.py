"""Matrix products of plain PyTorch that have the same bytes on every processor."""

import platform
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from charlm.fast import products
from charlm.fast.products import PortableProducts
from tests.helpers import run_python
from tests.models import GRU, CausalTransformer, new_model

aten = torch.ops.aten
MULTIPLIES = ("mm", "bmm", "addmm", "baddbmm", "mv", "dot", "addmv", "addbmm", "linear", "matmul")
FUSED = ("attention", "gru", "lstm", "rnn", "encoder")


class Reaching(TorchDispatchMode):
    """Records calls of torch's own matrix products, with their types."""

    def __init__(self) -> None:
        super().__init__()
        self.products: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        name = func.overloadpacket.__name__
        if name in MULTIPLIES or any(part in name for part in FUSED):
            self.products.append(f"{name} of {args[0].dtype}")
        return func(*args, **(kwargs or {}))


def drawn(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def with_seed(layer: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(1)
    return layer()


def attention(x: Tensor) -> Tensor:
    layer = with_seed(lambda: nn.MultiheadAttention(6, 2, batch_first=True))
    result: Tensor = layer(x, x, x, need_weights=False)[0]
    return result


CALLS: dict[str, tuple[Callable[..., Any], tuple[Tensor, ...]]] = {
    "mm": (torch.mm, (drawn(5, 4), drawn(4, 3))),
    "bmm": (torch.bmm, (drawn(2, 5, 4), drawn(2, 4, 3))),
    "addmm": (torch.addmm, (drawn(3), drawn(5, 4), drawn(4, 3))),
    "addmm of a matrix": (torch.addmm, (drawn(5, 3), drawn(5, 4), drawn(4, 3))),
    "addmm with factors": (
        lambda *a: torch.addmm(*a, beta=0.5, alpha=2.0),
        (drawn(3), drawn(5, 4), drawn(4, 3)),
    ),
    "baddbmm": (torch.baddbmm, (drawn(2, 5, 3), drawn(2, 5, 4), drawn(2, 4, 3))),
    "baddbmm with factors": (
        lambda *a: torch.baddbmm(*a, beta=0.0, alpha=0.5),
        (drawn(2, 5, 3), drawn(2, 5, 4), drawn(2, 4, 3)),
    ),
    "mv": (torch.mv, (drawn(5, 4), drawn(4))),
    "dot": (torch.dot, (drawn(7), drawn(7, seed=2))),
    "matmul": (torch.matmul, (drawn(3, 5, 4), drawn(4, 3))),
    "matmul of vectors": (torch.matmul, (drawn(3), drawn(3, seed=2))),
    "matmul with a vector": (torch.matmul, (drawn(2, 5, 4), drawn(4))),
    "matmul of several dimensions": (torch.matmul, (drawn(2, 3, 5, 4), drawn(3, 4, 2))),
    "operator": (lambda a, b: a @ b, (drawn(5, 4), drawn(4, 3))),
    "einsum": (lambda a, b: torch.einsum("ntc,nsc->nts", a, b), (drawn(2, 5, 4), drawn(2, 3, 4))),
    "linear": (F.linear, (drawn(5, 4), drawn(3, 4), drawn(3))),
    "linear without bias": (F.linear, (drawn(2, 5, 4), drawn(3, 4))),
    "of columns": (lambda a, b: torch.mm(a.t(), b.t()), (drawn(4, 5), drawn(3, 4))),
    "of steps": (lambda a, b: torch.mm(a[::2, ::2], b), (drawn(6, 8), drawn(4, 3))),
    "of one number, expanded": (
        lambda a, b: torch.mm(a.expand(5, 4), b),
        (drawn(1, 1), drawn(4, 3)),
    ),
    "of no rows": (torch.mm, (drawn(0, 4), drawn(4, 3))),
    "of nothing to add": (torch.mm, (drawn(5, 0), drawn(0, 3))),
    "of no batch": (torch.bmm, (drawn(0, 5, 4), drawn(0, 4, 3))),
    "linear of no rows": (F.linear, (drawn(0, 4), drawn(3, 4), drawn(3))),
    "gru": (
        lambda x: with_seed(lambda: nn.GRU(6, 5, 2, batch_first=True))(x)[0],
        (drawn(3, 4, 6),),
    ),
    "lstm": (lambda x: with_seed(lambda: nn.LSTM(6, 5))(x)[0], (drawn(3, 4, 6),)),
    "rnn": (lambda x: with_seed(lambda: nn.RNN(6, 5))(x)[0], (drawn(3, 4, 6),)),
    "attention": (attention, (drawn(3, 4, 6),)),
    "encoder layer": (
        with_seed(lambda: nn.TransformerEncoderLayer(6, 2, 8, 0.0, batch_first=True)),
        (drawn(3, 4, 6),),
    ),
    "encoder layer in evaluation mode": (
        with_seed(lambda: nn.TransformerEncoderLayer(6, 2, 8, batch_first=True)).eval(),
        (drawn(3, 4, 6),),
    ),
    "bilinear": (with_seed(lambda: nn.Bilinear(4, 3, 2)), (drawn(5, 4), drawn(5, 3))),
}
EVERY_CALL = pytest.mark.parametrize("name", CALLS)


def outcome(
    call: Callable[..., Tensor], tensors: Sequence[Tensor], kind: torch.dtype
) -> list[Tensor]:
    """Return the result, and the gradients of a weighted sum of it."""
    inputs = [tensor.to(kind).requires_grad_() for tensor in tensors]
    y = call(*inputs)
    (y * torch.arange(y.numel(), dtype=kind).reshape(y.shape).cos()).sum().backward()
    return [y.detach(), *(its.grad for its in inputs if its.grad is not None)]


@EVERY_CALL
def test_products_match_torch_without_calling_its_products(name: str) -> None:
    call, tensors = CALLS[name]
    expected = outcome(call, tensors, torch.float32)
    with Reaching() as reaching, PortableProducts():
        found = outcome(call, tensors, torch.float32)
    assert reaching.products == []
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@EVERY_CALL
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_products_match_torch_without_gradients_too(name: str, mode: Callable[[], Any]) -> None:
    call, tensors = CALLS[name]
    with mode():
        expected = call(*tensors)
        with Reaching() as reaching, PortableProducts():
            found = call(*tensors)
    assert reaching.products == []
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_products_are_computed_by_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    """This shows that the tests above can fail."""
    a, b = drawn(5, 4), drawn(4, 3)
    with PortableProducts():
        assert np.array_equal(torch.mm(a, b).numpy(), a.numpy() @ b.numpy())
    calls = []
    matmul = np.matmul
    monkeypatch.setattr(products.np, "matmul", lambda *x: calls.append(x) or matmul(*x))
    with PortableProducts():
        torch.mm(a, b)
    torch.mm(a, b)
    assert len(calls) == 1
    with Reaching() as reaching:
        torch.mm(a, b)
    assert reaching.products == ["mm of torch.float32"]


@pytest.mark.parametrize("kind", [torch.float64, torch.float16, torch.bfloat16, torch.int64])
def test_other_types_are_left_to_torch(kind: torch.dtype) -> None:
    a, b = (10 * drawn(5, 4)).to(kind), (10 * drawn(4, 3)).to(kind)
    with Reaching() as reaching, PortableProducts():
        found = torch.mm(a, b)
    assert reaching.products == [f"mm of {kind}"]
    assert torch.equal(found, torch.mm(a, b))


def test_tensors_on_other_devices_are_left_to_torch() -> None:
    with PortableProducts():
        assert torch.mm(drawn(5, 4).to("meta"), drawn(4, 3).to("meta")).is_meta


@pytest.mark.parametrize("architecture", [CausalTransformer, GRU])
def test_a_whole_model_calls_no_product_of_torch(architecture: Any) -> None:
    for training in (True, False):
        model = new_model(architecture, 31, 8).train(training)
        with Reaching() as reaching, PortableProducts():
            loss = F.cross_entropy(model(torch.randint(31, (9, 8))), torch.randint(31, (9,)))
            loss.backward()
            with torch.inference_mode():
                model(torch.randint(31, (9, 8)))
        assert reaching.products == []


def test_fused_kernels_are_allowed_again_afterwards() -> None:
    def allowed() -> tuple[bool, ...]:
        return (
            torch.backends.cuda.flash_sdp_enabled(),
            torch.backends.mha.get_fastpath_enabled(),
            torch.backends.mkldnn.enabled,
        )

    before = allowed()
    assert all(before)
    with PortableProducts():
        assert not any(allowed())
        with PortableProducts():
            pass
        assert not any(allowed())
    assert allowed() == before
    with pytest.raises(RuntimeError, match="cannot be multiplied"), PortableProducts():
        torch.mm(drawn(2, 3), drawn(4, 5).to(torch.float64))
    assert allowed() == before


def test_overflow_gives_infinity_without_a_warning() -> None:
    """Training detects it in the loss, and reports it in one line."""
    with warnings.catch_warnings(), PortableProducts():
        warnings.simplefilter("error")
        assert torch.mm(torch.full((2, 2), 3e38), torch.full((2, 2), 9.0)).isinf().all()


PRODUCT = """
import hashlib, sys
if "pin" in sys.argv:
    from charlm.core.pinning import pin_kernels
    pin_kernels()
import numpy as np
a = np.random.default_rng(1).standard_normal((64, 300)).astype("f4")
print(hashlib.md5((a @ a.T[:, ::-1]).tobytes()).hexdigest())
"""


@pytest.mark.skipif(platform.machine() != "x86_64", reason="kernels are pinned on x86-64 alone")
def test_pinning_overrides_the_environment() -> None:
    """The first two results differ, so the comparison of bytes could fail."""
    old, new = (run_python(PRODUCT, OPENBLAS_CORETYPE=core) for core in ("Prescott", "Haswell"))
    assert old != new
    for core in ("Prescott", "SkylakeX", ""):
        assert run_python(PRODUCT, "pin", OPENBLAS_CORETYPE=core) == new
