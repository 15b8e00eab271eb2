"""Kneser-Ney counts, compared with their equations written with dictionaries."""

from collections import Counter, defaultdict

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from charlm.data.corpus import END, Corpus
from charlm.data.splits import Part, split_windows
from charlm.data.windows import Windows, every_window, windows_by_part
from charlm.evaluation.baselines import count_models
from charlm.fast.ngrams import discount_gradient, leave_one_out_statistics
from charlm.fast.rows import Contexts
from charlm.fast.running import Runner, losses, mean_loss
from charlm.models.kneser_ney import LEVELS, KneserNey, Tables
from charlm.training.counting import NGrams
from tests.helpers import NAME_LISTS, ROOT, few, small_corpus, small_split

CORPUS = small_corpus(block_size=8)
WINDOWS = small_split(CORPUS)
V = len(CORPUS.vocabulary)


def counted(windows: Windows, vocab_size: int = V, order: int = 8) -> KneserNey:
    model = KneserNey(vocab_size, windows.block_size)
    model.tables = NGrams(windows, vocab_size, order).tables(order)
    return model


def with_discounts(tables: Tables, discounts: Tensor) -> Tables:
    """Return the same counts with other discounts."""
    lengths, contexts = length_of_contexts(tables), torch.repeat_interleave(tables.begins.diff())
    each = discounts[lengths[contexts], (tables.counts.clamp_max(3) - 1).long()]
    taken = torch.zeros(len(tables.totals), dtype=torch.float64).index_add(0, contexts, each)
    return tables._replace(discounts=discounts, taken=taken)


def length_of_contexts(tables: Tables) -> Tensor:
    lengths = torch.zeros(len(tables.front), dtype=torch.int64)
    for parent, (first, end) in enumerate(tables.children.unfold(0, 2, 1).tolist()):
        lengths[first:end] = lengths[parent] + 1
    return lengths


def pairs_of(windows: Windows, length: int) -> list[tuple[tuple[int, ...], int]]:
    """Return each window's context, with all padding as a single token, and its target."""
    contexts, targets = windows.batch(slice(None))
    return [
        (trimmed(context, length), target)
        for context, target in zip(contexts.tolist(), targets.tolist(), strict=True)
    ]


def trimmed(context: list[int], length: int) -> tuple[int, ...]:
    """Return the last tokens of a context, or the whole name so far, with `END` for its start."""
    end = max((i for i, token in enumerate(context) if token == END), default=0)
    return tuple(context[max(end, len(context) - length) :])


class Reference:
    """Interpolated modified Kneser-Ney, straight from its definitions; discounts are (L + 1, 3)."""

    def __init__(
        self, windows: Windows, vocab_size: int, order: int, discounts: list[list[float]]
    ) -> None:
        self.vocab_size, self.order = vocab_size, min(order, windows.block_size)
        self.discounts = discounts
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

    def followers(self, here: tuple[int, ...]) -> dict[int, int]:
        return {t[-1]: n for t, n in self.levels[len(here)].items() if t[:-1] == here}

    def prob(self, context: tuple[int, ...], token: int) -> float:
        p = 1 / self.vocab_size
        for length in range(len(context) + 1):
            followers = self.followers(context[len(context) - length :])
            if not followers:
                return p
            total = sum(followers.values())
            left = sum(self.discounts[length][min(n, 3) - 1] for n in followers.values())
            n = followers.get(token, 0)
            taken = self.discounts[length][min(n, 3) - 1] if n else 0
            p = (n - taken) / total + left / total * p
        return p

    def confidence(self, context: tuple[int, ...]) -> int:
        found = 0
        for length in range(len(context) + 1):
            if total := sum(self.followers(context[len(context) - length :]).values()):
                found = LEVELS * length + min(total.bit_length() - 1, LEVELS - 1)
        return found


@pytest.mark.parametrize("order", [0, 1, 2, 5, 30])
@pytest.mark.parametrize("names", [40, 1500])
def test_the_probabilities_match_the_equations(order: int, names: int) -> None:
    every_name = (ROOT / "data/prenoms.txt").read_text(encoding="utf-8").split()
    corpus = Corpus.from_names(every_name[:names], 8)
    windows, size = small_split(corpus), len(corpus.vocabulary)
    model = counted(windows[Part.TRAIN], size, order)
    discounts = model.tables.discounts.tolist()
    reference = Reference(windows[Part.TRAIN], size, order, discounts)
    contexts, _ = windows[Part.VAL].batch(slice(0, 12))
    log_probs, confidence = model.look_up(contexts.long(), [order])
    for row, level, context in zip(
        log_probs[:, 0].exp(), confidence, contexts.tolist(), strict=True
    ):
        its_trimmed = trimmed(context, reference.order)
        assert level == reference.confidence(its_trimmed)
        for token in range(size):
            assert row[token].item() == pytest.approx(reference.prob(its_trimmed, token), rel=1e-5)
    assert model.counted == sum(map(len, reference.levels))
    assert model.order == reference.order


@pytest.mark.parametrize("order", [1, 3, 8])
def test_leaving_a_window_out_equals_not_counting_it(order: int) -> None:
    """Its probabilities are those of counts without it, with the same discounts."""
    windows = WINDOWS[Part.TRAIN]
    model = counted(windows, order=order)
    contexts, targets = windows.batch(slice(None))
    log_probs, confidence = model.look_up(contexts.long(), [order], targets)
    for number in range(0, len(windows), 3):
        others = windows.where(torch.arange(len(windows)) != number)
        reference = Reference(others, V, order, model.tables.discounts.tolist())
        context = trimmed(contexts[number].tolist(), order)
        assert confidence[number] == reference.confidence(context)
        for token in range(V):
            found = log_probs[number, 0, token].exp().item()
            assert found == pytest.approx(reference.prob(context, token), rel=1e-5)


def test_a_lower_order_ignores_longer_contexts() -> None:
    windows = WINDOWS[Part.TRAIN]
    model = counted(windows, order=8)
    contexts, _ = windows.batch(slice(0, 50))
    log_probs, _ = model.look_up(contexts.long(), [2, 8, 40])
    lower = Reference(windows, V, 8, model.tables.discounts.tolist())
    for row, context in zip(log_probs[:, 0].exp(), contexts.tolist(), strict=True):
        for token in range(V):
            its = lower.prob(trimmed(context, 2), token)
            assert row[token].item() == pytest.approx(its, rel=1e-5)
    assert torch.equal(log_probs[:, 1], model(contexts.long()))
    assert torch.equal(log_probs[:, 2], log_probs[:, 1]), "none is longer than the tables"


@few
@given(names=NAME_LISTS, block_size=st.sampled_from([1, 2, 8]), seed=st.integers(0, 99))
def test_the_fast_path_looks_up_the_same_as_plain_torch(
    names: list[str], block_size: int, seed: int
) -> None:
    corpus = Corpus.from_names(list(dict.fromkeys(names)), block_size)
    windows, size = every_window(corpus), len(corpus.vocabulary)
    chosen = torch.rand(len(windows), generator=torch.Generator().manual_seed(seed)) < 0.7
    chosen[0] = True
    model = counted(windows.where(chosen), size)
    orders = [block_size, 0, block_size // 2, 0]
    contexts, targets = windows.batch(slice(None))  # includes windows that were not counted
    anything = np.random.default_rng(seed).integers(0, size, (20, block_size))
    contexts = torch.cat([contexts.long(), torch.from_numpy(anything)])
    targets = torch.cat([targets, torch.zeros(20, dtype=torch.int64)])
    for given_targets in (None, targets):
        plain, level = model.look_up(contexts, orders, given_targets)
        with torch.no_grad():
            rows, fast_level = model.look_up(Contexts(contexts), orders, given_targets)
        torch.testing.assert_close(rows.dense(), plain, rtol=0, atol=1e-5)
        assert torch.equal(torch.from_numpy(fast_level.index).long(), level)
        sums = plain.double().exp().sum(2)
        torch.testing.assert_close(sums, torch.ones_like(sums), rtol=0, atol=1e-5)
    assert Runner(model).check(contexts).fast


def test_the_amount_of_padding_changes_nothing() -> None:
    names = (ROOT / "data/prenoms.txt").read_text(encoding="utf-8").split()[:2000]
    found = []
    for block_size in (8, 16):
        corpus = Corpus.from_names([name for name in names if len(name) < 8], block_size)
        parts = small_split(corpus)
        model = counted(parts[Part.TRAIN], len(corpus.vocabulary), block_size)
        found.append(losses(model, parts[Part.VAL]))
    torch.testing.assert_close(*found, rtol=0, atol=1e-6)


def test_the_gradient_of_the_discounts_is_right() -> None:
    windows = WINDOWS[Part.TRAIN]
    model = counted(windows, order=2)
    contexts, targets = windows.batch(slice(None))
    discounts = torch.tensor([[0.4, 0.9, 1.1], [0.5, 1.2, 1.4], [0.6, 1.0, 2.0]]).double()

    def loss(at: Tensor) -> float:
        model.tables = with_discounts(model.tables, at)
        log_probs = model(contexts.long(), targets).double()
        return -float(log_probs[torch.arange(len(targets)), targets].sum())

    sample = torch.cat([contexts, targets[:, None].int()], dim=1).numpy()
    trie = [its.numpy() for its in model.tables[:5]]
    statistics = leave_one_out_statistics(sample, 3, *trie)
    gradient = discount_gradient(statistics, discounts.numpy(), V)
    for place in np.ndindex(3, 3):
        step = torch.zeros(3, 3, dtype=torch.float64)
        step[place] = 0.01
        slope = (loss(discounts + step) - loss(discounts - step)) / 0.02
        assert gradient[place] == pytest.approx(slope, rel=0.01, abs=0.02)


def test_the_fitted_discounts_beat_the_usual_ones() -> None:
    """On windows that were not counted, they beat those of Chen and Goodman, section 3."""
    names = (ROOT / "data/prenoms.txt").read_text(encoding="utf-8").split()[:4000]
    corpus = Corpus.from_names(names, 8)
    parts = small_split(corpus)
    model = counted(parts[Part.TRAIN], len(corpus.vocabulary))
    found = mean_loss(model, parts[Part.VAL])
    usual = model.tables.discounts.clone()
    lengths, owners = (
        length_of_contexts(model.tables),
        torch.repeat_interleave(model.tables.begins.diff()),
    )
    for length in range(len(usual)):
        counts = model.tables.counts[lengths[owners] == length]
        n1, n2, n3, n4 = ((counts == j).sum().item() for j in (1, 2, 3, 4))
        y = n1 / max(n1 + 2 * n2, 1) if n1 and n2 else 0.5
        three = [
            1 - 2 * y * n2 / max(n1, 1),
            2 - 3 * y * n3 / max(n2, 1),
            3 - 4 * y * n4 / max(n3, 1),
        ]
        usual[length] = torch.tensor(three if min(n1, n2, n3, n4, *three) > 0 else [y, y, y])
    model.tables = with_discounts(model.tables, usual)
    assert found < mean_loss(model, parts[Part.VAL]) - 0.005


def test_counting_does_not_depend_on_the_chunk_size(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = counted(WINDOWS[Part.TRAIN]).tables
    monkeypatch.setattr("charlm.training.counting.CHUNK", 7)
    for one, other in zip(whole, counted(WINDOWS[Part.TRAIN]).tables, strict=True):
        assert torch.equal(one, other)


def test_tables_of_a_lower_order_match_counting_at_that_order() -> None:
    windows = WINDOWS[Part.TRAIN]
    ngrams = NGrams(windows, V, 8)
    for order in range(9):
        for one, other in zip(
            ngrams.tables(order), NGrams(windows, V, order).tables(order), strict=True
        ):
            assert torch.equal(one, other)


def test_an_unseen_context_has_the_probabilities_of_a_shorter_one() -> None:
    model = counted(WINDOWS[Part.TRAIN], order=3)
    last = int(WINDOWS[Part.TRAIN].previous()[0])
    unseen = torch.tensor([[V - 1] * 7 + [last], [END] * 7 + [V - 1]])
    shorter = torch.tensor([[V - 2] * 7 + [last], [V - 2] * 7 + [V - 1]])
    assert torch.equal(model(unseen)[0], model(shorter)[0])


def test_before_anything_is_counted_all_tokens_are_equally_likely() -> None:
    for targets in (None, torch.tensor([1, 2])):
        probs = KneserNey(V, 8)(torch.zeros(2, 8).long(), targets).exp()
        torch.testing.assert_close(probs, torch.full((2, V), 1 / V))


def test_one_window_is_enough_to_count() -> None:
    windows = every_window(CORPUS)
    one = windows.where(torch.arange(len(windows)) == 0)
    model = counted(one)
    assert mean_loss(model, one) < np.log(V)
    contexts, targets = one.batch(slice(None))
    left_out = model(contexts.long(), targets).exp()
    torch.testing.assert_close(left_out, torch.full((1, V), 1 / V))


def test_a_vocabulary_of_thousands_of_characters_can_be_counted() -> None:
    """The vocabulary size to the power of the order plus one would not fit in 64 bits."""
    characters = [chr(0x4E00 + i) for i in range(9000)]
    names = ["".join(characters[i : i + 6]) for i in range(0, 9000, 6)]
    corpus = Corpus.from_names(names, 8)
    windows, size = every_window(corpus), len(corpus.vocabulary)
    assert mean_loss(counted(windows, size), windows) < np.log(size)


@pytest.mark.parametrize("by", ["window", "name"])
def test_the_loss_on_the_default_names_is_far_below_bigrams(by: str) -> None:
    names = (ROOT / "data/prenoms.txt").read_text(encoding="utf-8").split()
    corpus = Corpus.from_names(names, 8)
    parts = windows_by_part(corpus, split_windows(corpus, by, 0.8, 0.1, 7))
    model = counted(parts[Part.TRAIN], len(corpus.vocabulary), 5)
    loss = mean_loss(model, parts[Part.VAL])
    # With the discounts of Chen and Goodman: 1.9479 and 1.9432.
    assert loss == pytest.approx({"window": 1.9427, "name": 1.9388}[by], abs=2e-3)
    bigram = count_models(parts[Part.TRAIN], len(corpus.vocabulary))["bigram"]
    assert loss < bigram.score(parts[Part.VAL])[0].mean() - 0.5


def test_saving_keeps_the_counts() -> None:
    model, other = counted(WINDOWS[Part.TRAIN]), KneserNey(V, 8)
    other.load_state_dict(model.state_dict())
    for one, its in zip(model.tables, other.tables, strict=True):
        assert torch.equal(one, its)
