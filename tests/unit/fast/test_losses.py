"""The loss of shared logits, as a function of torch's; its loops are in test_kernels.py."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from charlm.fast.losses import summed_cross_entropy
from charlm.fast.sharing import Shared


def batch() -> tuple[Tensor, Tensor, Tensor]:
    """Logits (5, 46) of which one is of nobody, place (12,) and targets (12,)."""
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(5, 46, generator=generator).mul(3).requires_grad_()
    place = torch.randint(4, (12,), generator=generator, dtype=torch.int32)
    return logits, place, torch.randint(46, (12,), generator=generator)


def test_it_is_torchs_cross_entropy_of_what_is_shown() -> None:
    logits, place, targets = batch()
    loss = summed_cross_entropy(logits, Shared([], place), targets)
    assert (loss.dtype, loss.shape) == (torch.float64, ())
    (loss / 12).backward()
    plain = logits.detach().clone().requires_grad_()
    expected = F.cross_entropy(plain[place], targets, reduction="sum")
    (expected / 12).backward()
    torch.testing.assert_close(loss.float(), expected)
    torch.testing.assert_close(logits.grad, plain.grad)
    assert logits.grad is not None
    assert not logits.grad[4].any()


def test_other_numbers_than_float32_are_left_to_torch() -> None:
    logits, place, targets = batch()
    loss = summed_cross_entropy(logits.double(), Shared([], place), targets)
    assert loss == F.cross_entropy(logits.double()[place], targets, reduction="none").sum()


def test_logits_and_targets_of_any_stride_are_taken() -> None:
    logits, place, targets = batch()
    loss = summed_cross_entropy(logits, Shared([], place), targets)
    by_column = logits.detach().t().contiguous().t()
    every_second = torch.stack([targets, targets + 1], dim=1).flatten()[::2]
    assert summed_cross_entropy(by_column, Shared([], place), every_second) == loss


def test_no_windows_lose_nothing() -> None:
    logits, place, targets = batch()
    loss = summed_cross_entropy(logits, Shared([], place[:0]), targets[:0])
    loss.backward()
    assert loss == 0
    assert logits.grad is not None
    assert not logits.grad.any()


def test_more_targets_than_contexts_are_refused_and_fewer_too() -> None:
    """Some of them would be left out, or read from beyond their end."""
    logits, place, targets = batch()
    for some_places, some_targets in ((place[:-1], targets), (place, targets[:-1])):
        with pytest.raises(ValueError, match="not as many targets as contexts"):
            summed_cross_entropy(logits, Shared([], some_places), some_targets)


@pytest.mark.parametrize("target", [-1, 46])
def test_a_target_that_there_is_not_is_refused(target: int) -> None:
    logits, place, targets = batch()
    targets[7] = target
    with pytest.raises(IndexError, match="a target is not in the vocabulary"):
        summed_cross_entropy(logits, Shared([], place), targets)
