"""The pipeline trains with the same mathematics as the notebook loop it is timed against."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from benchmarks import notebook_loop
from charlm.core.params import Recipe
from charlm.data.corpus import Corpus
from charlm.data.windows import Windows, every_window
from charlm.models.base import LanguageModel
from charlm.models.fcn import FCN
from charlm.models.wavenet import WaveNet
from charlm.training.trainer import Trainer
from tests.conftest import ROOT

STEPS = 100
NAMES = ROOT / "data/prenoms.txt"


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [(FCN, notebook_loop.fully_connected_net), (WaveNet, notebook_loop.wavenet)],
    ids=["fcn", "wavenet"],
)
def test_the_same_batches_give_the_same_losses_and_weights(
    ours: type[LanguageModel],
    theirs: Callable[[int], nn.Sequential],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    corpus = Corpus.from_names(NAMES.read_text(encoding="utf-8").split(), notebook_loop.BLOCK_SIZE)
    windows = every_window(corpus)
    number = torch.arange(len(windows))
    train = windows.where(number < STEPS * notebook_loop.BATCH_SIZE)
    val = windows.where(number >= len(windows) - 100 * notebook_loop.BATCH_SIZE)
    model = ours(vocab_size=len(corpus.vocabulary), block_size=corpus.block_size)
    notebook = theirs(len(corpus.vocabulary))
    for mine, others in zip(model.parameters(), notebook.parameters(), strict=True):
        others.data.copy_(mine)

    batches, batch = [], Windows.batch

    def recorded(self: Windows, index: Tensor | slice) -> tuple[Tensor, Tensor]:
        contexts, targets = batch(self, index)
        if self is train:
            size = notebook_loop.BATCH_SIZE
            batches.extend(zip(contexts.split(size), targets.split(size), strict=True))
        return contexts, targets

    monkeypatch.setattr(Windows, "batch", recorded)
    settings = {"lr": notebook_loop.LR, "batch_size": notebook_loop.BATCH_SIZE}
    trainer = Trainer(model, train, val, Recipe(**settings, epochs=1), seed=1)
    trainer.choose_path()  # looks at the first batches
    batches.clear()
    epoch = next(trainer.run(1))
    assert len(batches) == STEPS

    optimizer = torch.optim.SGD(notebook.parameters(), lr=notebook_loop.LR)
    losses = notebook_loop.train_epoch(notebook, batches, optimizer)
    assert losses[-1] < losses[0] - 0.5  # it has learned
    assert epoch.train_loss == pytest.approx(sum(losses) / STEPS, rel=1e-5)
    for mine, others in zip(model.parameters(), notebook.parameters(), strict=True):
        torch.testing.assert_close(mine, others, rtol=1e-3, atol=1e-5)
    val_batches = DataLoader(TensorDataset(*batch(val, slice(None))), notebook_loop.BATCH_SIZE)
    val_loss = notebook_loop.mean_loss(notebook, val_batches)
    assert epoch.val_loss == pytest.approx(val_loss, rel=1e-5)


def test_the_notebook_loop_runs_on_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    few = tmp_path / "few.txt"
    few.write_text("\n".join(NAMES.read_text(encoding="utf-8").split()[:100]), encoding="utf-8")
    monkeypatch.setattr("sys.argv", ["notebook_loop", str(few), "--epochs", "1", "--count", "2"])
    notebook_loop.main()
    printed = capsys.readouterr().out
    assert printed.count("test ") == 2
