"""Matrix products that give the same bytes on every x86-64 processor, for plain PyTorch.

The products of MKL, which torch uses, round otherwise on Intel than on AMD (MKL_CBWR=AVX2 is heeded
on Intel alone) and with two threads than with one; the setting that is alike everywhere,
COMPATIBLE, takes four times as long. OpenBLAS, which NumPy brings, has the same kernels for both
makers and takes them by name (OPENBLAS_CORETYPE), at a tenth more than MKL's time.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten


class PortableProducts(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Computes the matrix products of float32 tensors on the CPU by NumPy.

    Below autograd, so that it has the products of every layer (linear, attention, recurrent ones)
    in the forward and the backward pass alike.
    """

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        product = PRODUCTS.get(func)
        if product is not None and not kwargs and all(map(_suits, args)):
            return product(*args)
        if func in DECOMPOSED:
            return func.decompose(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _suits(tensor: Any) -> bool:
    return (
        isinstance(tensor, Tensor) and tensor.dtype == torch.float32 and tensor.device.type == "cpu"
    )


def _product(a: Tensor, b: Tensor) -> Tensor:
    with np.errstate(all="ignore"):
        return torch.from_numpy(np.matmul(a.detach().numpy(), b.detach().numpy()))


PRODUCTS: dict[Any, Callable[..., Tensor]] = {
    aten.mm.default: _product,
    aten.bmm.default: _product,
    aten.addmm.default: lambda bias, a, b: _product(a, b).add_(bias),
    aten.baddbmm.default: lambda bias, a, b: _product(a, b).add_(bias),
    aten.mv.default: _product,
}

DECOMPOSED = {aten.linear.default, aten.matmul.default}
"""What reaches `PortableProducts` whole where no gradient is wanted."""
