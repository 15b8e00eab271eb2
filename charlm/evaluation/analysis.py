"""Where a model is right and where it is wrong: by place in the name, by character, by confidence.

W windows, V vocabulary, K characters told apart, B bins.
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

TOLD_APART = 27
"""Characters that a table of mistakes tells apart; what is rarer is one more, `REST`."""

ENDING, REST = "(end)", "(rest)"
"""What such a table calls the end of a name and the rarer characters: longer than any character."""

BINS = 10


@torch.inference_mode()
def predictions(model: Model, windows: Windows) -> tuple[Tensor, Tensor]:
    """(W,) the token that the model finds likeliest, and (W,) its probability; on the CPU."""
    confidences, predicted = [], []
    for logits, _ in batched_logits(model, windows):
        highest = logits.softmax(1).max(1)
        confidences.append(highest.values.cpu())
        predicted.append(highest.indices.cpu())
    return torch.cat(predicted), torch.cat(confidences)


def places(windows: Windows) -> dict[str, NDArray[np.int64]]:
    """Where each target is: its "position" in its name (W,), and the "length" of that name (W,).

    The first character is at 1; the end of a name comes after its last.
    """
    stream, T = windows.stream.numpy(), windows.block_size
    closes = np.flatnonzero((stream[1:] == END) & (stream[:-1] != END)) + 1  # (names,)
    targets = windows.starts.numpy().astype(np.int64) + T
    name = np.searchsorted(closes, targets)
    begins = np.concatenate(([0], closes[:-1]))[name] + T
    return {"position": targets - begins + 1, "length": closes[name] - begins}


def mean_by(key: NDArray[np.int64], losses: Mapping[str, Tensor], title: str) -> pd.DataFrame:
    """Average the losses (W,) of each model by `key` (W,).

    Columns: model, `title` (ascending), windows (how many have it), loss (the mean over them).
    """
    tables = []
    for model, its in losses.items():
        grouped = pd.Series(its.double().numpy()).groupby(key)
        table = grouped.agg(["size", "mean"]).rename_axis(title).reset_index()
        table.columns = pd.Index([title, "windows", "loss"])
        table.insert(0, "model", model)
        tables.append(table)
    return pd.concat(tables)


def mistakes(predicted: Tensor, targets: Tensor, vocabulary: Vocabulary) -> pd.DataFrame:
    """How often each character was taken for each other, right answers included.

    Args:
        predicted: (W,) the likeliest tokens.
        targets: (W,) what came.

    Columns: actual, predicted, windows; only pairs that occur, of the `TOLD_APART` targets that
    are the most frequent, in the order of the tokens, and `REST`.
    """
    V = len(vocabulary)
    frequency = torch.bincount(targets.long(), minlength=V)
    frequent = frequency.argsort(descending=True, stable=True)[:TOLD_APART].sort().values
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
    """How often the likeliest token came, against how sure the model was of it, in bins.

    The reliability diagram of Guo et al. (2017), figure 1, in bins of equally many windows, the
    least sure first.

    Args:
        confidence: (W,) the probability of the likeliest token.
        correct: (W,) whether it came.

    Columns: confidence and accuracy (means over the bin), windows.
    """
    order = confidence.argsort(stable=True)
    bins = [its for its in order.tensor_split(BINS) if len(its)]
    return pd.DataFrame(
        {
            "confidence": [confidence[its].double().mean().item() for its in bins],
            "accuracy": [correct[its].double().mean().item() for its in bins],
            "windows": [len(its) for its in bins],
        }
    )
