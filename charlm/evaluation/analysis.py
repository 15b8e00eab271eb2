"""Break a model's errors down by position in the name, by character, and by confidence.

W windows, V vocabulary.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from charlm.data.corpus import END, Vocabulary
from charlm.data.windows import Windows
from charlm.fast.running import Model, batched_logits

MOST_FREQUENT = 27
"""Number of characters listed in a table of mistakes; all rarer ones are grouped as `REST`."""

ENDING, REST = "(end)", "(rest)"
"""Labels for the end of a name and for rarer characters; they cannot equal a character."""

BINS = 10


@torch.inference_mode()
def predictions(model: Model, windows: Windows) -> tuple[Tensor, Tensor]:
    """Return the most likely token (W,) and its probability (W,), on the CPU."""
    confidences, predicted = [], []
    for logits, _ in batched_logits(model, windows):
        highest = logits.softmax(1).max(1)
        confidences.append(highest.values.cpu())
        predicted.append(highest.indices.cpu())
    return torch.cat(predicted), torch.cat(confidences)


def positions(windows: Windows) -> dict[str, NDArray[np.int64]]:
    """Return the "position" (W,) of each target in its name, and the "length" (W,) of the name.

    Positions start at 1. The end of a name is at position length + 1.
    """
    stream, T = windows.stream.numpy(), windows.block_size
    closes = np.flatnonzero((stream[1:] == END) & (stream[:-1] != END)) + 1  # (names,)
    targets = windows.starts.numpy().astype(np.int64) + T
    name = np.searchsorted(closes, targets)
    begins = np.concatenate(([0], closes[:-1]))[name] + T
    return {"position": targets - begins + 1, "length": closes[name] - begins}


def mean_by(key: NDArray[np.int64], losses: Mapping[str, Tensor], title: str) -> pd.DataFrame:
    """Average each model's losses (W,) over the windows with the same `key` (W,).

    Columns: model, `title` (the key, ascending), windows (number), loss (mean).
    """
    tables = []
    for model, values in losses.items():
        grouped = pd.Series(values.double().numpy()).groupby(key)
        table = grouped.agg(["size", "mean"]).rename_axis(title).reset_index()
        table.columns = pd.Index([title, "windows", "loss"])
        table.insert(0, "model", model)
        tables.append(table)
    return pd.concat(tables)


def mistakes(predicted: Tensor, targets: Tensor, vocabulary: Vocabulary) -> pd.DataFrame:
    """Count how often each character was predicted for each target (a sparse confusion matrix).

    Args:
        predicted: (W,) the most likely tokens.
        targets: (W,) the actual tokens.

    Columns: actual, predicted, windows. Only pairs that occur are listed, in token order. The
    `MOST_FREQUENT` most frequent targets are listed by name, all others as `REST`.
    """
    V = len(vocabulary)
    frequency = torch.bincount(targets.long(), minlength=V)
    frequent = frequency.argsort(descending=True, stable=True)[:MOST_FREQUENT].sort().values
    labels = [ENDING, *vocabulary.characters]
    names = [*(labels[token] for token in frequent.tolist()), REST]
    column = torch.full((V,), len(frequent))
    column[frequent] = torch.arange(len(frequent))
    pairs = column[targets.long()] * len(names) + column[predicted.long()]
    found, windows = torch.unique(pairs, return_counts=True)
    actual, instead = (found // len(names)).tolist(), (found % len(names)).tolist()
    return pd.DataFrame(
        {
            "actual": [names[row] for row in actual],
            "predicted": [names[row] for row in instead],
            "windows": windows.tolist(),
        }
    )


def calibration(confidence: Tensor, correct: Tensor) -> pd.DataFrame:
    """Bin the windows by confidence, and compare confidence with accuracy in each bin.

    The reliability diagram of Guo et al. (2017), figure 1, with bins of equal size, by increasing
    confidence.

    Args:
        confidence: (W,) the probability of the most likely token.
        correct: (W,) whether it was the target.

    Columns: confidence and accuracy (means over the bin), windows.
    """
    order = confidence.argsort(stable=True)
    bins = [chosen for chosen in order.tensor_split(BINS) if len(chosen)]
    return pd.DataFrame(
        {
            "confidence": [confidence[chosen].double().mean().item() for chosen in bins],
            "accuracy": [correct[chosen].double().mean().item() for chosen in bins],
            "windows": [len(chosen) for chosen in bins],
        }
    )
