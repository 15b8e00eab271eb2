"""Models that run in the reader's browser: their tensors, packed for the page.

`generator.js` is the forward pass; here is the same in NumPy. A model runs in the page only if both
compute it correctly: the forward pass reads all its tensors, and with the rounded tensors of the
page, generated names are as likely as in the pipeline. A model whose file was changed, to another
activation function for example, is left out although its tensors are the same.

N batch, T context length, C channels, V vocabulary, K orders of the counts.
"""

import base64
import json
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from charlm.data.checkpoint import Weights
from charlm.data.corpus import END

MOST = 5_000_000
"""Maximum numbers in a model: a larger one would take long to pack and not fit."""

COMPARED = 12
"""Names whose log-likelihoods are compared."""

TOLERANCE = 5e-3
"""Maximum difference of two log-likelihoods, in nats; the same as in `generator.js`."""

WIDTHS = ((3,), (2, 3))
"""Bytes per float to try, in order: as exact as float32; or less exact, if the model allows it."""

EPSILON = 1e-5

ORDERS = (2, 4)
"""The orders of the hybrid, apart from T."""

LEVELS = 8
"""The hybrid's levels of confidence for each length of a context."""

SUMS = ("totals", "taken")
"""Tables of the counts that a page does not need."""

RISING = ("children", "begins")
"""Tables of the counts that are stored as differences."""

Array = NDArray[Any]
Likelihoods = Mapping[str, float]
"""Log-likelihood of each name, including its end, in nats, as the pipeline computed it."""


class Candidate(NamedTuple):
    """A model that may run in a page, and the likelihoods that it must reproduce there."""

    weights: Weights
    likelihoods: Likelihoods


Live = dict[str, Any]
"""What `generator.js` reads, for JSON.

Keys: characters, of token 1, 2, ...; blockSize; tensors, each as in `Packed.to_json`; models, each
with title, architecture, members (the architectures of the members of a mixture), tensors (by name,
the index in the list of tensors) and compared: pairs of the tokens of a name and its
log-likelihood.
"""


def without_tensors(candidates: Sequence[Candidate]) -> Live:
    """Describe models, but not the tensors that they have. Raises IndexError if there are none."""
    first = candidates[0].weights
    return {
        "characters": list(first.vocabulary.characters),
        "blockSize": first.hyperparameters["block_size"],
        "tensors": [],
        "models": [_described(candidate) for candidate in candidates],
    }


def choose(candidates: Sequence[Candidate], room: int) -> Live | None:
    """Describe the models that a page can run and that fit; None if there are none.

    A tensor that several models share, like a mixture and its members, is stored once. Floats are
    as exact as float32 if all models fit with them.

    Args:
        candidates: models, best first. A model that does not fit makes room for later ones.
        room: maximum bytes of the tensors as JSON.
    """
    able = [candidate for candidate in candidates if _can_be_packed(candidate.weights)]
    texts: dict[Packed, str] = {}
    chosen: dict[int, Tensors] = {}
    for widths in WIDTHS:
        running = {n: its for n, model in enumerate(able) if (its := _packed(model, widths))}
        chosen = _fitting(running, room, texts)
        if len(chosen) == len(running):
            break
    if not chosen:
        return None
    live = without_tensors([able[number] for number in chosen])
    distinct = _distinct(chosen.values())
    for model, tensors in zip(live["models"], chosen.values(), strict=True):
        model["tensors"] = {name: distinct[its] for name, its in tensors.items()}
    return live | {"tensors": [json.loads(texts[its]) for its in distinct]}


def size(live: Live) -> int:
    """Return the bytes of the tensors as JSON, as limited by the room of `choose`."""
    return len(json.dumps(live["tensors"]))


def _packed(candidate: Candidate, widths: Sequence[int]) -> "Tensors | None":
    """Pack a model with the first number of bytes per float that it runs with."""
    weights, likelihoods = candidate
    for width in widths:
        tensors = {
            name: Packed.of(name, tensor, width)
            for name, tensor in sorted(weights.tensors.items())
            if _last(name) not in SUMS
        }
        rounded = {n: its.values.reshape(weights.tensors[n].shape) for n, its in tensors.items()}
        if runs(replace(weights, tensors=rounded), likelihoods):
            return tensors
    return None


def _fitting(
    running: "Mapping[int, Tensors]", room: int, texts: "dict[Packed, str]"
) -> "dict[int, Tensors]":
    """Select the models that fit, in order; the tensors of each as JSON are added to `texts`."""
    chosen: dict[int, Tensors] = {}
    for number, tensors in running.items():
        texts |= {its: its.to_json() for its in tensors.values() if its not in texts}
        taken = _distinct([*chosen.values(), tensors])
        if sum(len(texts[its]) + len(", ") for its in taken) <= room:
            chosen[number] = tensors
    return chosen


def _distinct(models: "Iterable[Tensors]") -> "dict[Packed, int]":
    """Return the distinct tensors of models, each with its index."""
    every = dict.fromkeys(its for tensors in models for its in tensors.values())
    return {its: number for number, its in enumerate(every)}


def _described(candidate: Candidate) -> dict[str, Any]:
    weights, likelihoods = candidate
    return {
        "title": weights.title,
        "architecture": weights.architecture,
        "members": _members(weights),
        "compared": [[weights.vocabulary.encode(name), its] for name, its in likelihoods.items()],
    }


def runs(weights: Weights, likelihoods: Likelihoods) -> bool:
    """Return whether the forward pass described here is the model's."""
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
    """A tensor as a page stores it: low + step * integers, or the running sums of these.

    A float is rounded to the nearest step; counts are exact.

    Attributes:
        data: the lowest bytes of all integers, then the next bytes, and so on: this deflates well.
        size: number of integers; they are not negative.
        width: bytes per integer.
        rising: whether to take running sums.
    """

    data: bytes
    size: int
    width: int
    low: float
    step: float
    rising: bool

    @classmethod
    def of(cls, name: str, tensor: Array, width: int) -> "Packed":
        """Pack a tensor, its floats in integers of `width` bytes."""
        rising = _last(name) in RISING and tensor.ndim == 1
        numbers = (np.diff(tensor, prepend=0) if rising else tensor).astype("f8")
        low, high = float(numbers.min(initial=0)), float(numbers.max(initial=0))
        floats = tensor.dtype.kind == "f" and low < high
        step = (high - low) / (256**width - 1) if floats else 1.0
        integers = np.rint((numbers - low) / step).astype("<i8")
        width = (int(integers.max(initial=1)).bit_length() + 7) // 8
        octets = integers.reshape(-1, 1).view("u1")
        return cls(octets[:, :width].T.tobytes(), tensor.size, width, low, step, rising)

    @property
    def values(self) -> Array:
        """The numbers (size,) that the page computes with."""
        octets = np.frombuffer(self.data, "u1").reshape(self.width, self.size)
        integers = 256.0 ** np.arange(self.width) @ octets
        numbers: Array = self.low + self.step * integers
        return numbers.cumsum() if self.rising else numbers

    def to_json(self) -> str:
        """Return the attributes as JSON, with the data deflated and in base64."""
        deflated = base64.b64encode(zlib.compress(self.data, 9)).decode()
        return json.dumps(vars(self) | {"data": deflated})


Tensors = Mapping[str, Packed]


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
