"""Find the real name nearest to a generated one."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from rapidfuzz import process
from rapidfuzz.distance import Levenshtein

from charlm.data.corpus import Corpus


@dataclass(frozen=True)
class Neighbor:
    """A name of the list and its edit distance."""

    name: str
    distance: int


def nearest_names(names: Sequence[str], corpus: Corpus) -> list[Neighbor]:
    """Return the nearest name of the corpus to each of `names`; in a tie, the first of the list.

    The distance is that of Levenshtein (1966).
    """
    best: list[Neighbor | None] = [None] * len(names)
    for chunk in corpus.name_chunks():
        if not chunk:
            continue
        distances = process.cdist(names, chunk, scorer=Levenshtein.distance, dtype=np.int32)
        for row, column in enumerate(distances.argmin(1).tolist()):
            found, before = Neighbor(chunk[column], int(distances[row, column])), best[row]
            if before is None or found.distance < before.distance:
                best[row] = found
    return [neighbor for neighbor in best if neighbor]
