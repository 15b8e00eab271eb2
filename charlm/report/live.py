"""A model small enough to run in the reader's browser: its weights, and how they are put together.

`generator.js` is the forward pass; here is the same in NumPy. Only a model that both compute right
may run: its tensors are those that the description names, and names that it generated are as likely
as the pipeline found them. So a model whose file was changed, to another activation function for
instance, is left out, though its tensors are the same.
"""

import base64
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlm.data.checkpoint import Weights
from charlm.data.corpus import END

LARGEST = 160_000
"""Parameters that a page may carry: 4 bytes each, and a third more as text."""

COMPARED = 12
"""Names whose log-likelihoods are compared."""

TOLERANCE = 1e-3
"""How far apart rounding can leave two log-likelihoods, in nats; `generator.js` has it too."""

EPSILON = 1e-5

Layer = dict[str, Any]
Array = NDArray[np.floating]
Likelihoods = Mapping[str, float]
"""Log-likelihoods by name, each with its end, in nats, as the pipeline computed them."""


def chosen(models: Mapping[str, tuple[Weights, Likelihoods]]) -> dict[str, Any] | None:
    """Describe the smallest of the models that a page can run; None if it can run none."""
    by_size = sorted(models.values(), key=lambda its: _parameters(its[0]))
    for weights, likelihoods in by_size:
        if _parameters(weights) <= LARGEST and runs(weights, likelihoods):
            return description(weights, likelihoods)
    return None


def runs(weights: Weights, likelihoods: Likelihoods) -> bool:
    """Whether the forward pass described here is the model's."""
    if weights.architecture not in LEVELS or not likelihoods:
        return False
    try:
        expected = dict(_shapes(weights))
    except (KeyError, IndexError):
        return False
    if expected != {name: tensor.shape for name, tensor in weights.tensors.items()}:
        return False
    differences = [abs(log_likelihood(weights, name) - its) for name, its in likelihoods.items()]
    return all(difference < TOLERANCE for difference in differences)


def description(weights: Weights, likelihoods: Likelihoods) -> dict[str, Any]:
    """Return what `generator.js` builds the model from, for JSON.

    Keys: title; characters, of token 1, 2, ...; blockSize; levels, from the embedding to a single
    row, and output: each with the names of its tensors; tensors: name to shape and offset in
    weights (float32, little-endian, base64); compared: pairs of the tokens of a name and
    its log-likelihood.
    """
    tensors, offset = {}, 0
    for name, tensor in sorted(weights.tensors.items()):
        tensors[name] = {"offset": offset, "shape": list(tensor.shape)}
        offset += tensor.size
    values = b"".join(its.astype("<f4").tobytes() for _, its in sorted(weights.tensors.items()))
    *levels, output = LEVELS[weights.architecture](weights)
    return {
        "title": weights.title,
        "characters": list(weights.vocabulary.characters),
        "blockSize": weights.hyperparameters["block_size"],
        "levels": levels,
        "output": output,
        "tensors": tensors,
        "weights": base64.b64encode(values).decode(),
        "compared": [[weights.vocabulary.encode(name), its] for name, its in likelihoods.items()],
    }


def log_likelihood(weights: Weights, name: str) -> float:
    """Return the log-likelihood of a name and its end, in nats."""
    size = weights.hyperparameters["block_size"]
    tokens = np.array([*[END] * size, *weights.vocabulary.encode(name), END])
    contexts = np.lib.stride_tricks.sliding_window_view(tokens[:-1], size)  # (N, T)
    scores = logits(weights, contexts)
    scores -= scores.max(axis=1, keepdims=True)
    targets = scores[np.arange(len(contexts)), tokens[size:]]
    return float((targets - np.log(np.exp(scores).sum(axis=1))).sum())


def logits(weights: Weights, contexts: NDArray[np.integer]) -> Array:
    """Logits (N, V) in float64 of contexts (N, T)."""
    tensors: dict[str, Any] = {name: its.astype("f8") for name, its in weights.tensors.items()}

    def linear(x: Any, layer: str) -> Any:
        return x @ tensors[f"{layer}.weight"].T + tensors[f"{layer}.bias"]

    def rms_norm(x: Any, norm: str) -> Any:
        size = np.sqrt((x**2).mean(-1, keepdims=True) + EPSILON)
        return x / size * tensors[f"{norm}.weight"]

    def layer_norm(x: Any, norm: str) -> Any:
        centered = x - x.mean(-1, keepdims=True)
        size = np.sqrt((centered**2).mean(-1, keepdims=True) + EPSILON)
        return centered / size * tensors[f"{norm}.weight"] + tensors[f"{norm}.bias"]

    *levels, output = LEVELS[weights.architecture](weights)
    x = tensors["embedding.weight"][contexts]  # (N, T, C)
    for level in levels:
        N, T, C = x.shape
        K = level["arity"]
        if "gate" in level:
            pairs = rms_norm(x, level["rmsNorm"]).reshape(N, T // K, K * C)
            gated = linear(pairs, level["value"]) * linear(pairs, level["gate"])
            x = x[:, K - 1 :: K] + gated
        else:
            y = linear(x.reshape(N, T // K, K * C), level["layer"])
            x = np.tanh(layer_norm(y, level["layerNorm"]) if level["layerNorm"] else y)
    x = x[:, 0]
    if "rmsNorm" in output:
        x = rms_norm(x, output["rmsNorm"])
    found: Array = x @ tensors[output["weight"]].T + tensors[output["bias"]]
    return found


def _parameters(weights: Weights) -> int:
    return sum(tensor.size for tensor in weights.tensors.values())


def _shapes(weights: Weights) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield the name and shape of each tensor that the description asks for.

    Raises KeyError or IndexError if there is no tensor to take a width from.
    """
    *levels, output = LEVELS[weights.architecture](weights)
    V, C = len(weights.vocabulary), weights.tensors["embedding.weight"].shape[1]
    yield "embedding.weight", (V, C)
    for level in levels:
        inputs = level["arity"] * C
        if "gate" in level:
            layers = [level["value"], level["gate"]]
            yield f"{level['rmsNorm']}.weight", (C,)
        else:
            layers = [level["layer"]]
            C = weights.tensors[f"{layers[0]}.weight"].shape[0]
            for kind in ("weight", "bias") if level["layerNorm"] else ():
                yield f"{level['layerNorm']}.{kind}", (C,)
        for layer in layers:
            yield f"{layer}.weight", (C, inputs)
            yield f"{layer}.bias", (C,)
    yield output["weight"], (V, C)
    yield output["bias"], (V,)
    if "rmsNorm" in output:
        yield f"{output['rmsNorm']}.weight", (C,)


def _tanh(layer: str, norm: str, arity: int, weights: Weights) -> Layer:
    """Describe a linear layer, layer normalization if there is any, and tanh."""
    normalized = f"{norm}.weight" in weights.tensors
    return {"arity": arity, "layer": layer, "layerNorm": norm if normalized else None}


OUTPUT = {"weight": "output.weight", "bias": "output.bias"}


def _fcn(weights: Weights) -> list[Layer]:
    return [_tanh("hidden", "norm", weights.hyperparameters["block_size"], weights), OUTPUT]


def _wavenet(weights: Weights) -> list[Layer]:
    depth = _depth(weights)
    levels = [_tanh(f"tree.{level}", f"norms.{level}", 2, weights) for level in range(depth)]
    return [*levels, OUTPUT]


def _compact(weights: Weights) -> list[Layer]:
    depth = _depth(weights)
    gated = {"arity": 2, "value": "value", "gate": "gate"}
    levels = [{**gated, "rmsNorm": f"norms.{level}"} for level in range(depth)]
    output = {"weight": "embedding.weight", "bias": "bias", "rmsNorm": f"norms.{depth}"}
    return [*levels, output]


def _depth(weights: Weights) -> int:
    """Return the number of levels of pairs."""
    size: int = weights.hyperparameters["block_size"]
    return size.bit_length() - 1


LEVELS: dict[str, Callable[[Weights], list[Layer]]] = {
    "fcn": _fcn,
    "wavenet": _wavenet,
    "compact": _compact,
}
"""The levels and the output layer of each architecture that `generator.js` can run."""
