"""Read the tables written by earlier stages.

Each function raises FileError if its file is missing, damaged or lacks a model.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from charlm.core.files import read_numbers, read_table

if TYPE_CHECKING:
    import pandas as pd

MEASURED = (
    "test_loss",
    "test_loss_stderr",
    "test_bits_per_character",
    "test_perplexity",
    "test_accuracy",
)


def read_comparison(path: Path, models: Sequence[str]) -> dict[str, dict[str, float]]:
    """Read the results of `metrics.summarize`, by model."""
    columns = {"model": str, **dict.fromkeys(MEASURED, float), "parameters": int, "memorized": bool}
    table = read_table(path, columns, models)
    numbers = table.drop(columns="model").to_dict("records")
    return {
        model: {str(key): value for key, value in row.items()}
        for model, row in zip(table["model"], numbers, strict=True)
    }


def read_history(path: Path) -> "pd.DataFrame":
    """Read a model's losses and learning rate by epoch."""
    return read_numbers(path, ["epoch", "train_loss", "val_loss", "lr"])


def read_calibration(path: Path, models: Sequence[str]) -> "dict[str, pd.DataFrame]":
    """Read the results of `analysis.calibration`, by model."""
    columns = {"model": str, "confidence": float, "accuracy": float, "windows": int}
    return _by_model(read_table(path, columns, models), models)


def read_mistakes(path: Path, models: Sequence[str]) -> "dict[str, pd.DataFrame]":
    """Read the results of `analysis.mistakes`, by model."""
    columns = {"model": str, "actual": str, "predicted": str, "windows": int}
    return _by_model(read_table(path, columns, models), models)


def read_samples(path: Path) -> "pd.DataFrame":
    """Read the names that a model generated."""
    return read_table(path, {"name": str, "log_likelihood": float, "in_training": bool})


def read_loss_by(path: Path, column: str, models: Sequence[str]) -> "pd.DataFrame":
    """Read the results of `analysis.mean_by`, in the form of `side_by_side`."""
    columns = {"model": str, column: int, "windows": int, "loss": float}
    return side_by_side(read_table(path, columns, models), column)


def side_by_side(table: "pd.DataFrame", column: str) -> "pd.DataFrame":
    """Pivot the results of `analysis.mean_by`: columns `column`, windows and one per model."""
    return table.pivot(index=[column, "windows"], columns="model", values="loss").reset_index()


def _by_model(table: "pd.DataFrame", models: Sequence[str]) -> "dict[str, pd.DataFrame]":
    return {name: table[table["model"] == name].drop(columns="model") for name in models}
