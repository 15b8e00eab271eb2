"""Windows: contexts and targets."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given

from charlm.data.corpus import Corpus
from charlm.data.windows import _index_dtype, every_window
from tests.helpers import NAME_LISTS, few, small_corpus
from tests.unit.data.test_corpus import BLOCK_SIZES


def course_windows(names: list[str], block_size: int) -> tuple[list[list[int]], list[int]]:
    """Return the windows one by one, as in the course's notebook."""
    characters = sorted(set("".join(names)))
    token_of = {character: token for token, character in enumerate(characters, start=1)}
    X, Y = [], []
    for name in names:
        context = [0] * block_size
        for token in [*(token_of[character] for character in name), 0]:
            X.append(context)
            Y.append(token)
            context = [*context[1:], token]
    return X, Y


@few
@given(NAME_LISTS, BLOCK_SIZES)
def test_windows_match_the_double_loop_of_the_course(names: list[str], block_size: int) -> None:
    X, Y = course_windows(names, block_size)
    windows = every_window(Corpus.from_names(names, block_size))
    contexts, targets = windows.batch(slice(None))
    assert len(windows) == len(Y)
    assert contexts.tolist() == X
    assert targets.tolist() == Y


def test_batch_picks_windows_by_index_or_slice() -> None:
    windows = every_window(small_corpus())
    contexts, targets = windows.batch(slice(None))
    index = torch.tensor([5, 0, 5, 17])
    for picked, expected in [
        (index, index),
        (index.int(), index),
        (index[:0], index[:0]),
        (slice(3, 9), torch.arange(3, 9)),
        (slice(3, 9, 2), torch.arange(3, 9, 2)),
    ]:
        some_contexts, some_targets = windows.batch(picked)
        assert (some_contexts.dtype, some_targets.dtype) == (torch.int32, torch.int64)
        assert torch.equal(some_contexts, contexts[expected])
        assert torch.equal(some_targets, targets[expected])


def test_a_window_outside_the_stream_is_refused() -> None:
    windows = every_window(small_corpus())
    beyond = len(windows.stream) - windows.block_size
    for start in (-1, beyond, 2**31 - 1):
        starts = torch.tensor([0, start], dtype=torch.int32)
        with pytest.raises(IndexError, match="a window is outside the stream"):
            replace(windows, starts=starts).batch(slice(None))


def test_targets_and_previous_tokens_match_the_windows() -> None:
    windows = every_window(small_corpus())
    contexts, targets = windows.batch(slice(None))
    assert torch.equal(windows.targets().long(), targets)
    assert torch.equal(windows.previous().long(), contexts[:, -1])


def test_where_keeps_the_masked_windows_in_order_over_the_same_stream() -> None:
    windows = every_window(small_corpus())
    mask = torch.arange(len(windows)) % 3 == 1
    chosen = windows.where(mask)
    assert len(chosen) == mask.sum().item()
    assert torch.equal(chosen.starts, windows.starts[1::3])
    assert chosen.stream.data_ptr() == windows.stream.data_ptr()


def test_windows_can_be_moved_to_a_device() -> None:
    moved = every_window(small_corpus()).to(torch.device("meta"))
    assert moved.stream.is_meta
    assert moved.starts.is_meta


def test_a_window_takes_four_bytes_in_addition_to_the_stream() -> None:
    assert every_window(small_corpus()).starts.dtype == torch.int32


def test_windows_of_a_very_long_stream_take_eight_bytes() -> None:
    corpus = small_corpus()
    long = np.broadcast_to(np.zeros(1, dtype=np.uint8), 2**31)
    assert _index_dtype(replace(corpus, stream=long)) == torch.int64
