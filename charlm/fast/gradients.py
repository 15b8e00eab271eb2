"""The gradients of a tree of tanh layers, written out.

What `backward()` comes to, to the last bit, without the records that torch keeps of every
operation, which take a third of the time of a step as small as these. For a model that is nothing
but an embedding, levels of `JoinedTanh` and an output layer, in float32 on a CPU. Measured gain:
EXPERIMENTS.md, 2026-11-25.
"""

import torch
from torch import Tensor

from charlm.fast import kernels
from charlm.fast.devices import for_numpy
from charlm.fast.linear import affine, affine_backward, as_torch
from charlm.fast.losses import cross_entropy, cross_entropy_backward
from charlm.fast.sharing import TableJoin
from charlm.models.base import LanguageModel


class TreeGradients:
    """Computes the loss of a batch, and leaves the gradients where an optimizer looks for them.

    Raises ValueError for a model that has other layers (see `LanguageModel.layers`).
    """

    def __init__(self, model: LanguageModel) -> None:
        layers = model.layers()
        if layers is None or not layers.plain:
            raise ValueError(f"{type(model).__name__} has other layers")
        self._share = model.share
        self._embedding, self._output = layers.embedding.weight, layers.output
        self._levels = layers.levels
        # The numbers themselves, which stay in place when they are changed.
        self._numbers = [
            [parameter.detach().numpy() for parameter in layer.parameters()]
            for layer in (layers.embedding, *layers.levels, layers.output)
        ]

    @staticmethod
    def suit(model: LanguageModel) -> bool:
        """Whether they are all of its: float32 on a CPU, no other layers, none frozen."""
        learns = all(parameter.requires_grad for parameter in model.parameters())
        layers = model.layers()
        plain = layers is not None and layers.plain
        return learns and plain and for_numpy(model.embedding.weight)

    @as_torch
    def __call__(self, contexts: Tensor, targets: Tensor, of_each: float) -> Tensor:
        """The loss of contexts (N, T) and targets (N,) in sum, in nats: a float64.

        Args:
            of_each: what the gradients count each of the N losses by.
        """
        (x,), *levels, (weight, bias) = self._numbers
        shared = self._share(contexts)
        saved = []
        for numbers, join in zip(levels, shared.joins, strict=True):
            assert isinstance(join, TableJoin)
            where = (join.entries, join.begins, join.places)
            rows = len(x)
            x, *between = kernels.joined_tanh(x, *numbers, *where)
            saved.append((x, *between, *where, rows))
        its = shared.place.numpy(), targets.contiguous().numpy()
        loss, of_loss = cross_entropy(affine(x, weight, bias), *its)

        grad = cross_entropy_backward(of_each, of_loss)
        grad, grad_weight, grad_bias = affine_backward(grad, x, weight)
        self._output.weight.grad = torch.from_numpy(grad_weight)
        self._output.bias.grad = torch.from_numpy(grad_bias)
        for level, between in zip(reversed(self._levels), reversed(saved), strict=True):
            grad, grad_weight, grad_bias = kernels.joined_tanh_backward(grad, *between)
            level.weight.grad = torch.from_numpy(grad_weight)
            level.bias.grad = torch.from_numpy(grad_bias)
        self._embedding.grad = torch.from_numpy(grad)
        return torch.tensor(loss, dtype=torch.float64)
