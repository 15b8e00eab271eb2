"""Functions of tensors whose gradients are written out, in NumPy or in compiled loops.

At a batch's size an operation of torch costs as much before it begins as a tenth of a product,
and its gradient again; so what belongs together is one function.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

Kept = tuple[Any, ...]


def differentiable(
    compute: Callable[..., tuple[Any, Kept]], gradients: Callable[..., tuple[Any, ...]]
) -> Callable[..., Tensor]:
    """A function of tensors, known to autograd, from two of arrays.

    Args:
        compute: of all arguments, tensors among them as arrays; returns the result, and what
            `gradients` needs besides.
        gradients: of the result's gradient and that; returns the gradients of as many of the
            arguments as have one, which come first.
    """

    class Function(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *arguments: Any) -> Tensor:
            ctx.count = len(arguments)
            result, ctx.kept = compute(*map(_as_array, arguments))
            return torch.as_tensor(result)

        @staticmethod
        @once_differentiable
        def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
            known = [torch.from_numpy(its) for its in gradients(_as_array(grad), *ctx.kept)]
            return (*known, *[None] * (ctx.count - len(known)))

    def function(*arguments: Any) -> Tensor:
        result: Tensor = Function.apply(*arguments)  # type: ignore[no-untyped-call]
        return result

    return function


def _as_array(argument: Any) -> Any:
    return argument.detach().contiguous().numpy() if isinstance(argument, Tensor) else argument
