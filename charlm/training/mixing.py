"""Fit the weights of a mixture of models."""

import numpy as np
from numpy.typing import NDArray

Reals = NDArray[np.float64]

ROUNDS = 200
"""Number of updates of the weights. More change the loss by less than 1e-5."""

SMALLEST = 0.05
"""Models with a smaller weight are dropped, because they are not worth their time."""


def mixture_weights(probs: Reals) -> Reals:
    """Return the weights (M,) of the mixture with the highest likelihood; many are zero.

    By expectation-maximization (Jelinek and Mercer 1980). It is repeated without the model with the
    smallest weight until no weight is below `SMALLEST`.

    Args:
        probs: (M, W) each model's probability of the target of each window.
    """
    chosen = list(range(len(probs)))
    while True:
        weights = np.full(len(chosen), 1 / len(chosen))
        for _ in range(ROUNDS):
            shares = weights[:, None] * probs[chosen]
            weights = (shares / shares.sum(0)).mean(1)
        if weights.min() >= min(SMALLEST, 1 / len(chosen)):
            break
        chosen.pop(int(weights.argmin()))
    every = np.zeros(len(probs))
    every[chosen] = weights
    return every
