"""Kneser-Ney counts, against their equations written out with dictionaries."""

import math
from collections import Counter, defaultdict

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from charlm.corpus import Corpus
from charlm.kneser_ney import KneserNey, count_kneser_ney
from charlm.splits import Part, split_windows
from charlm.windows import Windows, every_window, windows_by_part
from tests.helpers import NAME_LISTS, ROOT, few, small_corpus, small_split

CORPUS = small_corpus(block_size=8)
WINDOWS = small_split(CORPUS)
V = len(CORPUS.vocabulary)


def pairs_of(windows: Windows, length: int) -> list[tuple[tuple[int, ...], int]]:
    contexts, targets = windows.batch(slice(None))
    length = min(length, windows.block_size)
    tails = contexts[:, contexts.shape[1] - length :].tolist()
    return [(tuple(tail), target) for tail, target in zip(tails, targets.tolist(), strict=True)]


class Reference:
    """Interpolated modified Kneser-Ney, a definition at a time."""

    def __init__(self, windows: Windows, vocab_size: int, order: int) -> None:
        self.vocab_size = vocab_size
        length = min(order, windows.block_size)
        counts: dict[tuple[tuple[int, ...], int], int] = Counter(pairs_of(windows, length))
        self.levels = [counts]
        for _ in range(length):
            in_front: dict[tuple[tuple[int, ...], int], set[int]] = defaultdict(set)
            for context, token in self.levels[0]:
                in_front[context[1:], token].add(context[0])
            self.levels.insert(0, {pair: len(tokens) for pair, tokens in in_front.items()})

    def discount(self, level: int, count: int) -> float:
        n = Counter(self.levels[level].values())
        y = n[1] / (n[1] + 2 * n[2]) if n[1] and n[2] else 0.5
        if not (n[1] and n[2] and n[3]):
            return y
        j = min(count, 3)
        found = j - (j + 1) * y * n[j + 1] / n[j]
        return found if 0 < found < j else y

    def prob(self, context: tuple[int, ...], token: int) -> float:
        p = 1 / self.vocab_size
        for level, counts in enumerate(self.levels):
            here = context[len(context) - level :]
            seen = {t: n for (c, t), n in counts.items() if c == here}
            if not seen:
                return p
            total = sum(seen.values())
            left = sum(self.discount(level, n) for n in seen.values())
            n = seen.get(token, 0)
            p = (n - self.discount(level, n) if n else 0) / total + left / total * p
        return p


@pytest.mark.parametrize("order", [0, 1, 2, 5, 30])
def test_the_probabilities_are_those_of_the_equations(order: int) -> None:
    model = count_kneser_ney(WINDOWS[Part.TRAIN], V, order)
    reference = Reference(WINDOWS[Part.TRAIN], V, order)
    wanted = pairs_of(WINDOWS[Part.VAL], max(order, 1))[:25]
    probs = model.probs(np.array([context for context, _ in wanted]))
    for row, (context, token) in zip(probs, wanted, strict=True):
        assert row[token] == pytest.approx(reference.prob(context, token), rel=1e-9)


def assert_a_distribution(model: KneserNey, contexts: np.ndarray) -> None:
    probs = model.probs(contexts)
    assert probs.shape == (len(contexts), model.vocab_size)
    np.testing.assert_allclose(probs.sum(axis=1), 1, rtol=0, atol=1e-12)
    assert (probs > 0).all()


@few
@given(names=NAME_LISTS, block_size=st.sampled_from([1, 2, 8]), seed=st.integers(0, 99))
def test_after_any_context_the_probabilities_sum_to_one(
    names: list[str], block_size: int, seed: int
) -> None:
    corpus = Corpus.from_names(list(dict.fromkeys(names)), block_size)
    windows, size = every_window(corpus), len(corpus.vocabulary)
    chosen = torch.rand(len(windows), generator=torch.Generator().manual_seed(seed)) < 0.7
    chosen[0] = True
    model = count_kneser_ney(windows.where(chosen), size)
    any_contexts = np.random.default_rng(seed).integers(0, size, (20, block_size))
    assert_a_distribution(model, any_contexts)
    contexts, _ = windows.batch(slice(None))
    assert_a_distribution(model, contexts.numpy().astype(np.int64))
    losses, chances = model.score(windows)
    assert torch.isfinite(losses).all()
    assert ((chances >= 0) & (chances <= 1)).all()


def test_the_scores_are_the_losses_and_hits_of_the_probabilities() -> None:
    model = count_kneser_ney(WINDOWS[Part.TRAIN], V)
    losses, chances = model.score(WINDOWS[Part.TEST])
    contexts, targets = WINDOWS[Part.TEST].batch(slice(None))
    probs = torch.from_numpy(model.probs(contexts.numpy().astype(np.int64)))
    expected = -probs.gather(1, targets[:, None].long())[:, 0].log()
    torch.testing.assert_close(losses, expected)
    best = probs.max(1).values
    ties = (probs == best[:, None]).sum(1)
    hit = probs.gather(1, targets[:, None].long())[:, 0] == best
    torch.testing.assert_close(chances, hit.double() / ties)


def test_scores_do_not_depend_on_how_many_are_worked_out_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = count_kneser_ney(WINDOWS[Part.TRAIN], V)
    whole = model.score(WINDOWS[Part.VAL])
    monkeypatch.setattr("charlm.kneser_ney.AT_ONCE", 3 * V)
    monkeypatch.setattr("charlm.kneser_ney.CHUNK", 7)
    for one, other in zip(whole, model.score(WINDOWS[Part.VAL]), strict=True):
        assert torch.equal(one, other)


def test_a_context_never_seen_has_the_probabilities_of_a_shorter_one() -> None:
    model = count_kneser_ney(WINDOWS[Part.TRAIN], V, 3)
    shorter = KneserNey(V, model.levels[:2])
    last = int(WINDOWS[Part.TRAIN].previous()[0])
    unseen = np.array([[V - 1, V - 1, last]])
    assert np.array_equal(model.probs(unseen), shorter.probs(unseen))


def test_one_window_is_enough_to_count() -> None:
    windows = every_window(CORPUS)
    one = windows.where(torch.arange(len(windows)) == 0)
    model = count_kneser_ney(one, V)
    losses, _ = model.score(one)
    assert losses[0] < math.log(V)
    assert model.parameters == len(model.levels)


def test_a_vocabulary_of_thousands_is_counted() -> None:
    """V to the power of the order and of one would be no 64-bit number."""
    characters = [chr(0x4E00 + i) for i in range(9000)]
    names = ["".join(characters[i : i + 6]) for i in range(0, 9000, 6)]
    corpus = Corpus.from_names(names, 8)
    windows = every_window(corpus)
    size = len(corpus.vocabulary)
    model = count_kneser_ney(windows, size)
    assert_a_distribution(model, windows.batch(slice(0, 50))[0].numpy().astype(np.int64))
    assert model.score(windows)[0].mean() < math.log(size)


@pytest.mark.parametrize("by", ["window", "name"])
def test_on_the_default_names_it_is_far_below_bigrams(by: str) -> None:
    names = (ROOT / "data/prenoms.txt").read_text(encoding="utf-8").split()
    corpus = Corpus.from_names(names, 8)
    parts = windows_by_part(corpus, split_windows(corpus, by, 0.8, 0.1, 7))
    model = count_kneser_ney(parts[Part.TRAIN], len(corpus.vocabulary))
    losses, chances = model.score(parts[Part.VAL])
    low, high = {"window": (1.94, 1.98), "name": (1.92, 1.98)}[by]
    assert low < losses.mean() < high
    assert 0.38 < chances.mean() < 0.42
    assert 140_000 < model.parameters < 160_000
