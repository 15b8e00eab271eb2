"""Select names by their edit distance from a list."""

from collections.abc import Iterator, Sequence

import numpy as np

NAMES = 64
KNOWN = 4096
"""Number of names, and of names in the list, that are compared at once."""


def unlike_all(names: Sequence[str], known: Sequence[str], distance: int) -> Iterator[str]:
    """Yield, in order, the names that are at least `distance` edits away from each of `known`.

    An edit inserts, deletes or replaces a character (Levenshtein 1966). Names are compared lazily,
    `NAMES` at once. A name is dropped as soon as one close to it is found.
    """
    from rapidfuzz import process  # imported only if needed
    from rapidfuzz.distance import Levenshtein

    for start in range(0, len(names), NAMES):
        far = list(names[start : start + NAMES])
        for first in range(0, len(known), KNOWN):
            distances = process.cdist(
                far,
                known[first : first + KNOWN],
                scorer=Levenshtein.distance,
                score_cutoff=distance - 1,  # larger distances are returned as `distance`
                dtype=np.int32,
            )
            far = [far[row] for row in np.flatnonzero((distances >= distance).all(1))]
            if not far:
                break
        yield from far
