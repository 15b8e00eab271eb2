"""Training progress: a bar on a terminal, a few lines in a log."""

import shutil
import sys
import time
from types import TracebackType

from tqdm import tqdm

from charlm.training.trainer import Epoch, Trainer

LINES = 10
"""Approximate number of lines per training in a log."""


class Progress:
    """Shows epochs, losses and the remaining time on standard error."""

    def __init__(self, title: str, trainer: Trainer) -> None:
        epochs, batches_per_epoch = trainer.recipe.epochs, trainer.batches_per_epoch
        self.title = title
        self.epochs = epochs
        epochs_done = len(trainer.history)
        self.first = epochs_done + 1
        self.began = time.monotonic()
        size = shutil.get_terminal_size()  # 80 by 24 if unknown
        self.bar = tqdm(
            total=epochs * batches_per_epoch,
            initial=epochs_done * batches_per_epoch + trainer.batches_done,
            desc=f"{title}, epoch {min(self.first, epochs)}/{epochs}",
            bar_format="{desc} |{bar}|{postfix}, {remaining} left",
            ncols=size.columns,
            nrows=size.lines,
            disable=not sys.stderr.isatty(),
        )

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.bar.close()

    def batches(self, count: int) -> None:
        """Advance the bar by `count` batches."""
        self.bar.update(count)

    def epoch(self, epoch: Epoch) -> None:
        """Show the losses of a finished epoch."""
        losses = f"train {epoch.train_loss:#.5g}, val {epoch.val_loss:#.5g}"
        if not self.bar.disable:
            self.bar.set_postfix_str(losses, refresh=False)
            following = min(epoch.epoch + 1, self.epochs)
            self.bar.set_description_str(f"{self.title}, epoch {following}/{self.epochs}")
            return
        every = max(1, self.epochs // LINES)
        if epoch.epoch in (self.first, self.epochs) or epoch.epoch % every == 0:
            pace = (time.monotonic() - self.began) / (epoch.epoch - self.first + 1)
            left = pace * (self.epochs - epoch.epoch)
            print(
                f"{self.title}, epoch {epoch.epoch}/{self.epochs}: {losses}, {left:.0f} s left",
                file=sys.stderr,
                flush=True,
            )

    def ended(self, trainer: Trainer) -> None:
        """Print a line if training stopped before the last epoch."""
        if len(trainer.history) < self.epochs:
            print(
                f"{self.title}: stopped early after epoch {len(trainer.history)}; "
                f"the best epoch was {trainer.best_epoch}",
                flush=True,
            )
