"""Convert user input to the characters of a model's vocabulary.

For a model of upper-case names, "zoë" becomes "ZOË", or "ZOE" if no name contains Ë. Each
character is replaced by the first of these conversions that gives known characters:

1. no conversion (except to NFC and without invisible characters, as in the training names);
2. typographic variants: other apostrophes and dashes, full-width letters, ligatures (ﬁ);
3. another case;
4. fewer accents, or replacement letters (Œ: OE), in any case.

An ambiguous conversion raises an error.
"""

from collections.abc import Iterable, Iterator, Set
from itertools import combinations
from unicodedata import combining, normalize

from charlm.core.errors import InputError
from charlm.names.invisible import drop_invisible

ALIKE = ("'’‘ʼʻ′´`", "-‐‑‒–—―−", " \u00a0\u2009\u202f")
"""Groups of characters that people type in place of each other."""

_CAPITALS = {
    **{"Æ": "AE", "Œ": "OE", "Ø": "O", "Đ": "D", "Ð": "D", "Þ": "TH"},
    **{"Ł": "L", "Ħ": "H", "Ŧ": "T", "ẞ": "SS"},
}
REPLACED = _CAPITALS | {letter.lower(): other.lower() for letter, other in _CAPITALS.items()}
"""Replacements of letters that Unicode does not decompose."""

OTHER_CASE = {"i": "İ", "I": "ı", "ı": "iI", "İ": "iI"}
"""Additions to Unicode's case mapping: Turkish has a dotted and a dotless i in both cases."""

ACCENT = 200
"""The lowest combining class of accents. Marks below it change the sound, for example ゛."""
MANY = 4
"""If one letter has more accents than this, all are dropped at once."""


def fold(text: str, characters: Set[str]) -> str:
    """Convert `text` to NFC and to `characters`.

    Raises InputError if a character cannot be converted, or in more than one way.
    """
    text = normalize("NFC", text)
    if characters >= set(text):
        return text
    text = drop_invisible(text)
    readings = {cluster: _readings(cluster, characters) for cluster in _clusters(text)}
    unknown = {cluster for cluster, found in readings.items() if not found}
    if not unknown:
        for cluster, found in readings.items():
            if len(found) > 1:
                raise InputError(
                    f"{cluster!r} in {_shown(text)} could mean "
                    f"{' or '.join(map(repr, found))}; type the one you mean"
                )
        folded = normalize("NFC", "".join(readings[cluster][0] for cluster in _clusters(text)))
        unknown = set(folded) - characters
        if not unknown:
            return folded
    raise InputError(
        f"{_shown(text)} contains {', '.join(map(repr, sorted(unknown)))}, which the model does "
        f"not know; the known characters are: {''.join(sorted(characters))}"
    )


def _shown(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:37]}...")


def _clusters(text: str) -> Iterator[str]:
    """Yield the characters of `text`, each with its combining marks."""
    cluster = ""
    for character in text:
        if cluster and not combining(character):
            yield cluster
            cluster = ""
        cluster += character
    if cluster:
        yield cluster


def _readings(cluster: str, characters: Set[str]) -> list[str]:
    """Return the results of the first conversion of `cluster` that gives any, sorted."""
    for forms in _ways(cluster, characters):
        composed = {normalize("NFC", form) for form in forms if form}
        if found := sorted(form for form in composed if characters >= set(form)):
            return found
    return []


def _ways(cluster: str, characters: Set[str]) -> Iterator[Iterable[str]]:
    """Yield the candidate forms of `cluster`, conversion by conversion."""
    yield [cluster]
    spellings = _spellings(cluster)
    yield spellings
    yield _in_any_case(spellings, characters)
    for barer in _with_fewer_accents(spellings):
        # Replacement letters (Œ: OE, ß: SS) can have any case.
        yield _in_any_case(barer, characters) | {other for form in barer for other in _cases(form)}


def _spellings(cluster: str) -> set[str]:
    """Return `cluster`, its look-alikes and its compatibility form (NFKC)."""
    plain = normalize("NFKC", cluster)
    # NFKC turns a lone accent into a space with that accent.
    spellings = {cluster} if " " in plain and not cluster.isspace() else {cluster, plain}
    for form in tuple(spellings):
        for alike in ALIKE:
            if form[0] in alike:
                spellings.update(character + form[1:] for character in alike)
    return spellings


def _in_any_case(forms: Iterable[str], characters: Set[str]) -> set[str]:
    """Return the forms in any case, keeping their length: ß does not become SS."""
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
    """Yield the forms with one accent fewer, two fewer, and so on; then with letters replaced."""
    decomposed = [normalize("NFD", form) for form in forms if not combining(form[0])]
    most = max((len(_accents(form)) for form in decomposed), default=0)
    for number in range(1 if most <= MANY else most, most + 1):
        yield {barer for form in decomposed for barer in _without(form, number)}
    bare = {_without(form, len(_accents(form)))[0] for form in decomposed}
    yield {"".join(REPLACED.get(character, character) for character in form) for form in bare}


def _accents(form: str) -> list[int]:
    return [place for place, character in enumerate(form) if combining(character) >= ACCENT]


def _without(form: str, number: int) -> list[str]:
    """Return all forms that result from removing `number` accents from `form`."""
    return [
        "".join(character for place, character in enumerate(form) if place not in dropped)
        for dropped in combinations(_accents(form), number)
    ]
