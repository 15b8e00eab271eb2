"""The real name that an invented one is most like."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from rapidfuzz import process
from rapidfuzz.distance import Levenshtein

from charlm.data.corpus import Corpus


@dataclass(frozen=True)
class Neighbour:
    """A name of the list, and how many characters have to be changed, put in or left out."""

    name: str
    distance: int


def nearest_names(names: Sequence[str], corpus: Corpus) -> list[Neighbour]:
    """The nearest name of the corpus to each of `names`; of several, the first of the list.

    By the distance of Levenshtein (1966).
    """
    best: list[Neighbour | None] = [None] * len(names)
    for chunk in corpus.name_chunks():
        if not chunk:
            continue
        distances = process.cdist(names, chunk, scorer=Levenshtein.distance, dtype=np.int32)
        for row, column in enumerate(distances.argmin(1).tolist()):
            found, before = Neighbour(chunk[column], int(distances[row, column])), best[row]
            if before is None or found.distance < before.distance:
                best[row] = found
    return [neighbour for neighbour in best if neighbour]
