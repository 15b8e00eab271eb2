"""Stand-ins for tensors with many equal rows, so that each distinct row is computed only once.

Contexts overlap, and half of them are mostly padding. In a batch of 256 contexts of the default
names, about 196 are distinct, and so are about 200 of their 1,024 pairs of neighbors. A model is
therefore run on `Contexts` instead of a tensor. Its embedding returns `Rows`: the distinct rows,
and the index of the row at each position. Each torch function called on `Rows` is dispatched to a
rule in `charlm.fast.rules`, by `__torch_function__` (see "Extending PyTorch" in its documentation).
A rule computes only the distinct rows, with NumPy and compiled loops, and records its backward pass
on a `Tape`. `charlm.fast.running` checks that the results equal those of plain PyTorch.

A function without a rule raises `NoRuleError`, and the model runs as plain PyTorch.

L leading dimensions of a tensor, X distinct rows of B channels, K of them concatenated.
"""

import math
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.overrides import resolve_name

from charlm.core.compiled import Floats, Integers
from charlm.fast import kernels

RULES: dict[Any, Callable[..., Any]] = {}
"""The rule of each torch function (or model function, by its path), see `charlm.fast.rules`."""


class NoRuleError(AttributeError, NotImplementedError):
    """A model calls a function that has no rule. The message is the name of the function."""


class Node:
    """Distinct rows (X, B), and the gradient of the loss with respect to them, once computed."""

    __slots__ = ("grad", "x")

    def __init__(self, x: Floats) -> None:
        self.x = x
        self.grad: Floats | None = None

    def take(self) -> Floats:
        """Return the rows in an array that can be overwritten."""
        return self.x.copy()

    def add(self, grad: Floats) -> None:
        """Accumulate a gradient."""
        self.grad = grad if self.grad is None else self.grad + grad


class Overwritable(Node):
    """Rows that a rule can overwrite with its result. They are recomputed if needed again."""

    __slots__ = ("_compute", "_x")

    def __init__(self, x: Floats, compute: Callable[[], Floats]) -> None:
        self._x: Floats | None = x
        self._compute = compute
        self.grad = None

    @property
    def x(self) -> Floats:  # type: ignore[override]
        if self._x is None:
            self._x = self._compute()
        return self._x

    def take(self) -> Floats:
        x, self._x = self.x, None
        return x if sys.getrefcount(x) <= 2 else x.copy()


class Leaf(Node):
    """An ordinary tensor: a weight, or a tensor that torch computed from weights."""

    __slots__ = ("address", "tensor")

    def __init__(self, tensor: Tensor) -> None:
        if tensor.dtype != torch.float32 or tensor.device.type != "cpu":
            raise NoRuleError(f"a tensor of {tensor.dtype} on {tensor.device}")
        super().__init__(tensor.detach().contiguous().numpy())
        self.tensor = tensor
        self.address = tensor.data_ptr() if tensor.is_contiguous() else None

    def is_of(self, tensor: Tensor) -> bool:
        """Return whether this is the leaf of `tensor`, which can have been changed in place."""
        return self.tensor is tensor and self.address == tensor.data_ptr()

    def accumulate(self, computed: "list[tuple[Tensor, Tensor]]") -> None:
        """Add to the tensor's gradient. If torch computed the tensor, append both to `computed`."""
        tensor, summed, self.grad = self.tensor, gradient_of(self), None
        if not tensor.requires_grad:
            return
        grad = torch.from_numpy(summed.reshape(self.x.shape))
        if not tensor.is_leaf or tensor._backward_hooks or tensor._post_accumulate_grad_hooks:
            computed.append((tensor, grad))
        elif tensor.grad is None:
            tensor.grad = grad
        else:
            tensor.grad = tensor.grad + grad


Leaves = dict[int, Leaf]
"""Leaves by the `id` of their tensor, reused in later passes to save time."""


class Tape:
    """The backward functions of a forward pass, in order.

    Args:
        key: 63-bit seed of the dropout masks; None to disable dropout.
        leaves: the leaves of earlier passes through the same model.

    Attributes:
        recording: whether gradients are enabled.
        drops: number of calls of dropout so far.
    """

    def __init__(self, key: int | None = None, leaves: Leaves | None = None) -> None:
        self.recording = torch.is_grad_enabled()
        self.drops = 0
        self._key = key
        self._parameters = {} if leaves is None else leaves
        self._results: Leaves = {}
        self._steps: list[tuple[Node, Callable[[Floats], None]]] = []

    def leaf(self, tensor: Tensor) -> Leaf:
        """Return the leaf of an ordinary tensor, the same one for all its uses."""
        key = id(tensor)
        leaf = self._parameters.get(key) or self._results.get(key)
        if leaf is None or not leaf.is_of(tensor):
            is_parameter = isinstance(tensor, torch.nn.Parameter)
            leaf = Leaf(tensor)
            (self._parameters if is_parameter else self._results)[key] = leaf
        return leaf

    def record(self, node: Node, backward: Callable[[Floats], None]) -> None:
        """Register `backward`, which is called with the gradient of `node`, if there is one.

        It can overwrite this gradient.
        """
        self.require_mode()
        if self.recording:
            self._steps.append((node, backward))

    def require_mode(self) -> None:
        """Raise NoRuleError if gradients have been enabled or disabled since the start."""
        if self.recording != torch.is_grad_enabled():
            raise NoRuleError("torch.no_grad or a custom autograd.Function inside the model")

    @property
    def mixed(self) -> bool:
        """Whether torch can have computed weights from other weights in this pass."""
        return any(
            not (self.recording and leaf.tensor.is_leaf) for leaf in self._results.values()
        )  # with gradients off, computed weights look like buffers

    def next_key(self) -> int | None:
        """Return the key of the next call of dropout, different for each call."""
        self.drops += 1
        return None if self._key is None else self._key ^ self.drops - 1 << 32

    def backward(self) -> None:
        """Run the backward functions in reverse order; accumulate gradients in `Tensor.grad`."""
        steps = self._steps
        while steps:  # pop to break the reference cycle between the tape and the functions
            node, backward = steps.pop()
            if node.grad is not None:
                backward(node.grad)
        computed: list[tuple[Tensor, Tensor]] = []
        for leaf in (*self._parameters.values(), *self._results.values()):
            if leaf.grad is not None:
                leaf.accumulate(computed)
        if computed:  # autograd continues from here
            tensors, grads = zip(*computed, strict=True)
            torch.autograd.backward(tensors, grads)


class StandIn:
    """The base class of `Contexts` and `Rows`, which dispatches torch functions to rules."""

    __slots__ = ("index", "tape")

    def __init__(self, index: Integers, tape: Tape) -> None:
        self.index = index
        self.tape = tape

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        rule = RULES.get(func) or RULES.get(f"{func.__module__}.{func.__name__}")
        if rule is None:
            raise NoRuleError(resolve_name(func) or str(func))
        return rule(*args, **(kwargs or {}))

    def __getattr__(self, name: str) -> Any:
        """Return a tensor method, for example `x.tanh`, by the rule of the torch function."""
        rule = RULES.get(getattr(torch, name, None))
        if rule is None:
            raise NoRuleError(f"torch.Tensor.{name}")
        return partial(rule, self)

    @property
    def shape(self) -> torch.Size:
        return torch.Size(self.index.shape)

    def size(self, dim: int | None = None) -> Any:
        return self.shape if dim is None else self.shape[dim]

    def dim(self) -> int:
        return self.index.ndim

    ndim = property(dim)

    def __len__(self) -> int:
        return self.shape[0]

    def _refuse(self, *_: Any) -> Any:
        raise NoRuleError("a comparison, or a branch on values")

    def _refuse_operator(self, *_: Any) -> Any:
        raise NoRuleError("one of its operators")

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = _refuse_operator
    __truediv__ = __rtruediv__ = __floordiv__ = __rfloordiv__ = _refuse_operator
    __mod__ = __rmod__ = __pow__ = __rpow__ = __neg__ = __abs__ = _refuse_operator
    __and__ = __or__ = __xor__ = __invert__ = __contains__ = __setitem__ = _refuse_operator
    __bool__ = __float__ = __int__ = _refuse
    __lt__ = __le__ = __gt__ = __ge__ = _refuse
    __eq__ = __ne__ = _refuse
    __hash__ = object.__hash__

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")


class Contexts(StandIn):
    """A batch of contexts (N, T), the input of a model.

    Args:
        tokens: integers (N, T).
        key: see `Tape`.
        leaves: see `Tape`.
    """

    __slots__ = ()

    def __init__(
        self, tokens: Tensor, key: int | None = None, leaves: Leaves | None = None
    ) -> None:
        super().__init__(np.ascontiguousarray(tokens.numpy(), dtype=np.int32), Tape(key, leaves))

    dtype = torch.int64

    def __getitem__(self, key: Any) -> "Contexts":
        return self.with_index(indexed(self.index, key))

    def with_index(self, index: Integers) -> "Contexts":
        """Return a stand-in for other integers (*L,) in the same pass."""
        other = Contexts.__new__(Contexts)
        StandIn.__init__(other, index, self.tape)
        return other


class Rows(StandIn):
    """A stand-in for a float32 tensor (*L, C) with many equal rows (C,).

    Args:
        node: the distinct rows (X, B).
        index: (*L, K), int32: each row of the tensor is the concatenation of K distinct rows, so
            C = K B.
        tape: the tape of the forward pass.
        transposed: whether the last two dimensions are swapped, as for BatchNorm1d.
    """

    __slots__ = ("_unique", "node", "transposed")

    def __init__(self, node: Node, index: Integers, tape: Tape, transposed: bool = False) -> None:
        self.index = index
        self.tape = tape
        self.node = node
        self.transposed = transposed
        self._unique: tuple[tuple[Integers, Integers, Integers], Integers] | None = None

    dtype = torch.float32
    requires_grad = True

    @property
    def shape(self) -> torch.Size:
        leading = self.index.shape[:-1]
        channels = self.index.shape[-1] * self.node.x.shape[1]
        if self.transposed:
            return torch.Size((*leading[:-1], channels, leading[-1]))
        return torch.Size((*leading, channels))

    def with_index(self, index: Integers) -> "Rows":
        """Return the same distinct rows with another index."""
        if self.transposed:
            raise NoRuleError("indexing or reshaping a transposed tensor")
        return Rows(self.node, index, self.tape)

    def with_rows(self, x: Floats) -> "Rows":
        """Return other distinct rows with the same index."""
        return Rows(Node(x), self.index, self.tape, self.transposed)

    def unique(self) -> tuple[tuple[Integers, Integers, Integers], Integers]:
        """Find the distinct combinations of rows, once for all layers that use them.

        Returns the results of `kernels.unique_per_column` for them, and an index (*L, 1) into them.
        """
        if self._unique is None:
            *leading, K = self.index.shape
            distinct, inverse = kernels.unique_rows(np.ascontiguousarray(self.index.reshape(-1, K)))
            columns = kernels.unique_per_column(distinct, len(self.node.x))
            self._unique = columns, inverse.reshape(*leading, 1)
        return self._unique

    def single(self) -> "Rows":
        """Return the same tensor with K = 1."""
        K = self.index.shape[-1]
        if K == 1:
            return self
        distinct, inverse = kernels.unique_rows(np.ascontiguousarray(self.index.reshape(-1, K)))
        node, (X, B) = self.node, self.node.x.shape
        joined = Node(node.x[distinct].reshape(len(distinct), K * B))

        def backward(grad: Floats) -> None:
            node.add(kernels.scatter_add(grad.reshape(-1, B), distinct.reshape(-1), X))

        self.tape.record(joined, backward)
        return Rows(joined, inverse.reshape(*self.index.shape[:-1], 1), self.tape, self.transposed)

    # Shapes, as in torch.Tensor. Only the index changes, not the rows (X, B).

    def view(self, *shape: Any) -> "Rows":
        sizes = list(shape[0] if isinstance(shape[0], tuple | list) else shape)
        B = self.node.x.shape[1]
        total = self.index.size * B
        if -1 in sizes:
            known = -math.prod(sizes)
            sizes[sizes.index(-1)] = total // max(known, 1)
        if self.transposed or math.prod(sizes) != total or not sizes or sizes[-1] % B:
            raise NoRuleError(f"torch.Tensor.view of {tuple(self.shape)} as {tuple(sizes)}")
        sizes[-1] //= B
        return Rows(self.node, self.index.reshape(sizes), self.tape)

    reshape = view

    def flatten(self, start_dim: int = 0, end_dim: int = -1) -> "Rows":
        shape, dims = self.index.shape, self.index.ndim
        start, end = start_dim % dims, end_dim % dims
        return self.with_index(
            self.index.reshape(*shape[:start], math.prod(shape[start : end + 1]), *shape[end + 1 :])
        )

    def unflatten(self, dim: int, sizes: Sequence[int]) -> "Rows":
        shape, at = list(self.shape), dim % self.dim()
        return self.view(*shape[:at], *sizes, *shape[at + 1 :])

    def squeeze(self, dim: int) -> "Rows":
        shape, at = self.shape, dim % self.dim()
        return self.view(*shape[:at], *shape[at + 1 :]) if shape[at] == 1 else self

    def unsqueeze(self, dim: int) -> "Rows":
        shape, at = list(self.shape), dim % (self.dim() + 1)
        return self.view(*shape[:at], 1, *shape[at:])

    def to(self, dtype: torch.dtype) -> "Rows":
        if dtype != torch.float32:
            raise NoRuleError(f"torch.Tensor.to {dtype}")
        return self

    def contiguous(self) -> "Rows":
        return self

    def transpose(self, dim0: int, dim1: int) -> "Rows":
        last = self.dim() - 1
        first, second = sorted((dim0 % (last + 1), dim1 % (last + 1)))
        if second < last:
            return self.with_index(self.index.swapaxes(first, second))
        if second == first + 1 and last > 1:
            whole = self.single()
            return Rows(whole.node, whole.index, self.tape, not self.transposed)
        raise NoRuleError("torch.Tensor.transpose of these dimensions")

    def permute(self, *dims: Any) -> "Rows":
        order = [d % self.dim() for d in (dims[0] if isinstance(dims[0], tuple | list) else dims)]
        if order == [0, 2, 1]:
            return self.transpose(1, 2)
        if order[-1] != self.dim() - 1:
            raise NoRuleError("torch.Tensor.permute of these dimensions")
        return self.with_index(self.index.transpose(*order))

    def __getitem__(self, key: Any) -> "Rows":
        parts = list(key) if isinstance(key, tuple) else [key]
        chosen = [part for part in parts if part is not None and part is not Ellipsis]
        last = Ellipsis in parts[:-1] or len(chosen) == self.dim()
        if last and parts[-1] != slice(None):
            raise NoRuleError("indexing channels (chunk has one)")
        return self.with_index(indexed(self.index, key))

    def chunk(self, chunks: int, dim: int = 0) -> tuple["Rows", ...]:
        self.require_last_dim(dim)
        whole = self.single()
        node, C = whole.node, whole.node.x.shape[1]
        width = -(-C // chunks)
        starts = range(0, C, width)
        parts = tuple(whole.with_rows(node.x[:, start : start + width]) for start in starts)
        nodes = [part.node for part in parts]

        def backward(_: Floats) -> None:
            node.add(np.concatenate([gradient_of(part) for part in nodes], axis=1))
            for part in nodes:
                part.grad = None  # so that the other parts do not add it again

        for part in nodes:  # runs once, for the last part with a gradient, after all uses
            self.tape.record(part, backward)
        return parts

    def require_last_dim(self, dim: int) -> None:
        """Raise NoRuleError unless `dim` is the channel dimension."""
        if dim % self.dim() != self.dim() - 1 or self.transposed:
            raise NoRuleError("a function along a dimension other than the last")

    # Arithmetic, by the rules of the torch functions.

    def __add__(self, other: Any) -> Any:
        return RULES[torch.add](self, other)

    def __mul__(self, other: Any) -> Any:
        return RULES[torch.mul](self, other)

    def __sub__(self, other: Any) -> Any:
        return RULES[torch.sub](self, other)

    def __truediv__(self, other: Any) -> Any:
        return RULES[torch.div](self, other)

    def __radd__(self, other: Any) -> Any:
        return RULES[torch.add](other, self)

    def __rmul__(self, other: Any) -> Any:
        return RULES[torch.mul](other, self)

    def __rsub__(self, other: Any) -> Any:
        return RULES[torch.sub](other, self)

    def __rtruediv__(self, other: Any) -> Any:
        return RULES[torch.div](other, self)

    def __neg__(self) -> Any:
        return RULES[torch.neg](self)

    def __pow__(self, exponent: Any) -> Any:
        return RULES[torch.pow](self, exponent)

    # Conversion.

    def dense(self) -> Tensor:
        """Return the tensor (*L, C) that this stands for. Its backward pass runs the tape."""
        if self.transposed:
            raise NoRuleError("the values of a transposed tensor")
        if not self.tape.recording:
            return torch.from_numpy(self.node.x[self.index].reshape(self.shape))
        dense: Tensor = _Dense.apply(torch.empty(0, requires_grad=True), self)  # type: ignore[no-untyped-call]
        return dense


class _Dense(torch.autograd.Function):
    """The dense tensor of a stand-in, whose backward pass runs the tape."""

    @staticmethod
    def forward(ctx: Any, _: Tensor, rows: Rows) -> Tensor:
        ctx.rows = rows
        return torch.from_numpy(rows.node.x[rows.index].reshape(rows.shape))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, None]:
        rows: Rows = ctx.rows
        X, B = rows.node.x.shape
        grads = np.ascontiguousarray(grad.contiguous().numpy().reshape(-1, B))
        index = np.ascontiguousarray(rows.index.reshape(-1))
        rows.node.add(kernels.scatter_add(grads, index, X))
        rows.tape.backward()
        return None, None


def gradient_of(node: Node) -> Floats:
    """Return the gradient of a node: zero if the loss does not depend on it."""
    return np.zeros_like(node.x) if node.grad is None else node.grad


def indexed(index: Integers, key: Any) -> Integers:
    """Return `index[key]` for a key of integers, slices, None and Ellipsis."""
    for each in key if isinstance(key, tuple) else (key,):
        if not (each is None or each is Ellipsis or isinstance(each, int | slice)):
            raise NoRuleError("indexing with a tensor or a list")
    part: Integers = index[key]
    return part


def same_memory(one: Integers, other: Integers) -> bool:
    """Return whether two arrays are views of the same memory with the same layout."""
    return one is other or (
        one.shape == other.shape
        and one.strides == other.strides
        and one.ctypes.data == other.ctypes.data
    )


def aligned(operands: Sequence[Rows]) -> list[Rows]:
    """Return the operands of an elementwise function with K = 1 and a common index.

    If their indices differ, the common index refers to the distinct combinations of rows, and the
    rows of each operand are repeated accordingly.
    """
    operands = [rows.single() for rows in operands]
    first = operands[0]
    if len({rows.transposed for rows in operands}) > 1:
        raise NoRuleError("a transposed tensor combined with another")
    if len({rows.node.x.shape[1] for rows in operands} - {1}) > 1:
        raise NoRuleError("tensors with different numbers of channels in one function")
    if all(same_memory(first.index, rows.index) for rows in operands):
        return list(operands)
    indices = np.broadcast_arrays(*(rows.index for rows in operands))
    tuples = np.stack([index.reshape(-1) for index in indices], axis=1)
    combinations, inverse = kernels.unique_rows(tuples)
    inverse = inverse.reshape(indices[0].shape)
    return [
        _repeated(rows, np.ascontiguousarray(combinations[:, i]), inverse)
        for i, rows in enumerate(operands)
    ]


def _repeated(rows: Rows, which: Integers, index: NDArray[np.int32]) -> Rows:
    """Return the rows `node.x[which]`, for `which` (U,), with a new index."""
    node, X = rows.node, len(rows.node.x)
    repeated = Node(node.x[which])

    def backward(grad: Floats) -> None:
        node.add(kernels.scatter_add(grad, which, X))

    rows.tape.record(repeated, backward)
    return Rows(repeated, index, rows.tape, rows.transposed)


def distinct(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Find the distinct rows of `rows` (N, K), integers, in order of first occurrence.

    Returns the distinct rows (U, K) and the inverse (N,), both int32, so that `found[inverse]`
    equals `rows`.
    """
    found, inverse = kernels.unique_rows(rows.int().contiguous().numpy())
    return torch.from_numpy(found), torch.from_numpy(inverse)
