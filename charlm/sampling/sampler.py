"""Sample names from a model, and compute the likelihood of names."""

import unicodedata
from collections.abc import Iterable, Sequence, Set
from itertools import chain, compress

import numpy as np
import torch
from torch import Tensor

from charlm.core.errors import InputError
from charlm.core.files import DECIMALS
from charlm.data.corpus import END, Corpus, Vocabulary, encode_stream
from charlm.data.splits import Part, Split
from charlm.data.windows import every_window
from charlm.fast.rows import distinct
from charlm.fast.running import CHUNK, Model, Runner, as_runner, evaluating, losses

AT_ONCE = 2**16
"""Number of names sampled or scored together: larger batches share more contexts."""


@torch.inference_mode()
def sample_names(
    model: Model,
    vocabulary: Vocabulary,
    count: int,
    *,
    block_size: int,
    generator: torch.Generator,
    temperature: float = 1.0,
    prefix: str | Sequence[str] = "",
    max_length: int = 30,
) -> list[str]:
    """Sample `count` names, adding one character to every unfinished name at a time.

    With several prefixes, each one is chosen in proportion to its probability, so the names follow
    the model's distribution over the names that begin with any of them. A prefix that begins with
    another one has no effect.

    The logits are divided by `temperature` before the softmax. Names are never empty: the end
    cannot be the first token. Apart from the names themselves, memory does not grow with `count`
    beyond `AT_ONCE`.

    Args:
        generator: a CPU generator. Sampling is done on the CPU, so the names do not depend on the
            model's device.
        prefix: text that every name begins with, in characters of `vocabulary` (after NFC), or
            several texts.
        max_length: names are cut at this many characters.

    Raises:
        InputError: a prefix has an unknown character or is longer than `max_length`.
    """
    texts = [unicodedata.normalize("NFC", text) for text in as_several(prefix)]
    every = {text: _encode_prefix(text, vocabulary, max_length) for text in texts}
    starts = [every[text] for text in outermost(texts)]
    begun = torch.tensor([len(start) for start in starts])  # (P,)
    # (P, T + length), with the padding
    beginnings = torch.full((len(starts), block_size + max_length), END)
    for row, start in zip(beginnings, starts, strict=True):
        row[block_size : block_size + len(start)] = torch.tensor(start)
    runner = as_runner(model)
    names = []
    with evaluating(runner.model):
        cumulated = _cumulated_prefixes(runner, block_size, beginnings, begun, temperature)
        for first in range(0, count, AT_ONCE):
            chosen = torch.zeros(min(AT_ONCE, count - first), dtype=torch.int64)
            if len(starts) > 1:
                chosen = draw(cumulated, chosen, generator)
            tokens = beginnings[chosen]
            _continue(runner, block_size, tokens, begun[chosen], temperature, generator)
            names += vocabulary.decode_all(tokens[:, block_size:].numpy())
    return names


def as_several(texts: str | Iterable[str]) -> list[str]:
    """Return one or several texts as a list.

    Raises InputError if there are none.
    """
    several = [texts] if isinstance(texts, str) else list(texts)
    if not several:
        raise InputError("the list of prefixes is empty; give a prefix, or omit the argument")
    return several


def outermost(prefixes: Iterable[str]) -> list[str]:
    """Return, sorted, the prefixes that do not begin with another. A name has at most one."""
    found: list[str] = []
    for prefix in sorted(prefixes):
        if not found or not prefix.startswith(found[-1]):
            found.append(prefix)
    return found


def _cumulated_prefixes(
    runner: Runner, block_size: int, beginnings: Tensor, begun: Tensor, temperature: float
) -> Tensor:
    """Return the cumulative probabilities (1, P) of the prefixes relative to each other, float64.

    Args:
        beginnings: (P, T + length) tokens.
        begun: (P,) the number of characters of each prefix.

    Raises InputError if there are several prefixes and all have a probability of 0.
    """
    T = block_size
    # Temperature times log-probability does not overflow, however low the temperature is.
    scaled = torch.zeros(len(begun), dtype=torch.float64)
    for here in range(T, T + int(begun.max()) if len(begun) > 1 else T):
        rows = torch.nonzero(begun > here - T).flatten()
        logits = _usable(logits_of(runner, beginnings[rows, here - T : here]), may_end=here > T)
        scaled[rows] += logits.gather(1, beginnings[rows, here, None]).squeeze(1)
        scaled[rows] -= temperature * logits.div(temperature).logsumexp(1)
    if scaled.isneginf().all():
        raise InputError("under the model, all prefixes have a probability of 0; give others")
    return _cumulated(scaled[None], temperature, may_end=True)


def _continue(
    runner: Runner,
    block_size: int,
    tokens: Tensor,
    begun: Tensor,
    temperature: float,
    generator: torch.Generator,
) -> None:
    """Complete the names in `tokens` (N, T + length), in place, after `begun` (N,) characters.

    The probabilities of each distinct context are computed once. Among 65,536 names, on average
    only a third of the contexts are distinct.
    """
    T = block_size
    rows = torch.empty(0, dtype=torch.int64)  # unfinished names
    for here in range(T + int(begun.min()), tokens.shape[1]):
        rows = torch.cat([rows, torch.nonzero(begun == here - T).flatten()])
        if len(rows) == 0:
            continue
        contexts, inverse = distinct(tokens[rows, here - T : here])
        logits = logits_of(runner, contexts)
        drawn = draw(_cumulated(logits, temperature, may_end=here > T), inverse, generator)
        tokens[rows, here] = drawn
        rows = rows[drawn != END]


def logits_of(runner: Runner, contexts: Tensor) -> Tensor:
    """Return logits (N, V) of any number of contexts (N, T), on the CPU."""
    return torch.cat(
        [runner.logits(part.to(runner.device)).cpu() for part in torch.split(contexts, CHUNK)]
    )


def _cumulated(logits: Tensor, temperature: float, may_end: bool) -> Tensor:
    """Return the cumulative probabilities (U, V), float64; the last one in each row is 1."""
    cumulated = _usable(logits, may_end).div_(temperature).exp_().cumsum(1)
    return cumulated.div_(cumulated[:, -1:].clone())


def _usable(logits: Tensor, may_end: bool) -> Tensor:
    """Return logits (U, V) minus their maximum, float64, so that no temperature overflows."""
    logits = logits.double()
    if not may_end:
        logits[:, END] = -torch.inf
    logits -= logits.amax(1, keepdim=True)
    return logits


def draw(cumulated: Tensor, rows: Tensor, generator: torch.Generator) -> Tensor:
    """Sample a token (N,) from each of `rows` (N,) of the cumulative probabilities (U, V).

    By inversion: the first token whose cumulative probability exceeds a uniform random number,
    which is a multiple of 2**-32. Row i is shifted to [i, i + 1], so that a single binary search
    does all rows.
    """
    U, V = cumulated.shape
    ends = (cumulated + torch.arange(U)[:, None]).flatten()
    uniform = torch.randint(2**32, rows.shape, generator=generator).double() / 2**32
    return torch.searchsorted(ends, rows + uniform, right=True) - rows * V


def name_log_likelihoods(
    model: Model, vocabulary: Vocabulary, names: Sequence[str], block_size: int
) -> Tensor:
    """Return the log-likelihood (len(names),), float64, of each name and its end, in nats.

    The names must not be empty and must consist of characters of `vocabulary`.
    """
    totals = torch.zeros(len(names), dtype=torch.float64)
    for first in range(0, len(names), AT_ONCE):
        corpus, each = _losses(model, vocabulary, names[first : first + AT_ONCE], block_size)
        names_of = torch.from_numpy(corpus.name_of_window())
        totals[first:].index_add_(0, names_of, -each)
    return totals


def character_log_likelihoods(
    model: Model, vocabulary: Vocabulary, names: Sequence[str], block_size: int
) -> list[tuple[float, ...]]:
    """Return the log-likelihoods (len(name) + 1,) of each name's characters and end, in nats.

    Each is conditional on the characters before it. Their sum is the log-likelihood of the name.
    """
    every: list[tuple[float, ...]] = []
    for first in range(0, len(names), AT_ONCE):
        some = names[first : first + AT_ONCE]
        _, each = _losses(model, vocabulary, some, block_size)
        parts = torch.split(-each, [len(name) + 1 for name in some])
        every += (tuple(part.tolist()) for part in parts)
    return every


def _losses(
    model: Model, vocabulary: Vocabulary, names: Sequence[str], block_size: int
) -> tuple[Corpus, Tensor]:
    """Return a corpus of `names` and the losses (W,) of its windows in nats, float64."""
    stream = encode_stream(names, vocabulary, block_size)
    corpus = Corpus(stream, vocabulary, block_size)
    runner = as_runner(model)
    return corpus, losses(runner, every_window(corpus).to(runner.device)).double()


def _encode_prefix(prefix: str, vocabulary: Vocabulary, max_length: int) -> list[int]:
    unknown = sorted(set(prefix) - set(vocabulary.characters))
    if unknown:
        raise InputError(
            f"{prefix!r} contains {', '.join(map(repr, unknown))}, which no name in the list "
            f"contains; the known characters are: {vocabulary.characters}"
        )
    if len(prefix) > max_length:
        raise InputError(
            f"{prefix!r} is longer than max_length ({max_length}); "
            "raise max_length or shorten the prefix"
        )
    return vocabulary.encode(prefix)


def training_names(corpus: Corpus, split: Split, among: Set[str]) -> set[str]:
    """Return the names in `among` with at least one window in the training set."""
    count, _ = corpus.count()
    seen = np.zeros(count, dtype=bool)
    for _, names, parts in split.parts(corpus):
        seen[names[parts == Part.TRAIN]] = True
    every = chain.from_iterable(corpus.name_chunks())
    return {name for name in compress(every, seen) if name in among}


def describe_samples(names: Sequence[str], known: set[str]) -> dict[str, float]:
    """Return the fraction of distinct names, and of names that are not in `known`."""
    return {
        "unique": round(len(set(names)) / len(names), DECIMALS),
        "novel": round(sum(name not in known for name in names) / len(names), DECIMALS),
    }
