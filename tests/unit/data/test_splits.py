"""Splitting windows into training, validation and test sets."""

import hashlib
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from charlm.core.files import save_tensors
from charlm.data import corpus as corpus_module
from charlm.data.corpus import Corpus
from charlm.data.splits import Part, Parts, Split, load_split, save_split, split_windows
from charlm.data.windows import every_window, windows_by_part
from tests.helpers import DAMAGED, few, refused, small_corpus, taken_or_refused

BY = pytest.mark.parametrize("by", ["window", "name"])


def split(
    corpus: Corpus, by: str = "window", train: float = 0.6, val: float = 0.2, seed: int = 1
) -> Parts:
    """Return the part of each window, (W,) uint8."""
    return parts_of(split_windows(corpus, by, train, val, seed), corpus)


def parts_of(split: Split, corpus: Corpus) -> Parts:
    return np.concatenate([parts for _, _, parts in split.parts(corpus)])


def sizes(parts: Parts) -> list[int]:
    return [int((parts == part).sum()) for part in Part]


def parts_by_name(corpus: Corpus, parts: Parts) -> list[set[int]]:
    """Return the parts of the windows of each name."""
    found: list[set[int]] = [set() for _ in corpus.names()]
    for name, part in zip(corpus.name_of_window().tolist(), parts.tolist(), strict=True):
        found[name].add(part)
    return found


@BY
def test_every_window_is_in_just_one_part(by: str) -> None:
    corpus = small_corpus()
    parts = split(corpus, by)
    assert parts.dtype == np.uint8
    assert parts.shape == (len(every_window(corpus)),)
    assert set(parts.tolist()) == {Part.TRAIN, Part.VAL, Part.TEST}


def test_a_split_by_window_has_the_given_fractions() -> None:
    corpus = Corpus.from_names(["A" * 99] * 10, 2)  # a thousand windows
    assert sizes(split(corpus, train=0.8, val=0.1)) == [800, 100, 100]
    assert sizes(split(corpus, train=0.5, val=0.25)) == [500, 250, 250]


def test_a_split_by_window_may_divide_a_name() -> None:
    corpus = small_corpus()
    assert any(len(parts) > 1 for parts in parts_by_name(corpus, split(corpus)))


def test_a_split_by_name_keeps_each_name_in_one_part() -> None:
    corpus = small_corpus()
    found = parts_by_name(corpus, split(corpus, "name"))
    assert all(len(parts) == 1 for parts in found)
    of_names = np.array([next(iter(parts)) for parts in found])
    assert sizes(of_names) == [17, 5, 6]  # of 28 names


@few
@given(
    st.sampled_from(["window", "name"]),
    st.floats(0.01, 0.98),
    st.floats(0.01, 0.98),
    st.integers(0, 2**63 - 1),
)
def test_any_fractions_are_met_or_refused(by: str, train: float, val: float, seed: int) -> None:
    val = min(val, 0.99 - train)
    corpus = small_corpus()
    count = len(every_window(corpus)) if by == "window" else len(corpus.names())
    first, second = round(count * train), round(count * (train + val))
    expected = [first, second - first, count - second]
    parts = taken_or_refused(lambda: split(corpus, by, train, val, seed), f"split by {by}")
    assert (parts is None) == (0 in expected)
    if parts is None:
        return
    if by == "name":
        found = parts_by_name(corpus, parts)
        assert all(len(of_name) == 1 for of_name in found)
        parts = np.array([next(iter(of_name)) for of_name in found])
    assert sizes(parts) == expected


@BY
def test_only_the_seed_determines_the_split(by: str) -> None:
    corpus = small_corpus()
    np.random.seed(3)
    first = split(corpus, by)
    np.random.seed(4)
    assert np.array_equal(first, split(corpus, by))
    assert not np.array_equal(first, split(corpus, by, seed=2))


@pytest.mark.parametrize(
    ("by", "pinned"), [("window", "1f36ec6e20a0a186"), ("name", "a72cad53b792bd68")]
)
def test_the_split_of_seed_1_is_the_same_everywhere(by: str, pinned: str) -> None:
    parts = split(small_corpus(), by)
    assert hashlib.sha256(bytes(parts.tolist())).hexdigest()[:16] == pinned


def test_windows_are_split_at_random_and_not_in_order() -> None:
    parts = split(small_corpus())
    first_half, second_half = parts[: len(parts) // 2], parts[len(parts) // 2 :]
    for half in (first_half, second_half):
        assert set(half.tolist()) == set(Part)
    assert parts.tolist() != sorted(parts.tolist())


@pytest.mark.parametrize(
    ("train", "val", "empty"), [(0.9, 0.05, "val"), (0.1, 0.8, "train"), (0.4, 0.5, "test")]
)
@BY
def test_an_empty_part_is_refused(by: str, train: float, val: float, empty: str) -> None:
    corpus = Corpus.from_names(["A", "B", "C"] if by == "name" else ["AB"], 2)  # three in each case
    with refused(f"train {train} and val {val}", f"no {empty} set", f"by {by}"):
        split(corpus, by, train, val)


@BY
def test_each_part_keeps_the_order_of_the_corpus(by: str) -> None:
    corpus = small_corpus()
    result = split_windows(corpus, by, 0.6, 0.2, seed=1)
    parts, windows = parts_of(result, corpus), windows_by_part(corpus, result)
    for part in Part:
        assert torch.equal(
            windows[part].starts, every_window(corpus).starts[torch.from_numpy(parts == part)]
        )
        assert result.sizes(corpus)[part] == len(windows[part])
        assert windows[part].stream.data_ptr() == corpus.stream.ctypes.data


@BY
@pytest.mark.parametrize("chunk", [1, 3, 17])
def test_the_parts_do_not_depend_on_the_size_of_the_chunks(
    by: str, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = split(small_corpus(), by)
    monkeypatch.setattr(corpus_module, "CHUNK", chunk)
    assert np.array_equal(split(small_corpus(), by), whole)


@BY
def test_a_saved_split_is_loaded_as_it_was(tmp_path: Path, by: str) -> None:
    corpus = small_corpus()
    result = split_windows(corpus, by, 0.6, 0.2, seed=2**63 - 1)
    save_split(tmp_path / "split.safetensors", result)
    assert load_split(tmp_path / "split.safetensors", corpus) == result


def test_a_saved_split_takes_only_a_few_bytes(tmp_path: Path) -> None:
    save_split(tmp_path / "split.safetensors", Split("window", 2**63 - 1, 10**12, 10**11, 10**11))
    assert (tmp_path / "split.safetensors").stat().st_size < 256


@BY
def test_a_split_of_another_corpus_is_refused(tmp_path: Path, by: str) -> None:
    corpus = small_corpus()
    save_split(tmp_path / "split.safetensors", split_windows(corpus, by, 0.6, 0.2, seed=1))
    fewer = Corpus.from_names(corpus.names()[1:], corpus.block_size)
    with refused(tmp_path, f"{len(every_window(fewer)):,} windows"):
        load_split(tmp_path / "split.safetensors", fewer)


@DAMAGED
def test_a_damaged_split_is_refused(tmp_path: Path, damage) -> None:
    path = tmp_path / "split.safetensors"
    save_split(path, split_windows(small_corpus(), "window", 0.6, 0.2, seed=1))
    path.write_bytes(damage(path.read_bytes()))
    with refused(path):
        load_split(path, small_corpus())


def test_a_missing_split_is_refused(tmp_path: Path) -> None:
    with refused(tmp_path / "none", "does not exist"):
        load_split(tmp_path / "none", small_corpus())


@pytest.mark.parametrize(
    "changed",
    [
        {"by": "letter"},
        {"by": ["window"]},
        {"seed": -1},
        {"seed": "1"},
        {"val": True},
        {"val": -1},
        {"val": 1e400},
        {"train": 10**30},
        {"more": 1},
    ],
    ids=str,
)
def test_invalid_metadata_are_refused(tmp_path: Path, changed: dict[str, object]) -> None:
    path = tmp_path / "other.safetensors"
    described = asdict(split_windows(small_corpus(), "window", 0.6, 0.2, seed=1))
    save_tensors(path, {}, described | changed)
    with refused(path):
        load_split(path, small_corpus())


@pytest.mark.parametrize("tensors", [{"other": torch.zeros(3)}, {"part": torch.tensor(3)}])
def test_another_safetensors_file_is_refused(
    tmp_path: Path, tensors: dict[str, torch.Tensor]
) -> None:
    path = tmp_path / "other.safetensors"
    save_tensors(path, tensors, {})
    with refused(path):
        load_split(path, small_corpus())
