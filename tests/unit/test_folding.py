"""Input is converted to the characters of a model, without guessing."""

from unicodedata import normalize

import pytest
from hypothesis import given
from hypothesis import strategies as st

from charlm.core.errors import InputError
from charlm.folding import fold
from tests.helpers import few, refused, taken_or_refused

CAPITALS = frozenset("'-.ABCDEFGHIJKLMNOPQRSTUVWXYZÀÂÄÆÇÈÉÊËÎÏÔÖÙÛÜŸ")
"""About the characters of the default names."""

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
NEAR = st.text(
    st.sampled_from("aAáÁàâÂạếêéÊiIıİßẞsSœŒæøoO'’‘-–—ñn\u0301\u0308ﬁfＡａσςΣカガ゛"), max_size=8
)
VOCABULARIES = NEAR.map(lambda text: frozenset(normalize("NFC", text)))


@pytest.mark.parametrize(
    ("text", "characters", "reading"),
    [
        ("MAR", CAPITALS, "MAR"),
        ("mar", CAPITALS, "MAR"),
        ("ZOË", "zoë", "zoë"),
        ("Zoë", CAPITALS, "ZOË"),
        ("Zoë", "ZOE", "ZOE"),
        ("Zoe\u0308", CAPITALS, "ZOË"),
        ("anna", "anA", "anna"),
        ("ñandú", CAPITALS, "NANDU"),
        ("straße", CAPITALS, "STRASSE"),
        ("straße", "STRASẞE", "STRAẞE"),
        ("STRAẞE", "straße", "straße"),
        ("straße", "strae", "strasse"),
        ("œdipe, ægir", CAPITALS | set(", "), "OEDIPE, ÆGIR"),
        ("Łukasz Đorđe Þór", CAPITALS | {" "}, "LUKASZ DORDE THOR"),
        ("ısık", CAPITALS, "ISIK"),
        ("İpek", CAPITALS, "IPEK"),
        ("ısık İpek", "ISKİPE ", "ISIK İPEK"),
        ("IŞIK", "ışk", "ışık"),
        ("d’arcy", CAPITALS, "D'ARCY"),
        ("D'Arcy", "D’ARCY", "D’ARCY"),
        ("jean‐luc—marie", CAPITALS, "JEAN-LUC-MARIE"),
        ("Ａｎｎａ", CAPITALS, "ANNA"),
        ("ﬁona", CAPITALS, "FIONA"),
        ("a\u00a0b", "AB ", "A B"),
        ("Ελένη", "ΕΛΝΗΈ", "ΕΛΈΝΗ"),
        ("Ελένη", "ΕΛΝΗ", "ΕΛΕΝΗ"),
        ("ЁЛКА", "елка", "елка"),
        ("m\u0308a", "M\u0308A", "M\u0308A"),
        ("m\u0308a", "MA", "MA"),
        ("ẗ", "T\u0308", "T\u0308"),
        ("ế", "EÊ", "Ê"),
        ("ế", "E", "E"),
        ("z" + "\u0301" * 300, "Z", "Z"),
        ("", CAPITALS, ""),
        ("é", "Éa", "É"),
        ("á", "Áa", "Á"),
    ],
)
def test_the_only_fitting_reading_is_used(text: str, characters: str, reading: str) -> None:
    assert fold(text, frozenset(characters)) == reading


@pytest.mark.parametrize(
    ("text", "characters", "readings"),
    [
        ("ná", "naA", ["'A' or 'a'"]),
        ("á", "ÀÂaA", ["'A' or 'a'"]),
        ("i", "Iİ", ["'I' or 'İ'"]),
        ("I", "iı", ["'i' or 'ı'"]),
        ("ı", "iI", ["'I' or 'i'"]),
        ("ß", "sS", ["'SS'", "'ss'"]),
        ("ế", "ÉÊE", ["'É' or 'Ê'"]),
        ("‘", "'’", ["\"'\" or '’'"]),
        ("Σ", "σς", ["'ς' or 'σ'"]),
    ],
)
def test_the_error_for_two_fitting_readings_names_both(
    text: str, characters: str, readings: list[str]
) -> None:
    with refused(*readings, "could mean", "type the one you mean"):
        fold(text, frozenset(characters))


@pytest.mark.parametrize(
    ("text", "unknown"),
    [
        ("Åsa 1", ["' '", "'1'"]),
        ("日本", ["'日'", "'本'"]),
        ("मीरा", ["'म'"]),
        ("a\x00\n", ["'\\x00'", "'\\n'"]),
        ("\u0301a", ["'\u0301'"]),
        ("a\udcff", ["'\\udcff'"]),
        ("👍", ["'👍'"]),
    ],
)
def test_the_error_for_unknown_characters_lists_the_known_ones(
    text: str, unknown: list[str]
) -> None:
    with refused(*unknown, f"the known characters are: {''.join(sorted(CAPITALS))}"):
        fold(text, CAPITALS)


@pytest.mark.parametrize(
    ("text", "characters"), [("ガ", "カ"), ("मीरा", "मर"), ("´", " "), ("한", "하")]
)
def test_marks_that_change_the_sound_and_lone_accents_are_not_dropped(
    text: str, characters: str
) -> None:
    with refused("the known characters are"):
        fold(text, frozenset(characters))


def test_the_error_quotes_only_the_beginning_of_a_long_text() -> None:
    with pytest.raises(InputError, match=r"a\.\.\.' contains '1'") as caught:
        fold("a" * 10_000 + "1", CAPITALS)
    assert len(str(caught.value)) < 300


@few
@given(TEXTS | NEAR, VOCABULARIES)
def test_known_text_is_unchanged(text: str, others: frozenset[str]) -> None:
    composed = normalize("NFC", text)
    assert fold(text, others | set(composed)) == composed


@few
@given(TEXTS | NEAR, VOCABULARIES | st.just(CAPITALS))
def test_a_reading_has_known_characters_and_is_its_own_reading(
    text: str, characters: frozenset[str]
) -> None:
    reading = taken_or_refused(lambda: fold(text, characters))
    if reading is not None:
        assert set(reading) <= characters
        assert normalize("NFC", reading) == reading
        assert fold(reading, characters) == reading
        assert bool(reading) == bool(text)


@few
@given(TEXTS | NEAR, VOCABULARIES | st.just(CAPITALS))
def test_the_unicode_form_of_a_text_makes_no_difference(
    text: str, characters: frozenset[str]
) -> None:
    forms = [normalize(form, text) for form in ("NFC", "NFD")]
    first, second = (taken_or_refused(lambda form=form: fold(form, characters)) for form in forms)
    assert first == second


@few
@given(st.text(st.sampled_from(sorted(CAPITALS))))
def test_lowercase_letters_are_read_as_capitals_including_accents(text: str) -> None:
    assert fold(text.lower(), CAPITALS) == text
    letters = text.replace("Æ", "AE")
    bare = frozenset("'-.ABCDEFGHIJKLMNOPQRSTUVWXYZ")
    without = "".join(c for c in normalize("NFD", letters) if c in bare)
    assert fold(text.lower(), bare) == without
