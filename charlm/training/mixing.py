"""The weights of a mixture of models."""

import numpy as np
from numpy.typing import NDArray

Reals = NDArray[np.float64]

ROUNDS = 200
"""Updates of the weights; more change a loss by less than 1e-5."""

SMALLEST = 0.05
"""Models with a smaller weight are left out: they would cost more time than they gain."""


def mixture_weights(probs: Reals) -> Reals:
    """Return the weights (M,) of the mixture with the highest likelihood; many are zero.

    By expectation-maximization (Jelinek and Mercer 1980), again after the models with the smallest
    weights have been left out one by one.

    Args:
        probs: (M, W) the probability that each model gives to the target of each window.
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
