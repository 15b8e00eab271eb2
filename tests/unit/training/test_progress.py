"""Progress of training."""

import io
import re
import sys
from types import SimpleNamespace
from typing import cast

import pytest

from charlm.core.params import Recipe
from charlm.training.progress import Progress
from charlm.training.trainer import Epoch, Trainer


class Terminal(io.StringIO):
    """A text stream that claims to be a terminal."""

    def isatty(self) -> bool:
        return True


def progress_of(
    title: str, epochs: int, batches: int, done: int = 0, batches_done: int = 0
) -> Progress:
    """Return the progress of a training after some epochs and some batches of the next one."""
    trainer = SimpleNamespace(
        recipe=Recipe(lr=0.2, batch_size=32, epochs=epochs),
        batches_per_epoch=batches,
        history=[Epoch(number, 3.0, 3.5, 0.2) for number in range(1, done + 1)],
        batches_done=batches_done,
    )
    return Progress(title, cast("Trainer", trainer))


def report(epochs: int, done: int = 0, batches: int = 7) -> None:
    """Report a whole training, or the rest of one."""
    with progress_of("Net A", epochs, batches, done) as progress:
        for number in range(done + 1, epochs + 1):
            progress.batches(batches - 2)
            progress.batches(2)
            progress.epoch(Epoch(number, 3 - number / 100, 3.5 - number / 100, 0.2))


def lines(capsys: pytest.CaptureFixture[str], epochs: int, done: int = 0) -> list[str]:
    report(epochs, done)
    out, err = capsys.readouterr()
    assert out == ""
    assert "\r" not in err
    return err.splitlines()


def shown_epochs(written: list[str]) -> list[int]:
    return [int(re.search(r"epoch (\d+)/", line)[1]) for line in written]


@pytest.mark.parametrize("epochs", [20, 50, 57, 100, 1000])
def test_a_log_has_about_ten_lines(capsys: pytest.CaptureFixture[str], epochs: int) -> None:
    shown = shown_epochs(lines(capsys, epochs))
    assert 9 <= len(shown) <= 13
    assert shown == sorted(set(shown))
    assert (shown[0], shown[-1]) == (1, epochs)


@pytest.mark.parametrize("epochs", [1, 2, 9])
def test_a_short_training_has_a_line_per_epoch(
    capsys: pytest.CaptureFixture[str], epochs: int
) -> None:
    assert shown_epochs(lines(capsys, epochs)) == list(range(1, epochs + 1))


def test_a_line_has_model_epoch_losses_and_time_left(capsys: pytest.CaptureFixture[str]) -> None:
    last = lines(capsys, 50)[-1]
    assert re.fullmatch(r"Net A, epoch 50/50: train 2\.5000, val 3\.0000, 0 s left", last)


def test_a_resumed_training_shows_its_first_and_last_epoch(
    capsys: pytest.CaptureFixture[str],
) -> None:
    shown = shown_epochs(lines(capsys, 50, done=23))
    assert (shown[0], shown[-1]) == (24, 50)
    assert len(shown) <= 8


def on_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Replace standard error by a terminal for the rest of a test."""
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("LINES", "24")
    return stream


def test_a_terminal_shows_a_bar_with_epoch_losses_and_time_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    terminal = on_terminal(monkeypatch)
    report(epochs=3)
    drawn = terminal.getvalue().split("\r")
    assert any("Net A, epoch 1/3 |" in bar and "left" in bar for bar in drawn)
    (after_the_first, *_) = [bar for bar in drawn if "train 2.9900, val 3.4900" in bar]
    assert "Net A, epoch 2/3 |" in after_the_first
    assert re.search(r"\d\d:\d\d left", after_the_first)
    assert "epoch 3/3 |" in drawn[-1]
    assert "train 2.9700, val 3.4700" in drawn[-1]
    assert drawn[-1].endswith("\n")
    assert terminal.getvalue().count("\n") == 1  # one bar, drawn repeatedly
    assert capsys.readouterr() == ("", "")


def filled(bar: str) -> float:
    """Return the fraction of a bar that is filled."""
    drawn = bar.split("|")[1]
    return sum(character not in " ." for character in drawn) / len(drawn)


def test_the_bar_fills_from_epoch_to_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = on_terminal(monkeypatch)
    report(epochs=4)
    drawn = [bar for bar in terminal.getvalue().split("\r") if "|" in bar]
    shares = [filled(bar) for bar in drawn]
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (0, 1)
    (after_the_first, *_) = [bar for bar in drawn if "train 2.9900" in bar]
    assert filled(after_the_first) == pytest.approx(1 / 4, abs=0.1)


def test_the_bar_of_a_resumed_training_starts_where_it_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    terminal = on_terminal(monkeypatch)
    report(epochs=4, done=2)
    first = terminal.getvalue().split("\r")[1]
    assert "epoch 3/4 |" in first
    assert filled(first) == pytest.approx(1 / 2, abs=0.1)


def test_the_bar_fits_an_80_column_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = on_terminal(monkeypatch)
    with progress_of("Fully connected net", 100, 10_000, 98) as progress:
        progress.batches(10_000)
        progress.epoch(Epoch(99, 12.3456, 12.3456, 0.2))
    drawn = terminal.getvalue().strip("\n").split("\r")
    assert max(map(len, drawn)) <= 80
    assert "Fully connected net, epoch 100/100 |" in drawn[-1]
    assert "train 12.346, val 12.346" in drawn[-1]
    assert drawn[-1].rstrip().endswith("left")


def test_a_finished_training_can_be_resumed_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = on_terminal(monkeypatch)
    report(epochs=3, done=3)
    assert "epoch 3/3 |" in terminal.getvalue()


def test_resuming_a_finished_training_logs_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert lines(capsys, epochs=3, done=3) == []


def test_the_bar_is_closed_when_training_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = on_terminal(monkeypatch)
    progress = progress_of("Net A", 3, 7, 0)  # a reference keeps the bar open
    with pytest.raises(ValueError, match="stop"), progress:
        raise ValueError("stop")
    assert terminal.getvalue().endswith("\n")


def test_a_bar_resumed_in_the_middle_of_an_epoch_starts_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    with progress_of("Net A", 3, 7, done=1, batches_done=5) as progress:
        assert progress.bar.n == 12
        assert progress.first == 2
