"""Reading what somebody types in the characters that a model knows.

Who types "zoë" for a model of upper-case names means "ZOË", or "ZOE" where no name has an Ë.
Each character is taken in the first of these ways for which the vocabulary has characters:

1. as it is (in Unicode's NFC, as the names are);
2. written otherwise: other apostrophes and dashes, full-width letters, ligatures (ﬁ);
3. in another case;
4. with fewer accents, or as the letters it is replaced by (Œ: OE), in any case.

Where that way leads to more than one reading, none is taken: no guess is made.
"""

from collections.abc import Iterable, Iterator, Set
from itertools import combinations
from unicodedata import combining, normalize

from charlm.core.errors import InputError

ALIKE = ("'’‘ʼʻ′´`", "-‐‑‒–—―−", " \u00a0\u2009\u202f")
"""Characters that are typed for each other."""

_CAPITALS = {
    **{"Æ": "AE", "Œ": "OE", "Ø": "O", "Đ": "D", "Ð": "D", "Þ": "TH"},
    **{"Ł": "L", "Ħ": "H", "Ŧ": "T", "ẞ": "SS"},
}
REPLACED = _CAPITALS | {letter.lower(): other.lower() for letter, other in _CAPITALS.items()}
"""Letters that Unicode does not decompose, by what is written where they are missing."""

OTHER_CASE = {"i": "İ", "I": "ı", "ı": "iI", "İ": "iI"}
"""Beyond what Unicode says: in Turkish the i keeps its dot in upper case, and the I has none."""

ACCENT = 200
"""The lowest combining class of accents; below are marks that make another sound, such as ゛."""
MANY = 4
"""Accents on one letter, beyond which they are dropped all at once."""


def fold(text: str, characters: Set[str]) -> str:
    """`text` in NFC and in `characters` only; unchanged, where it is that already.

    Raises InputError where a character has no reading, and where it has more than one.
    """
    text = normalize("NFC", text)
    if characters >= set(text):
        return text
    readings = {cluster: _readings(cluster, characters) for cluster in _clusters(text)}
    unknown = {cluster for cluster, found in readings.items() if not found}
    if not unknown:
        for cluster, found in readings.items():
            if len(found) > 1:
                raise InputError(
                    f"{cluster!r} in {_shown(text)} may be {' or '.join(map(repr, found))}, "
                    "each of which is known; write the one that is meant"
                )
        folded = normalize("NFC", "".join(readings[cluster][0] for cluster in _clusters(text)))
        unknown = set(folded) - characters
        if not unknown:
            return folded
    raise InputError(
        f"{_shown(text)} holds {', '.join(map(repr, sorted(unknown)))}, which the model has never "
        f"seen; the known characters are: {''.join(sorted(characters))}"
    )


def _shown(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:37]}...")


def _clusters(text: str) -> Iterator[str]:
    """The characters of `text`, each with the marks that follow it."""
    cluster = ""
    for character in text:
        if cluster and not combining(character):
            yield cluster
            cluster = ""
        cluster += character
    if cluster:
        yield cluster


def _readings(cluster: str, characters: Set[str]) -> list[str]:
    """What `cluster` may be, by the first way that leads to anything, in code point order."""
    for forms in _ways(cluster, characters):
        composed = {normalize("NFC", form) for form in forms if form}
        if found := sorted(form for form in composed if characters >= set(form)):
            return found
    return []


def _ways(cluster: str, characters: Set[str]) -> Iterator[Iterable[str]]:
    """The forms of `cluster` that are to be tried, those of one way after those of another."""
    yield [cluster]
    spellings = _spellings(cluster)
    yield spellings
    yield _in_any_case(spellings, characters)
    for barer in _with_fewer_accents(spellings):
        # There is no Œ to keep the case of: its letters may be of any, and ß's too.
        yield _in_any_case(barer, characters) | {other for form in barer for other in _cases(form)}


def _spellings(cluster: str) -> set[str]:
    """`cluster`, and what looks like it or is the same in a plainer form."""
    plain = normalize("NFKC", cluster)
    # A lone accent would become a blank with that accent.
    spellings = {cluster} if " " in plain and not cluster.isspace() else {cluster, plain}
    for form in tuple(spellings):
        for alike in ALIKE:
            if form[0] in alike:
                spellings.update(character + form[1:] for character in alike)
    return spellings


def _in_any_case(forms: Iterable[str], characters: Set[str]) -> set[str]:
    """The forms with their case changed, and nothing more: ß is not SS."""
    cased = set(forms)
    for form in forms:
        length = len(normalize("NFD", form))
        cased.update(other for other in _cases(form) if len(normalize("NFD", other)) == length)
        cased.update(known for known in characters if known.casefold() == form.casefold())
        cased.update(OTHER_CASE.get(form, ""))
    return cased


def _cases(form: str) -> tuple[str, str, str]:
    return form.lower(), form.upper(), form.title()


def _with_fewer_accents(forms: Iterable[str]) -> Iterator[set[str]]:
    """The forms without one of their accents, without two, and so on; letters replaced at last."""
    decomposed = [normalize("NFD", form) for form in forms if not combining(form[0])]
    most = max((len(_accents(form)) for form in decomposed), default=0)
    for number in range(1 if most <= MANY else most, most + 1):
        yield {barer for form in decomposed for barer in _without(form, number)}
    bare = {_without(form, len(_accents(form)))[0] for form in decomposed}
    yield {"".join(REPLACED.get(character, character) for character in form) for form in bare}


def _accents(form: str) -> list[int]:
    return [place for place, character in enumerate(form) if combining(character) >= ACCENT]


def _without(form: str, number: int) -> list[str]:
    """`form` without that many of its accents, whichever they are."""
    return [
        "".join(character for place, character in enumerate(form) if place not in dropped)
        for dropped in combinations(_accents(form), number)
    ]
