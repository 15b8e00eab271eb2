"""A model that runs in the reader's browser: its tensors, packed for the page.

`generator.js` is the forward pass; here is the same in NumPy. Only a model that both compute right
may run: its tensors are those that the forward pass reads, and names that it generated are as
likely, by the rounded tensors of the page, as the pipeline found them. So a model whose file was
changed, to another activation function for instance, is left out, though its tensors are the same.

N batch, T context length, C channels, V vocabulary, K orders of the counts.
"""

import base64
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlm.data.checkpoint import Weights
from charlm.data.corpus import END

MOST = 5_000_000
"""Numbers of a model that is tried: more would take long to pack, and not fit."""

COMPARED = 12
"""Names whose log-likelihoods are compared."""

TOLERANCE = 1e-3
"""How far apart rounding can leave two log-likelihoods, in nats; `generator.js` has it too."""

WIDTHS = (3, 2)
"""Bytes of a float: as exact as float32, and less so."""

EPSILON = 1e-5

ORDERS = (2, 4)
"""Those of the hybrid, apart from T."""

LEVELS = 8
"""The hybrid's levels of confidence for each length of a context."""

SUMS = ("totals", "taken")
"""Tables of the counts that a page does without."""

RISING = ("children", "begins")
"""Tables of the counts of which a page has the differences."""

Array = NDArray[Any]
Likelihoods = Mapping[str, float]
"""Log-likelihoods by name, each with its end, in nats, as the pipeline computed them."""


def able(models: Iterable[tuple[Weights, Likelihoods]]) -> Iterator[dict[str, Any]]:
    """Describe each of the models that a page can run, in their order: exact, then in fewer bytes.

    Yields what `generator.js` builds the model from, for JSON. Keys: title; architecture; members,
    the architectures of those of a mixture; characters, of token 1, 2, ...; blockSize; tensors, as
    `Packed` has them, each with its name, size and offset in the data; data (deflated, base64);
    compared: pairs of the tokens of a name and its log-likelihood.
    """
    for weights, likelihoods in models:
        for width in WIDTHS if _can_be_packed(weights) else ():
            packed = {
                name: Packed.of(name, tensor, width)
                for name, tensor in sorted(weights.tensors.items())
                if _last(name) not in SUMS
            }
            rounded = {name: its.values for name, its in packed.items()}
            if runs(replace(weights, tensors=rounded), likelihoods):
                yield _described(weights, packed, likelihoods)


def _described(
    weights: Weights, packed: "Mapping[str, Packed]", likelihoods: Likelihoods
) -> dict[str, Any]:
    tensors, data = [], b""
    for name, its in packed.items():
        place = {"name": name, "offset": len(data), "size": its.integers.size}
        scale = {"width": its.width, "low": its.low, "step": its.step, "rising": its.rising}
        tensors.append(place | scale)
        data += its.data
    return {
        "title": weights.title,
        "architecture": weights.architecture,
        "members": _members(weights),
        "characters": list(weights.vocabulary.characters),
        "blockSize": weights.hyperparameters["block_size"],
        "tensors": tensors,
        "data": base64.b64encode(zlib.compress(data, 9)).decode(),
        "compared": [[weights.vocabulary.encode(name), its] for name, its in likelihoods.items()],
    }


def runs(weights: Weights, likelihoods: Likelihoods) -> bool:
    """Whether the forward pass described here is the model's."""
    read: set[str] = set()
    try:
        found = [log_likelihood(weights, name, read) for name in likelihoods]
    except (KeyError, IndexError, ValueError, TypeError):
        return False
    unread = {name for name in weights.tensors if _last(name) not in SUMS} - read
    differences = np.abs(np.array(found) - list(likelihoods.values()))
    return bool(found) and not unread and bool((differences < TOLERANCE).all())


@np.errstate(all="ignore")
def log_likelihood(weights: Weights, name: str, read: set[str] | None = None) -> float:
    """Return the log-likelihood of a name and its end, in nats; `read` as in `logits`."""
    size = weights.hyperparameters["block_size"]
    tokens = np.array([*[END] * size, *weights.vocabulary.encode(name), END])
    contexts = np.lib.stride_tricks.sliding_window_view(tokens[:-1], size)  # (N, T)
    probabilities = _softmax(logits(weights, contexts, read))
    return float(np.log(probabilities[np.arange(len(contexts)), tokens[size:]]).sum())


@np.errstate(all="ignore")
def logits(weights: Weights, contexts: Array, read: set[str] | None = None) -> Array:
    """Logits (N, V) in float64 of contexts (N, T); the names of the tensors are added to `read`.

    Raises KeyError, IndexError, ValueError or TypeError if they are not the architecture's.
    """
    read = set() if read is None else read
    part = Part(weights.tensors, read, len(weights.vocabulary), _members(weights))
    found = FORWARD[weights.architecture](part, contexts)
    if found.shape[1] != len(weights.vocabulary):
        raise ValueError("not a logit for each token")
    return found


@dataclass(frozen=True)
class Packed:
    """A tensor as a page has it: low + step * integers, or the sums of these up to each.

    A float is rounded to the nearest step; counts are exact.

    Attributes:
        integers: not negative, in the shape of the tensor.
        width: bytes of an integer.
        rising: whether it is the sums.
    """

    integers: NDArray[np.int64]
    low: float
    step: float
    width: int
    rising: bool

    @classmethod
    def of(cls, name: str, tensor: Array, width: int) -> "Packed":
        """Pack a tensor, its floats in integers of `width` bytes."""
        rising = _last(name) in RISING and tensor.ndim == 1
        numbers = (np.diff(tensor, prepend=0) if rising else tensor).astype("f8")
        low, high = float(numbers.min(initial=0)), float(numbers.max(initial=0))
        floats = tensor.dtype.kind == "f" and low < high
        step = (high - low) / (256**width - 1) if floats else 1.0
        integers = np.rint((numbers - low) / step).astype("i8")
        width = (int(integers.max(initial=1)).bit_length() + 7) // 8
        return cls(integers, low, step, width, rising)

    @property
    def data(self) -> bytes:
        """The lowest bytes of all integers, then the next ones, and so on: these deflate well."""
        octets = self.integers.astype("<i8").reshape(-1, 1).view("u1")
        return octets[:, : self.width].T.tobytes()

    @property
    def values(self) -> Array:
        numbers: Array = self.low + self.step * self.integers
        return numbers.cumsum() if self.rising else numbers


def _can_be_packed(weights: Weights) -> bool:
    tensors = weights.tensors.values()
    return sum(its.size for its in tensors) <= MOST and all(
        np.isfinite(its).all() for its in tensors
    )


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def _members(weights: Weights) -> list[str]:
    """Return the architectures of the members of a mixture."""
    mixed = weights.architecture == "mixture"
    return [architecture for architecture, _ in weights.hyperparameters["members"]] if mixed else []


# The forward pass.


@dataclass(frozen=True)
class Part:
    """A model, or the part of one whose tensors' names begin with `prefix`.

    Attributes:
        read: the names of the tensors that were asked for.
    """

    tensors: Mapping[str, Array]
    read: set[str]
    vocab_size: int
    members: Sequence[str] = ()
    prefix: str = ""

    def part(self, name: str) -> "Part":
        return replace(self, prefix=f"{self.prefix}{name}.")

    def __contains__(self, name: str) -> bool:
        return self.prefix + name in self.tensors

    def __getitem__(self, name: str) -> Array:
        self.read.add(self.prefix + name)
        return self.tensors[self.prefix + name]

    def linear(self, x: Array, layer: str) -> Array:
        found: Array = x @ self[f"{layer}.weight"].T + self[f"{layer}.bias"]
        return found

    def tanh(self, x: Array, layer: str, norm: str) -> Array:
        """Apply a linear layer, layer normalization if there is any, and tanh."""
        x = self.linear(x, layer)
        if f"{norm}.weight" in self:
            x = x - x.mean(-1, keepdims=True)
            size = np.sqrt((x**2).mean(-1, keepdims=True) + EPSILON)
            x = x / size * self[f"{norm}.weight"] + self[f"{norm}.bias"]
        return np.tanh(x)

    def rms_norm(self, x: Array, norm: str) -> Array:
        size = np.sqrt((x**2).mean(-1, keepdims=True) + EPSILON)
        found: Array = x / size * self[f"{norm}.weight"]
        return found


def _softmax(scores: Array) -> Array:
    exps = np.exp(scores - scores.max(axis=-1, keepdims=True))
    found: Array = exps / exps.sum(axis=-1, keepdims=True)
    return found


def _fcn(model: Part, contexts: Array) -> Array:
    x = model["embedding.weight"][contexts]  # (N, T, C)
    return model.linear(model.tanh(x.reshape(len(x), -1), "hidden", "norm"), "output")


def _wavenet(model: Part, contexts: Array) -> Array:
    x = model["embedding.weight"][contexts]  # (N, T, C)
    for level in range(_levels(contexts)):
        N, T, C = x.shape
        x = model.tanh(x.reshape(N, T // 2, 2 * C), f"tree.{level}", f"norms.{level}")
    return model.linear(x[:, 0], "output")


def _compact(model: Part, contexts: Array) -> Array:
    return _tied(model, _features(model, contexts))


def _features(model: Part, contexts: Array) -> Array:
    """Return features (N, C) of a compact WaveNet."""
    x = model["embedding.weight"][contexts]  # (N, T, C)
    levels = _levels(contexts)
    for level in range(levels):
        N, T, C = x.shape
        pairs = model.rms_norm(x, f"norms.{level}").reshape(N, T // 2, 2 * C)
        layer = level if f"value.{level}.weight" in model else 0
        value, gate = (model.linear(pairs, f"{name}.{layer}") for name in ("value", "gate"))
        x = x[:, 1::2] + value * gate
    return model.rms_norm(x[:, 0], f"norms.{levels}")


def _tied(model: Part, features: Array) -> Array:
    """Return logits (N, V) by the embedding of a compact WaveNet."""
    found: Array = features @ model["embedding.weight"].T + model["bias"]
    return found


def _kneser_ney(model: Part, contexts: Array) -> Array:
    log_probs, _ = _look_up(model, contexts, [contexts.shape[1]])
    return log_probs[:, 0]


def _hybrid(model: Part, contexts: Array) -> Array:
    T = contexts.shape[1]
    orders = [*(order for order in ORDERS if order < T), T]
    log_probs, level = _look_up(model.part("counts"), contexts, orders)
    roots = np.exp(0.5 * log_probs).reshape(len(contexts), -1)  # (N, K V)
    each: list[Array] = []
    while f"corrections.{len(each)}.trust.weight" in model:
        part = model.part(f"corrections.{len(each)}")
        each.append(_correction(part, contexts, log_probs, roots, level))
    if len(each) == 1:
        return each[0]
    found: Array = np.log(np.mean([*map(_softmax, each)], axis=0))
    return found


def _correction(
    model: Part, contexts: Array, log_probs: Array, roots: Array, level: Array
) -> Array:
    """Return the logits (N, V) of a member of the hybrid."""
    net = model.part("net")
    x = _features(net, contexts) + model["level.weight"][level]  # (N, C)
    value, gate = (
        model.linear(x, f"{layer}.0") + model.linear(roots, f"{layer}.1")
        for layer in ("value", "gate")
    )
    x = x + value * gate
    trust = model.linear(x, "trust")  # (N, K)
    found: Array = _tied(net, x) + (trust[:, :, None] * log_probs).sum(axis=1)
    return found


def _look_up(counts: Part, contexts: Array, orders: Sequence[int]) -> tuple[Array, Array]:
    """Return log-probabilities (N, K, V) by contexts of up to K orders, and a confidence (N,).

    As `charlm.models.kneser_ney.look_up`.
    """
    children, front, begins, tokens, n = (
        counts[name].astype("i8") for name in ("children", "front", "begins", "tokens", "counts")
    )
    V, discounts = counts.vocab_size, counts["discounts"]
    probs = np.empty((len(contexts), len(orders), V))
    confidence = np.zeros(len(contexts), dtype="i8")
    for row, context in enumerate(contexts):
        chances, by_length, node = np.full(V, 1 / V), [], 0
        for length, its in enumerate(discounts):
            if length:
                first, last = children[node : node + 2]
                node = first + np.searchsorted(front[first:last], context[-length])
                if node == last or front[node] != context[-length]:
                    break
            entries = slice(begins[node], begins[node + 1])
            total = int(n[entries].sum())
            if total:
                taken = its[np.minimum(n[entries], 3) - 1]
                chances = chances * (taken.sum() / total)
                chances[tokens[entries]] += (n[entries] - taken) / total
                confidence[row] = LEVELS * length + min(total.bit_length(), LEVELS) - 1
            by_length.append(chances)
        probs[row] = [by_length[min(order, len(by_length) - 1)] for order in orders]
    return np.log(probs), confidence


def _mixture(model: Part, contexts: Array) -> Array:
    members = [
        _softmax(FORWARD[architecture](model.part(f"members.{number}"), contexts))
        for number, architecture in enumerate(model.members)
    ]
    found: Array = np.log(np.einsum("m,mnv->nv", model["weights"], np.array(members)))
    return found


def _levels(contexts: Array) -> int:
    """Return the number of levels of pairs."""
    return int(contexts.shape[1]).bit_length() - 1


FORWARD: dict[str, Callable[[Part, Array], Array]] = {
    "fcn": _fcn,
    "wavenet": _wavenet,
    "compact": _compact,
    "kneser_ney": _kneser_ney,
    "hybrid": _hybrid,
    "mixture": _mixture,
}
"""The logits (N, V) of each architecture that `generator.js` can run, for contexts (N, T)."""
