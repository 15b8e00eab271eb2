"""Kneser-Ney counts, against their equations written out with dictionaries."""

import math
from collections import Counter, defaultdict

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from charlm.data.corpus import END, Corpus
from charlm.data.splits import Part, split_windows
from charlm.data.windows import Windows, every_window, windows_by_part
from charlm.evaluation.baselines import count_models
from charlm.evaluation.kneser_ney import KneserNey, _discounts, count_kneser_ney
from tests.helpers import NAME_LISTS, ROOT, few, small_corpus, small_split

CORPUS = small_corpus(block_size=8)
WINDOWS = small_split(CORPUS)
V = len(CORPUS.vocabulary)


def pairs_of(windows: Windows, length: int) -> list[tuple[tuple[int, ...], int]]:
    """Each window's context, with all the padding as one token, and its target."""
    contexts, targets = windows.batch(slice(None))
    return [
        (trimmed(context, length), target)
        for context, target in zip(contexts.tolist(), targets.tolist(), strict=True)
    ]


def trimmed(context: list[int], length: int) -> tuple[int, ...]:
    """The last tokens of a context, or all of its name so far, with an `END` for its start."""
    end = max((i for i, token in enumerate(context) if token == END), default=0)
    return tuple(context[max(end, len(context) - length) :])


class Reference:
    """Interpolated modified Kneser-Ney, a definition at a time."""

    def __init__(self, windows: Windows, vocab_size: int, order: int) -> None:
        self.vocab_size, self.order = vocab_size, min(order, windows.block_size)
        seen: dict[tuple[int, ...], int] = Counter()
        in_front: dict[tuple[int, ...], set[int]] = defaultdict(set)
        for context, token in pairs_of(windows, self.order):
            for length in range(len(context) + 1):
                tail = (*context[len(context) - length :], token)
                seen[tail] += 1
                if length < len(context):
                    in_front[tail].add(context[len(context) - length - 1])
        self.levels: list[dict[tuple[int, ...], int]] = [{} for _ in range(self.order + 1)]
        for tail, windows_seen in seen.items():
            length = len(tail) - 1
            at_the_start = length > 0 and tail[0] == END
            whole = length == self.order or at_the_start
            self.levels[length][tail] = windows_seen if whole else len(in_front[tail])

    def discount(self, length: int, count: int) -> float:
        n = Counter(self.levels[length].values())
        y = n[1] / (n[1] + 2 * n[2]) if n[1] and n[2] else 0.5
        if not all(n[j] for j in (1, 2, 3, 4)):
            return y
        three = [j - (j + 1) * y * n[j + 1] / n[j] for j in (1, 2, 3)]
        return three[min(count, 3) - 1] if min(three) > 0 else y

    def prob(self, context: tuple[int, ...], token: int) -> float:
        p = 1 / self.vocab_size
        for length in range(len(context) + 1):
            here = context[len(context) - length :]
            followers = {t[-1]: n for t, n in self.levels[length].items() if t[:-1] == here}
            if not followers:
                return p
            total = sum(followers.values())
            left = sum(self.discount(length, n) for n in followers.values())
            n = followers.get(token, 0)
            p = (n - self.discount(length, n) if n else 0) / total + left / total * p
        return p


@pytest.mark.parametrize("order", [0, 1, 2, 5, 30])
@pytest.mark.parametrize("names", [40, 1500])
def test_the_probabilities_are_those_of_the_equations(order: int, names: int) -> None:
    every_name = (ROOT / "data/prenoms.txt").read_text(encoding="utf-8").split()
    corpus = Corpus.from_names(every_name[:names], 8)
    windows, size = small_split(corpus), len(corpus.vocabulary)
    model = count_kneser_ney(windows[Part.TRAIN], size, order)
    reference = Reference(windows[Part.TRAIN], size, order)
    contexts, _ = windows[Part.VAL].batch(slice(0, 12))
    probs = model.probs(contexts.numpy())
    for row, context in zip(probs, contexts.tolist(), strict=True):
        its_trimmed = trimmed(context, reference.order)
        for token in range(size):
            assert row[token] == pytest.approx(reference.prob(its_trimmed, token), rel=1e-9)
    assert model.parameters == sum(map(len, reference.levels))


def test_how_much_padding_there_is_changes_nothing() -> None:
    names = (ROOT / "data/prenoms.txt").read_text(encoding="utf-8").split()[:2000]
    losses = []
    for block_size in (8, 16):
        corpus = Corpus.from_names([name for name in names if len(name) < 8], block_size)
        parts = small_split(corpus)
        model = count_kneser_ney(parts[Part.TRAIN], len(corpus.vocabulary), order=block_size)
        losses.append(model.score(parts[Part.VAL])[0])
    assert torch.equal(*losses)


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        # n_1 to n_4 are 8, 4, 2 and 1, so Y is a half.
        ([1] * 8 + [2] * 4 + [3] * 2 + [4, 9], [0.5, 1.25, 2.0]),
        ([1] * 8 + [2] * 4 + [3] * 2, [0.5, 0.5, 0.5]),  # nothing is there four times
        ([1] * 8 + [2] * 4 + [3] * 8 + [4], [0.5, 0.5, 0.5]),  # or the second would be -1
        ([1] * 8 + [2] * 4 + [3] * 2 + [4] * 9, [0.5, 0.5, 0.5]),  # or the third would be -6
        ([1], [0.5, 0.5, 0.5]),
        ([2, 2, 3], [0.5, 0.5, 0.5]),
    ],
)
def test_the_discounts_are_those_made_by_hand(counts: list[int], expected: list[float]) -> None:
    assert _discounts(np.array(counts)).tolist() == pytest.approx(expected)


def assert_a_distribution(model: KneserNey, contexts: np.ndarray) -> None:
    probs = model.probs(contexts)
    assert probs.shape == (len(contexts), model.vocab_size)
    np.testing.assert_allclose(probs.sum(axis=1), 1, rtol=0, atol=1e-12)
    assert (probs > 0).all()


def assert_scored_as_the_probabilities_say(model: KneserNey, windows: Windows) -> None:
    losses, chances = model.score(windows)
    contexts, targets = windows.batch(slice(None))
    probs = torch.from_numpy(model.probs(contexts.numpy()))
    found = probs.gather(1, targets[:, None].long())[:, 0]
    torch.testing.assert_close(losses, -found.log())
    best = probs.max(1).values
    ties = (probs == best[:, None]).sum(1)
    torch.testing.assert_close(chances, (found == best).double() / ties)


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
    assert_scored_as_the_probabilities_say(model, windows)


def test_the_scores_are_the_losses_and_hits_of_the_probabilities() -> None:
    model = count_kneser_ney(WINDOWS[Part.TRAIN], V)
    assert_scored_as_the_probabilities_say(model, WINDOWS[Part.TEST])


def test_scores_do_not_depend_on_how_many_are_worked_out_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = count_kneser_ney(WINDOWS[Part.TRAIN], V)
    whole = model.score(WINDOWS[Part.VAL])
    monkeypatch.setattr("charlm.evaluation.kneser_ney.CHUNK", 7)
    counted = count_kneser_ney(WINDOWS[Part.TRAIN], V)
    assert counted.parameters == model.parameters
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
    expected = {"window": 1.9479, "name": 1.9432}[by]
    assert losses.mean().item() == pytest.approx(expected, abs=1e-4)
    bigram = count_models(parts[Part.TRAIN], len(corpus.vocabulary))["bigram"]
    assert losses.mean() < bigram.score(parts[Part.VAL])[0].mean() - 0.5
    assert 0.40 < chances.mean() < 0.42
    assert 130_000 < model.parameters < 140_000
