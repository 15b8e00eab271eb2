"""Matrix products for plain PyTorch that give the same bytes on every x86-64 processor.

torch uses MKL, whose rounding differs between Intel and AMD (only Intel honors MKL_CBWR=AVX2) and
between one thread and two. MKL's only portable setting, COMPATIBLE, takes four times as long.
OpenBLAS, which comes with NumPy, has the same kernels for both vendors, selected by name
(OPENBLAS_CORETYPE). It takes a tenth longer than MKL.
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten


class PortableProducts(TorchDispatchMode):
    """A mode that computes matrix products of float32 tensors on the CPU with NumPy.

    It works below autograd, so it handles the products of all layers (linear, attention, recurrent)
    in the forward and the backward pass. Fused kernels would bypass it and are disabled.
    """

    def __enter__(self) -> "PortableProducts":
        self._fused.append(_use_fused(False, False, False))
        return super().__enter__()  # type: ignore[no-any-return, no-untyped-call]

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        _use_fused(*self._fused.pop())

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._fused: list[tuple[bool, bool, bool]] = []

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # otherwise torch takes a second to import its compiler

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        product = PRODUCTS.get(func)
        if product is not None and all(map(_is_supported, args)):
            return product(*args, **(kwargs or {}))
        if _is_composite(func):  # linear, matmul and gru are not decomposed if gradients are off
            with self:
                return func.decompose(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


@cache
def _is_composite(func: Any) -> bool:
    return torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd")


def _use_fused(attention: bool, encoder: bool, recurrent: bool) -> tuple[bool, bool, bool]:
    """Enable or disable torch's fused kernels; return the previous settings."""
    before = (
        torch._C._get_flash_sdp_enabled(),  # also on the CPU
        torch.backends.mha.get_fastpath_enabled(),
        torch._C._get_mkldnn_enabled(),
    )
    torch.backends.cuda.enable_flash_sdp(attention)
    torch.backends.mha.set_fastpath_enabled(encoder)
    torch._C._set_mkldnn_enabled(recurrent)
    return before


def _is_supported(tensor: Any) -> bool:
    return (
        isinstance(tensor, Tensor) and tensor.dtype == torch.float32 and tensor.device.type == "cpu"
    )


def _product(a: Tensor, b: Tensor) -> Tensor:
    with np.errstate(all="ignore"):
        return torch.from_numpy(np.asarray(np.matmul(a.detach().numpy(), b.detach().numpy())))


def _added(bias: Tensor, a: Tensor, b: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    product = _product(a, b)
    if alpha != 1:
        product *= alpha
    return product.add_(bias, alpha=beta) if beta else product


PRODUCTS: dict[Any, Callable[..., Tensor]] = {
    aten.mm.default: _product,
    aten.bmm.default: _product,
    aten.mv.default: _product,
    aten.dot.default: _product,
    aten.addmm.default: _added,
    aten.addmv.default: _added,
    aten.baddbmm.default: _added,
}
