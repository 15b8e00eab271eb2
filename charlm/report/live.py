"""A model small enough to run in the reader's browser: its weights, and how they are put together.

`generator.js` is the forward pass.
"""

import base64
from collections.abc import Callable, Mapping
from typing import Any

from charlm.data.checkpoint import Weights

LARGEST = 160_000
"""Parameters that a page may carry: 4 bytes each, and a third more as text."""

Layer = dict[str, Any]


def smallest(weights: Mapping[str, Weights]) -> Weights | None:
    """The model with the fewest parameters, of those that `generator.js` can run; None if none."""
    able = [its for its in weights.values() if its.architecture in LEVELS]
    fewest = min(able, key=_parameters, default=None)
    return fewest if fewest and _parameters(fewest) <= LARGEST else None


def description(weights: Weights) -> dict[str, Any]:
    """What `generator.js` builds the model from, for JSON.

    Keys: title; characters, of token 1, 2, ...; blockSize; levels, from the embedding to a single
    row, and output: each with the names of its tensors; tensors: name to shape and place among the
    float32 numbers of weights (little-endian, base64).
    """
    tensors, place = {}, 0
    for name, tensor in sorted(weights.tensors.items()):
        tensors[name] = {"place": place, "shape": list(tensor.shape)}
        place += tensor.size
    numbers = b"".join(its.astype("<f4").tobytes() for _, its in sorted(weights.tensors.items()))
    *levels, output = LEVELS[weights.architecture](weights)
    return {
        "title": weights.title,
        "characters": list(weights.vocabulary.characters),
        "blockSize": weights.hyperparameters["block_size"],
        "levels": levels,
        "output": output,
        "tensors": tensors,
        "weights": base64.b64encode(numbers).decode(),
    }


def _parameters(weights: Weights) -> int:
    return sum(tensor.size for tensor in weights.tensors.values())


def _joined_tanh(name: str, arity: int, weights: Weights) -> Layer:
    """A `charlm.fast.linear.JoinedTanh`."""
    norm = f"{name}.norm" if f"{name}.norm.weight" in weights.tensors else None
    return {"arity": arity, "layer": name, "layerNorm": norm}


OUTPUT = {"weight": "output.weight", "bias": "output.bias"}


def _fcn(weights: Weights) -> list[Layer]:
    return [_joined_tanh("hidden", weights.hyperparameters["block_size"], weights), OUTPUT]


def _wavenet(weights: Weights) -> list[Layer]:
    depth = _depth(weights)
    levels = [_joined_tanh(f"tree.{level}", 2, weights) for level in range(depth)]
    return [*levels, OUTPUT]


def _compact(weights: Weights) -> list[Layer]:
    depth = _depth(weights)
    levels = [{"arity": 2, "gated": "join", "rmsNorm": f"norms.{level}"} for level in range(depth)]
    output = {"weight": "embedding.weight", "bias": "bias", "rmsNorm": f"norms.{depth}"}
    return [*levels, output]


def _depth(weights: Weights) -> int:
    """How many levels of pairs there are."""
    size: int = weights.hyperparameters["block_size"]
    return size.bit_length() - 1


LEVELS: dict[str, Callable[[Weights], list[Layer]]] = {
    "fcn": _fcn,
    "wavenet": _wavenet,
    "compact": _compact,
}
"""The levels and the output layer of each architecture that `generator.js` can run."""
