"""The rules: compute torch functions on `Rows`, only for the distinct rows.

A linear layer on concatenated rows is a sum of products:

    W [left, right] = W_left left + W_right right

So each distinct row is multiplied once for each position at which it occurs, which gives a table.
The outputs are sums of rows of this table. The gradient of a table row is the sum of the gradients
of the outputs in which it occurs.

Matrix products use NumPy's OpenBLAS, whose kernels are the same on the processors of all vendors
(see `charlm.fast.products`). Elementwise and row-wise functions are torch's own, applied to the
distinct rows (`by_torch`).

X distinct rows of B channels, K of them concatenated, H outputs, M rows in total.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import resolve_name

from charlm.core.compiled import Floats
from charlm.fast import kernels
from charlm.fast.rows import RULES, Contexts, Node, NoRuleError, Overwritable, Rows, Tape, aligned


def rule(*functions: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return a decorator that registers a function as the rule for these torch functions."""

    def register(computes: Callable[..., Any]) -> Callable[..., Any]:
        RULES.update(dict.fromkeys(functions, computes))
        return computes

    return register


for _name in ("reshape", "flatten", "squeeze", "unsqueeze", "transpose", "permute", "chunk"):
    RULES[getattr(torch, _name)] = getattr(Rows, _name)


def constant(value: float, length: int) -> Node:
    """Return a constant row (length,), to use in place of missing weights."""
    return Node(np.full(length, value, dtype=np.float32))


@rule(F.embedding)
def embedding(
    input: Contexts,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Rows:
    if padding_idx is not None or max_norm is not None or scale_grad_by_freq or sparse:
        raise NoRuleError("an option of torch.nn.functional.embedding")
    input.tape.require_mode()
    return Rows(input.tape.leaf(weight), input.index[..., None], input.tape)


@rule(F.linear)
def linear(input: Rows, weight: Tensor, bias: Tensor | None = None) -> Rows:
    """Compute y = x W^T + b, for x (*L, K B), W (H, K B), b (H,) and y (*L, H)."""
    if input.transposed:
        raise NoRuleError("torch.nn.functional.linear of a transposed tensor")
    tape, node = input.tape, input.node
    W = tape.leaf(weight)
    b = constant(0.0, len(W.x)) if bias is None else tape.leaf(bias)
    x, K = node.x, input.index.shape[-1]
    if K * x.shape[1] != W.x.shape[1]:
        raise NoRuleError("torch.nn.functional.linear with a mismatched number of channels")
    if K == 1:
        y = Node(np.dot(x, W.x.T))
        kernels.add_to_rows(y.x, b.x)

        def backward(grad: Floats) -> None:
            node.add(np.dot(grad, W.x))
            W.add(np.dot(grad.T, x))
            b.add(kernels.sum_of_rows(grad))

        tape.record(y, backward)
        return Rows(y, input.index, tape)
    columns, index = input.unique()
    x = np.ascontiguousarray(x)
    y = Overwritable(
        kernels.concat_linear(x, W.x, b.x, *columns),
        lambda: kernels.concat_linear(x, W.x, b.x, *columns),
    )

    def backward_concat(grad: Floats) -> None:
        grads = kernels.concat_linear_backward(grad, x, W.x, *columns)
        for operand, operand_grad in zip((node, W, b), grads, strict=True):
            operand.add(operand_grad)

    tape.record(y, backward_concat)
    return Rows(y, index, tape)


@rule(torch.tanh)
def tanh(input: Rows) -> Rows:
    rows = input.single()
    node, y = rows.node, rows.node.take()
    kernels.tanh(y.reshape(-1))
    result = rows.with_rows(y)

    def backward(grad: Floats) -> None:
        node.add(kernels.tanh_backward(_flat(grad), y.reshape(-1)).reshape(y.shape))

    rows.tape.record(result.node, backward)
    return result


@rule(torch.mul)
def mul(input: Any, other: Any) -> Rows:
    if not (isinstance(input, Rows) and isinstance(other, Rows)):
        return by_torch(torch.mul)(input, other)
    one, two = aligned([input, other])
    a, b = one.node, two.node
    result = one.with_rows(a.x * b.x)

    def backward(grad: Floats) -> None:
        a.add(_summed(grad * b.x, a.x))
        grad *= a.x
        b.add(_summed(grad, b.x))

    one.tape.record(result.node, backward)
    return result


@rule(torch.add)
def add(input: Any, other: Any, *, alpha: float = 1) -> Rows:
    if not (isinstance(input, Rows) and isinstance(other, Rows)) or alpha != 1:
        return by_torch(torch.add)(input, other, alpha=alpha)
    one, two = aligned([input, other])
    a, b = one.node, two.node
    result = one.with_rows(a.x + b.x)

    def backward(grad: Floats) -> None:
        a.add(_summed(grad.copy(), a.x))
        b.add(_summed(grad, b.x))

    one.tape.record(result.node, backward)
    return result


@rule(F.rms_norm)
def rms_norm(
    input: Rows, normalized_shape: Any, weight: Tensor | None = None, eps: float | None = None
) -> Rows:
    """Compute equation 4 of Zhang and Sennrich (2019)."""
    rows = input.single()
    rows.require_last_dim(-1)
    node, x = rows.node, rows.node.x
    if list(normalized_shape) != [x.shape[1]]:
        raise NoRuleError("torch.nn.functional.rms_norm over several dimensions")
    w = constant(1.0, x.shape[1]) if weight is None else rows.tape.leaf(weight)
    x = np.ascontiguousarray(x)
    epsilon = np.float32(np.finfo(np.float32).eps if eps is None else eps)
    y, scales = kernels.rms_norm(x, w.x, epsilon)
    result = rows.with_rows(y)

    def backward(grad: Floats) -> None:
        grad_x, grad_w = kernels.rms_norm_backward(grad, x, w.x, scales)
        node.add(grad_x)
        w.add(grad_w)

    rows.tape.record(result.node, backward)
    return result


@rule(F.dropout)
def dropout(input: Rows, p: float = 0.5, training: bool = True, inplace: bool = False) -> Rows:
    """Apply dropout (Srivastava et al. 2014), with the same mask for equal rows of a batch."""
    if inplace:
        raise NoRuleError("torch.nn.functional.dropout in place")
    if not 0 <= p <= 1:
        raise ValueError(f"dropout probability has to be between 0 and 1, but got {p}")
    if not training or p == 0:
        return input
    rows = input.single()
    key = rows.tape.next_key()
    if key is None:
        return rows
    low, high = np.uint32(key & 0xFFFFFFFF), np.uint32(key >> 32)
    scale = np.float32(1 / (1 - p)) if p < 1 else np.float32(0)
    mask = low, high, np.uint32(min(round(p * 2**32), 2**32 - 1)), scale
    node, shape = rows.node, rows.node.x.shape
    result = rows.with_rows(kernels.dropout(_flat(node.x), mask).reshape(shape))

    def backward(grad: Floats) -> None:
        node.add(kernels.dropout(_flat(grad), mask).reshape(shape))

    rows.tape.record(result.node, backward)
    return result


@rule(F.batch_norm)
def batch_norm(
    input: Rows,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Rows:
    """Compute algorithm 1 of Ioffe and Szegedy (2015), with statistics over all M rows."""
    rows = input.single()
    if not (rows.transposed or rows.dim() == 2):  # torch normalizes dimension 1
        raise NoRuleError("torch.nn.functional.batch_norm over positions")
    tape, node, x = rows.tape, rows.node, rows.node.x
    channels = x.shape[1]
    gamma = constant(1.0, channels) if weight is None else tape.leaf(weight)
    beta = constant(0.0, channels) if bias is None else tape.leaf(bias)
    counts = np.bincount(rows.index.reshape(-1), minlength=len(x)).astype(np.float32)[:, None]
    M = rows.index.size
    if training:
        mean = (counts * x).sum(0) / np.float32(M)
        variance = (counts * (x - mean) ** 2).sum(0) / np.float32(M)
        if running_mean is not None and running_var is not None:
            if M == 1:
                raise ValueError("batch_norm needs more than one row in training")
            with torch.no_grad():
                running_mean.lerp_(torch.from_numpy(mean), momentum)
                unbiased = torch.from_numpy(variance * np.float32(M / (M - 1)))
                running_var.lerp_(unbiased, momentum)
    elif running_mean is None or running_var is None:
        raise NoRuleError("torch.nn.functional.batch_norm without statistics")
    else:
        mean, variance = running_mean.numpy(), running_var.numpy()
    inverse = 1 / np.sqrt(variance + np.float32(eps))
    normalized = (x - mean) * inverse
    result = rows.with_rows(normalized * gamma.x + beta.x)

    def backward(grad: Floats) -> None:
        grad_normalized = grad * gamma.x
        if training:  # the statistics depend on each row in proportion to its count
            mean_grad = grad_normalized.sum(0) / np.float32(M)
            along = (grad_normalized * normalized).sum(0) / np.float32(M)
            grad_normalized -= counts * (mean_grad + normalized * along)
        node.add(grad_normalized * inverse)
        gamma.add((grad * normalized).sum(0))
        beta.add(grad.sum(0))

    tape.record(result.node, backward)
    return result


@rule(torch.cat)
def cat(tensors: Any, dim: int = 0) -> Rows:
    """Concatenate rows of the same node, as `view` does."""
    if not all(isinstance(rows, Rows) for rows in tensors):
        raise NoRuleError("torch.cat of a tensor that does not depend on the contexts")
    first = tensors[0]
    for rows in tensors:
        rows.require_last_dim(dim)
        if rows.node is not first.node or rows.shape[:-1] != first.shape[:-1]:
            raise NoRuleError("torch.cat of the results of different functions")
    joined: Rows = first.with_index(np.concatenate([rows.index for rows in tensors], axis=-1))
    return joined


def by_torch(function: Callable[..., Tensor]) -> Callable[..., Rows]:
    """Return a rule that applies torch's own function to the distinct rows, with gradients.

    For elementwise and row-wise functions. Other operands than `Rows` can be Python numbers, or
    tensors with a single element or a single row (weights, for example).
    """

    def computes(*args: Any, **kwargs: Any) -> Rows:
        if kwargs.pop("inplace", False):
            raise NoRuleError(f"{_name_of(function)} in place")
        operands = aligned([each for each in (*args, *kwargs.values()) if isinstance(each, Rows)])
        rows, left = operands[0], iter(operands)
        channels = rows.node.x.shape[1]
        inputs: list[tuple[Node, Tensor]] = []

        def operand(value: Any) -> Any:
            if isinstance(value, Rows):
                node = next(left).node
            elif isinstance(value, Tensor):
                if value.numel() != 1 and (value.shape != (channels,) or rows.transposed):
                    raise NoRuleError(f"{_name_of(function)} with a tensor {tuple(value.shape)}")
                node = rows.tape.leaf(value)
            else:
                return value
            tensor = torch.from_numpy(node.x).requires_grad_(rows.tape.recording)
            inputs.append((node, tensor))
            return tensor

        result = function(*map(operand, args), **{name: operand(kwargs[name]) for name in kwargs})
        if result.dtype != torch.float32 or result.dim() != 2 or len(result) != len(rows.node.x):
            raise NoRuleError(f"{_name_of(function)} with these shapes")
        made = rows.with_rows(np.ascontiguousarray(result.detach().numpy()))

        def backward(grad: Floats) -> None:
            tensors = [tensor for _, tensor in inputs]
            grads = torch.autograd.grad(result, tensors, torch.from_numpy(grad), allow_unused=True)
            for (node, _), input_grad in zip(inputs, grads, strict=True):
                if input_grad is not None:
                    node.add(np.ascontiguousarray(input_grad.numpy()))

        rows.tape.record(made.node, backward)
        return made

    return computes


for _function in (
    *(torch.sub, torch.div, torch.neg, torch.pow, torch.abs, torch.square, torch.sqrt),
    *(torch.rsqrt, torch.exp, torch.log, torch.sin, torch.cos, torch.clamp, torch.sigmoid),
    *(torch.relu, F.relu, F.relu6, F.leaky_relu, F.elu, F.selu, F.celu, F.gelu, F.silu, F.mish),
    *(F.softplus, F.softsign, F.hardtanh, F.hardswish, F.hardsigmoid, F.logsigmoid),
):
    RULES[_function] = by_torch(_function)
for _name in ("add", "sub", "mul", "div"):  # called by `tensor + rows`
    RULES[getattr(Tensor, _name)] = RULES[getattr(torch, _name)]


def along_channels(function: Callable[..., Tensor]) -> Callable[..., Rows]:
    """Return the rule for a function along one dimension, which must be the channels."""
    computes = by_torch(function)

    def checked(input: Rows, dim: int = -1, **options: Any) -> Rows:
        input.require_last_dim(dim)
        return computes(input, dim=-1, **options)

    return checked


for _along in (F.glu, F.softmax, F.log_softmax, torch.softmax, torch.log_softmax):
    RULES[_along] = along_channels(_along)


@rule(F.layer_norm)
def layer_norm(
    input: Rows,
    normalized_shape: Any,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Rows:
    """Compute equation 4 of Ba et al. (2016)."""
    input.require_last_dim(-1)
    if list(normalized_shape) != [input.shape[-1]]:
        raise NoRuleError("torch.nn.functional.layer_norm over several dimensions")
    return by_torch(F.layer_norm)(input, list(normalized_shape), weight, bias, eps)


class Loss:
    """A loss in float64, with `backward`, `item`, addition, and products with numbers.

    Args:
        value: the loss in nats.
        tape: the tape of the forward pass.
        start: sets the gradient of the logits for the loss times a factor.
        factor: the factor by which the loss has been multiplied.
    """

    def __init__(
        self, value: float, tape: Tape, start: Callable[[float], None], factor: float = 1.0
    ) -> None:
        self._value = value
        self._tape = tape
        self._start = start
        self._factor = factor

    def __add__(self, other: "Loss") -> "Loss":
        def start(factor: float) -> None:
            for loss in (self, other):
                loss._start(factor * loss._factor)

        return Loss(self._value + other._value, self._tape, start)

    def __truediv__(self, number: float) -> "Loss":
        return Loss(self._value / number, self._tape, self._start, self._factor / number)

    def __mul__(self, number: float) -> "Loss":
        return Loss(self._value * number, self._tape, self._start, self._factor * number)

    __rmul__ = __mul__

    def item(self) -> float:
        return self._value

    def detach(self) -> Tensor:
        return torch.tensor(self._value, dtype=torch.float64)

    def backward(self) -> None:
        self._start(self._factor)
        self._tape.backward()


@rule(F.cross_entropy)
def cross_entropy(
    input: Rows,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: None = None,
    ignore_index: int = -100,
    reduce: None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Loss:
    """Compute -log softmax(input)[target] for input (N, V) and target (N,).

    If the target is probabilities (N, V), compute the sum of -log softmax(input), weighted by them.
    This is six times as fast as torch.

    Raises IndexError if a target is not in the vocabulary, and ValueError if the shape of the
    targets does not match the input.
    """
    plain = weight is None and ignore_index == -100 and label_smoothing == 0
    if not plain or reduction not in ("mean", "sum") or input.index.ndim != 2:
        raise NoRuleError("an option of torch.nn.functional.cross_entropy")
    rows = input.single()
    node, index = rows.node, rows.index.reshape(-1)
    targets, logits = np.ascontiguousarray(target.numpy()), np.ascontiguousarray(node.x)
    if soft := target.is_floating_point():
        if targets.shape != (len(index), logits.shape[1]):
            raise ValueError("the shapes of the probabilities and the logits differ")
        targets = kernels.summed_rows(targets, index, len(logits))  # sum of each row's targets
    exps, sums, largest = kernels.exponentials(logits)
    log_sums = np.log(sums) + largest
    if soft:
        total = kernels.soft_cross_entropy(logits, log_sums, targets)
    else:
        total = kernels.cross_entropy_sum(logits, log_sums, index, targets)
    count = len(target) if reduction == "mean" else 1

    def start(factor: float) -> None:
        grad = np.float32(factor / count)
        if soft:
            node.add(kernels.soft_cross_entropy_backward(exps, sums, targets, grad))
        else:
            node.add(kernels.cross_entropy_sum_backward(exps, sums, index, targets, grad))

    return Loss(float(total) / count, rows.tape, start)


def _summed(grad: Floats, operand: Floats) -> Floats:
    """Return the gradient of an operand, which can have been broadcast from a single channel."""
    return grad if grad.shape == operand.shape else grad.sum(1, keepdims=True)


def _flat(x: Floats) -> Floats:
    return np.ascontiguousarray(x).reshape(-1)


def _name_of(function: Any) -> str:
    return resolve_name(function) or str(function)
