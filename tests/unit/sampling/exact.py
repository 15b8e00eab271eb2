"""A model so small that all its names and their probabilities can be listed."""

import itertools
from collections import Counter

import torch
from scipy.stats import chisquare

from charlm.core.randomness import seeded
from charlm.data.corpus import END, Vocabulary
from charlm.models.base import LanguageModel
from charlm.models.fcn import FCN


def tiny_model(vocabulary: Vocabulary, block_size: int, seed: int = 7) -> LanguageModel:
    """Return a model of few characters with strong preferences."""
    with seeded(seed, "init"):
        model = FCN(vocab_size=len(vocabulary), block_size=block_size, embed_dim=4, hidden_dim=16)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2.5)
    return model


def next_log_probs(
    model: LanguageModel, tokens: list[int], temperature: float = 1.0
) -> torch.Tensor:
    """Return the log-probabilities (V,) of the token after `tokens`, one context at a time."""
    size = model.hyperparameters["block_size"]
    context = [END] * size + tokens
    with torch.no_grad():
        logits = model.eval()(torch.tensor([context[-size:]]))[0]
    return torch.log_softmax(logits.double() / temperature, dim=0)


def all_names(vocabulary: Vocabulary, max_length: int) -> list[str]:
    return [
        "".join(letters)
        for length in range(1, max_length + 1)
        for letters in itertools.product(vocabulary.characters, repeat=length)
    ]


def exact_probabilities(
    model: LanguageModel, vocabulary: Vocabulary, max_length: int, temperature: float
) -> dict[str, float]:
    """Return the probability of every name that can be drawn."""
    exact = {}
    for name in all_names(vocabulary, max_length):
        tokens = vocabulary.encode(name)
        log_prob = 0.0
        for position, token in enumerate([*tokens, END][:max_length]):
            log_probs = next_log_probs(model, tokens[:position], temperature)
            if position == 0:  # the end cannot be drawn at the start
                log_probs = log_probs - torch.log1p(-log_probs[END].exp())
            log_prob += log_probs[token].item()
        exact[name] = torch.tensor(log_prob).exp().item()
    return exact


def is_distributed_as(probabilities: dict[str, float], names: list[str]) -> bool:
    """Return whether names may come from these probabilities, by a chi-squared test.

    The probabilities need not sum to 1. The test errs for one seed in ten thousand. Cells with an
    expected count below five are merged.
    """
    counts, total = Counter(names), sum(probabilities.values())
    if not counts.keys() <= probabilities.keys():
        return False
    cells = sorted((len(names) * p / total, counts[name]) for name, p in probabilities.items())
    while len(cells) > 1 and min(cells[:2])[0] < 5:
        (often, seen), (more, others) = cells[:2]
        cells[:2] = [(often + more, seen + others)]
    expected, observed = zip(*cells, strict=True)
    return len(cells) == 1 or bool(chisquare(observed, expected).pvalue > 1e-4)


def edits(one: str, other: str) -> int:
    """Return the Levenshtein distance, computed by its definition."""
    row = list(range(len(other) + 1))
    for n, left in enumerate(one, start=1):
        above, row = row, [n]
        for m, right in enumerate(other, start=1):
            row.append(min(above[m] + 1, row[-1] + 1, above[m - 1] + (left != right)))
    return row[-1]
