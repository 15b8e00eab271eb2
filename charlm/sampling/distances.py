"""Tell which names are unlike all of a list, by edit distance."""

from collections.abc import Iterator, Sequence

import numpy as np

NAMES = 64
KNOWN = 4096
"""Names, and names of the list, that are compared at once."""


def unlike_all(names: Sequence[str], known: Sequence[str], distance: int) -> Iterator[str]:
    """Yield each of `names` at least `distance` edits from each of `known`, in order.

    An edit inserts, deletes or replaces a character (Levenshtein 1966). Names are compared as they
    are asked for, `NAMES` at once, and with no more of the list once a near one is found.
    """
    from rapidfuzz import process  # of what people call, nothing else needs it
    from rapidfuzz.distance import Levenshtein

    for start in range(0, len(names), NAMES):
        far = list(names[start : start + NAMES])
        for first in range(0, len(known), KNOWN):
            distances = process.cdist(
                far,
                known[first : first + KNOWN],
                scorer=Levenshtein.distance,
                score_cutoff=distance - 1,  # larger ones are all `distance`
                dtype=np.int32,
            )
            far = [far[row] for row in np.flatnonzero((distances >= distance).all(1))]
            if not far:
                break
        yield from far
