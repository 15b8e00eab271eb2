"""Character-level language models of names."""

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from charlm.trained import TrainedModel


def load(path: str | os.PathLike[str]) -> "TrainedModel":
    """Load a trained model from a checkpoint written by the pipeline.

        model = charlm.load("data/checkpoints/compact.safetensors")
        model.sample(prefix="MAR", count=20)
        model.score("MARTINE")[0].log_likelihood

    Raises `charlm.core.errors.FileError` if the file is missing, damaged, or not a checkpoint.
    """
    from charlm.trained import TrainedModel  # here, so that `import charlm` does not import torch

    return TrainedModel.load(path)
