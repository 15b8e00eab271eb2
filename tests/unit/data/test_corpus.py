"""Names, tokens and windows."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from charlm.core.files import save_tensors, tensor_header
from charlm.data import corpus as corpus_module
from charlm.data import windows as windows_module
from charlm.data.corpus import (
    END,
    Corpus,
    Vocabulary,
    encode_stream,
    load_corpus,
    printable,
    write_corpus,
)
from charlm.data.windows import every_window
from tests.helpers import (
    DAMAGED,
    NAME_LISTS,
    NAMES,
    ROOT,
    few,
    read_names,
    refused,
    run_python,
    small_corpus,
)

BLOCK_SIZES = st.integers(1, 16)


def save_corpus(path: Path, corpus: Corpus) -> None:
    """Write a corpus in one go."""
    metadata = {"characters": corpus.vocabulary.characters, "block_size": corpus.block_size}
    save_tensors(path, {"stream": torch.from_numpy(corpus.stream)}, metadata)


@few
@given(NAME_LISTS, BLOCK_SIZES)
def test_the_stream_gives_the_names_back(names: list[str], block_size: int) -> None:
    assert Corpus.from_names(names, block_size).names() == names


@few
@given(NAME_LISTS, BLOCK_SIZES)
def test_every_window_knows_its_name(names: list[str], block_size: int) -> None:
    expected = [number for number, name in enumerate(names) for _ in range(len(name) + 1)]
    name_of_window = Corpus.from_names(names, block_size).name_of_window()
    assert name_of_window.dtype == np.int64
    assert name_of_window.tolist() == expected


def test_block_size_zeros_surround_each_name_in_the_stream() -> None:
    corpus = Corpus.from_names(["BA", "C"], block_size=2)
    assert corpus.stream.tolist() == [0, 0, 2, 1, 0, 0, 3, 0, 0]


def test_a_window_of_the_default_names_takes_about_two_bytes() -> None:
    corpus = Corpus.from_names(read_names(ROOT / "data/prenoms.txt").names, 8)
    _, windows = corpus.count()
    assert corpus.stream.nbytes / windows < 2.1


def test_a_period_in_a_name_does_not_end_it() -> None:
    corpus = Corpus.from_names(["A.B", ".", "B"], block_size=3)
    assert corpus.vocabulary.encode(".") != [END]
    assert corpus.names() == ["A.B", ".", "B"]


def test_the_default_names_match_their_description() -> None:
    listed = read_names(ROOT / "data/prenoms.txt")
    corpus = Corpus.from_names(listed.names, block_size=8)
    assert len(listed.names) == 31_704
    assert listed.duplicates == 0
    assert len(corpus.vocabulary.characters) == 45
    assert corpus.count() == (31_704, 240_829)
    assert max(map(len, listed.names)) == 19
    assert corpus.names() == listed.names


@pytest.mark.parametrize(
    ("characters", "dtype"),
    [
        (1, np.uint8),
        (255, np.uint8),
        (256, np.int16),
        (32_767, np.int16),
        (32_768, np.int32),
    ],
)
def test_the_stream_has_the_smallest_sufficient_integer_type(
    characters: int, dtype: type[np.integer]
) -> None:
    name = "".join(map(chr, range(0x4E00, 0x4E00 + characters)))
    corpus = Corpus.from_names([name], block_size=2)
    assert corpus.stream.dtype == dtype
    assert corpus.stream.max().item() == characters
    assert corpus.names() == [name]


def test_characters_beyond_sixteen_bits_are_one_character_each() -> None:
    corpus = Corpus.from_names(["𝔸𐌰", "𐌰é"], block_size=2)
    assert corpus.vocabulary.characters == "é𐌰𝔸"
    assert corpus.names() == ["𝔸𐌰", "𐌰é"]


def test_the_vocabulary_is_in_code_point_order_and_includes_the_end() -> None:
    vocabulary = Corpus.from_names(["ÉB", "ab", "B"], block_size=2).vocabulary
    assert vocabulary.characters == "BabÉ"
    assert len(vocabulary) == 5
    assert vocabulary.symbols() == [".", "B", "a", "b", "É"]


@pytest.mark.parametrize(
    ("character", "label"),
    [
        ("A", "A"),
        ("א", "א"),
        ("😀", "😀"),
        (" ", "␣"),
        ("\t", "U+0009"),
        ("\xa0", "U+00A0"),
        ("\xad", "U+00AD"),
        ("\u200c", "U+200C"),
        ("\u3164", "U+3164"),  # a letter by category: the Hangul filler
        ("\ufe0f", "U+FE0F"),
        ("\U000e0041", "U+E0041"),
        ("\u0301", "◌\u0301"),
        ("\u093f", "◌\u093f"),
        ("(rest)", "(rest)"),
    ],
)
def test_a_label_is_visible(character: str, label: str) -> None:
    assert printable(character) == label
    if len(character) == 1:
        assert Vocabulary(character).symbols() == [".", label]


def test_decode_is_the_inverse_of_encode() -> None:
    vocabulary = Vocabulary("ABC")
    assert vocabulary.encode("CAB") == [3, 1, 2]
    assert vocabulary.decode([3, 1, 2]) == "CAB"
    assert vocabulary.decode([]) == ""


def test_decode_stops_at_the_first_end() -> None:
    assert Vocabulary("ABC").decode([1, 2, END, 3, END]) == "AB"


def test_decoding_many_names_at_once_gives_the_same_names() -> None:
    vocabulary = Vocabulary("'AÉ𝒜")
    rows = np.array([[1, 2, 3, 4], [4, 3, END, END], [END] * 4, [2, END, END, END]])
    expected = ["'AÉ𝒜", "𝒜É", "", "A"]
    assert vocabulary.decode_all(rows) == expected
    assert [vocabulary.decode(row) for row in rows.tolist()] == expected
    assert vocabulary.decode_all(rows[:0]) == []


def test_encode_raises_for_an_unknown_character() -> None:
    with pytest.raises(KeyError):
        Vocabulary("ABC").encode("ABD")


def test_a_stream_can_be_encoded_with_a_larger_vocabulary() -> None:
    corpus = small_corpus()
    stream = encode_stream(["ZOÉ", "IDA"], corpus.vocabulary, corpus.block_size)
    assert Corpus(stream, corpus.vocabulary, corpus.block_size).names() == ["ZOÉ", "IDA"]
    assert stream.dtype == corpus.stream.dtype


@few
@given(NAME_LISTS, BLOCK_SIZES)
def test_a_saved_corpus_is_loaded_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], block_size: int
) -> None:
    path = tmp_path_factory.mktemp("corpus") / "dataset.safetensors"
    corpus = Corpus.from_names(names, block_size)
    save_corpus(path, corpus)
    loaded = load_corpus(path)
    assert loaded.vocabulary == corpus.vocabulary
    assert loaded.block_size == block_size
    assert loaded.stream.dtype == corpus.stream.dtype
    assert np.array_equal(loaded.stream, corpus.stream)
    assert loaded.names() == names


@few
@given(NAME_LISTS, BLOCK_SIZES, st.sampled_from([1, 2, 5, 1 << 20]))
def test_a_corpus_written_in_pieces_has_the_same_bytes(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], block_size: int, chunk: int
) -> None:
    folder = tmp_path_factory.mktemp("corpus")
    corpus = Corpus.from_names(names, block_size)
    save_corpus(folder / "whole", corpus)
    (folder / "names").write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
    with (folder / "names").open("rb") as file, pytest.MonkeyPatch.context() as patch:
        patch.setattr(corpus_module, "CHUNK", chunk)
        size = len(corpus.stream)
        write_corpus(folder / "pieces", file, corpus.vocabulary, block_size, size)
    assert (folder / "pieces").read_bytes() == (folder / "whole").read_bytes()


@few
@given(NAME_LISTS, BLOCK_SIZES, st.integers(1, 40))
def test_chunks_of_any_size_give_the_same_windows_and_names(
    names: list[str], block_size: int, chunk: int
) -> None:
    corpus = Corpus.from_names(names, block_size)
    starts, of_windows = every_window(corpus).starts, corpus.name_of_window()
    targets = every_window(corpus).targets()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(corpus_module, "CHUNK", chunk)
        patch.setattr(windows_module, "CHUNK", chunk)
        assert corpus.count() == (len(names), len(starts))
        assert torch.equal(every_window(corpus).starts, starts)
        assert torch.equal(every_window(corpus).targets(), targets)
        assert np.array_equal(corpus.name_of_window(), of_windows)
        assert corpus.names() == names


def test_a_loaded_stream_stays_on_disk_until_it_is_used(tmp_path: Path) -> None:
    code = """if True:
        import psutil, sys
        from pathlib import Path
        from charlm.data.corpus import load_corpus
        memory = psutil.Process().memory_info
        before = memory().rss
        stream = load_corpus(Path(sys.argv[1])).stream
        print(len(stream), memory().rss - before)
    """
    size = 1 << 28
    with (tmp_path / "large").open("wb") as file:
        metadata = {"characters": "AB", "block_size": 2}
        file.write(tensor_header("stream", np.dtype(np.uint8), size, metadata))
        file.truncate(file.tell() + size)
    length, taken = map(int, run_python(code, tmp_path / "large").split())
    assert length == size
    assert taken < size / 4


@DAMAGED
def test_a_damaged_corpus_is_refused(tmp_path: Path, damage) -> None:
    path = tmp_path / "dataset.safetensors"
    save_corpus(path, small_corpus())
    path.write_bytes(damage(path.read_bytes()))
    with refused(path):
        load_corpus(path)


def test_a_missing_corpus_is_refused(tmp_path: Path) -> None:
    with refused(tmp_path / "none", "does not exist"):
        load_corpus(tmp_path / "none")


@pytest.mark.parametrize(
    ("tensors", "metadata", "lacking"),
    [
        ({}, {"characters": "AB", "block_size": 2}, "stream"),
        ({"stream": torch.zeros(5)}, {"block_size": 2}, "characters"),
        ({"stream": torch.zeros(5)}, {"characters": "AB"}, "block_size"),
    ],
)
def test_another_safetensors_file_is_refused(
    tmp_path: Path, tensors: dict, metadata: dict, lacking: str
) -> None:
    path = tmp_path / "other.safetensors"
    save_tensors(path, tensors, metadata)
    with refused(path, lacking):
        load_corpus(path)


@pytest.mark.parametrize("metadata", [[], "text", 3, None])
def test_metadata_that_are_not_a_mapping_are_refused(tmp_path: Path, metadata: object) -> None:
    path = tmp_path / "other.safetensors"
    save_tensors(path, {"stream": torch.zeros(5)}, metadata)
    with refused(path):
        load_corpus(path)


def test_the_names_of_the_helpers_have_special_cases() -> None:
    corpus = small_corpus()
    assert len(set(NAMES)) == len(NAMES)
    assert {".", "'", "-", "É"} <= set(corpus.vocabulary.characters)
