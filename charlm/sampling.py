"""Inventing names, and telling how likely a name is."""

import unicodedata
from collections.abc import Sequence
from itertools import chain, compress

import torch
from torch import Tensor

from charlm.corpus import END, Corpus, Vocabulary, Windows, encode_stream
from charlm.errors import InputError
from charlm.evaluation import DECIMALS, score
from charlm.models.base import LanguageModel
from charlm.splits import Part, Split


@torch.inference_mode()
def sample_names(
    model: LanguageModel,
    vocabulary: Vocabulary,
    count: int,
    *,
    generator: torch.Generator,
    temperature: float = 1.0,
    prefix: str = "",
    max_length: int = 30,
) -> list[str]:
    """Draw `count` names at once, a character of every unfinished name at a time.

    The logits are divided by `temperature` before the softmax. No name is empty,
    as none in the list is: the end cannot be drawn as the first character.

    Args:
        generator: a CPU generator; the draws are made on the CPU, so that they are
            the same wherever the model is.
        prefix: what every name starts with, in characters of `vocabulary` (after NFC).
        max_length: a name that has reached this many characters ends there.

    Raises:
        InputError: `prefix` holds an unknown character or is longer than `max_length`.
    """
    start = _encode_prefix(unicodedata.normalize("NFC", prefix), vocabulary, max_length)
    device = next(model.parameters()).device
    model.eval()
    tokens = torch.full((count, model.block_size + max_length), END)  # (N, T + length)
    tokens[:, model.block_size : model.block_size + len(start)] = torch.tensor(start)
    unfinished = torch.arange(count)
    for position in range(len(start), max_length):
        contexts = tokens[unfinished, position : position + model.block_size]  # (N, T)
        logits = model(contexts.to(device)).cpu().double()  # (N, V)
        if position == 0:
            logits[:, END] = -torch.inf
        logits -= logits.amax(1, keepdim=True)  # no temperature, however low, overflows then
        probabilities = (logits / temperature).softmax(1)
        drawn = torch.multinomial(probabilities, 1, generator=generator).squeeze(1)
        tokens[unfinished, model.block_size + position] = drawn
        unfinished = unfinished[drawn != END]
        if len(unfinished) == 0:
            break
    return [vocabulary.decode(name) for name in tokens[:, model.block_size :].tolist()]


def name_log_likelihoods(
    model: LanguageModel, vocabulary: Vocabulary, names: Sequence[str]
) -> Tensor:
    """(len(names),) float64: the log-likelihood of each whole name, its end included, in nats.

    The names must not be empty and must consist of characters of `vocabulary`.
    """
    stream = encode_stream(names, vocabulary, model.block_size)
    corpus = Corpus(stream, vocabulary, model.block_size)
    device = next(model.parameters()).device
    windows: Windows = corpus.windows().to(device)
    losses, _ = score(model, windows)
    totals = torch.zeros(len(names), dtype=torch.float64)
    return totals.index_add(0, corpus.name_of_window(), -losses.cpu().double())


def _encode_prefix(prefix: str, vocabulary: Vocabulary, max_length: int) -> list[int]:
    unknown = sorted(set(prefix) - set(vocabulary.characters))
    if unknown:
        raise InputError(
            f"{prefix!r} holds {', '.join(map(repr, unknown))}, which no name in the list "
            f"does; the known characters are: {vocabulary.characters}"
        )
    if len(prefix) > max_length:
        raise InputError(
            f"{prefix!r} is longer than max_length, {max_length}; raise that or shorten it"
        )
    return vocabulary.encode(prefix)


def training_names(corpus: Corpus, split: Split) -> set[str]:
    """The names of which at least one window is in the training part of a split."""
    count, _ = corpus.count()
    seen = torch.zeros(count, dtype=torch.bool)
    for _, names, parts in split.parts(corpus):
        seen[names[parts == Part.TRAIN]] = True
    every = chain.from_iterable(corpus.name_chunks())
    return set(compress(every, seen.numpy()))


def describe_samples(names: Sequence[str], known: set[str]) -> dict[str, float]:
    """Shares of distinct names and of names not in `known`, and the mean length in characters."""
    return {
        "unique": round(len(set(names)) / len(names), DECIMALS),
        "novel": round(sum(name not in known for name in names) / len(names), DECIMALS),
        "mean_length": round(sum(map(len, names)) / len(names), DECIMALS),
    }
