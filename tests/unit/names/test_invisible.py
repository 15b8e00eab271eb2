"""Invisible characters: those without meaning for the spelling are dropped and counted."""

import re
import unicodedata
from collections import Counter
from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from charlm.names.invisible import ALWAYS, FLAG, SUSPECT, clean, clean_all
from tests.helpers import few

ODD = "\U000e0067\ufeff\u200b\u200c\u200d\u200e\u2067\u00ad\ufe0f\U000e0100\u034f\u180e\u3164"


@pytest.mark.parametrize("odd", [*"\ufeff\u200b\u200e\u200f\u00ad\u2060\u202a\u202e\u2066\u2069"])
@pytest.mark.parametrize("name", ["{}ANNA", "ANNA{}", " {} ANNA{}", "AN{}{}NA", "{}\u2003ANNA{} "])
def test_characters_that_never_matter_are_dropped_anywhere(name: str, odd: str) -> None:
    dropped: Counter[str] = Counter()
    assert clean(name.format(odd, odd), dropped) == "ANNA"
    assert dropped == {odd: name.count("{}")}


@pytest.mark.parametrize(
    "name",
    [
        "\u0645\u06cc\u200c\u0646\u0627",  # Persian: a joiner keeps two letters apart
        "\u0d05\u0d28\u0d3f\u0d32\u0d4d\u200d",  # Anil in Malayalam, with a joiner at its end
        "\u0915\u094d\u200d\u0937",  # Devanagari: a half form
        "\U0001f469\u200d\U0001f680",  # an astronaut
        "\u2764\ufe0f",  # a red heart
        "\u845b\U000e0100",  # a variant of a character, used in Japanese family names
        "\u0600\u0661",  # the Arabic number sign, which is visible
        *(
            "\U0001f3f4" + "".join(chr(0xE0000 + ord(letter)) for letter in f"gb{part}\x7f")
            for part in ("eng", "sct", "wls")  # flags
        ),
    ],
)
def test_characters_that_matter_or_are_visible_stay(name: str) -> None:
    dropped: Counter[str] = Counter()
    assert clean(f" {name}\u200b", dropped) == name
    assert dropped == {"\u200b": 1}


@pytest.mark.parametrize("joiner", [*"\u200c\u200d\u034f\u180e"])
@pytest.mark.parametrize(
    "name", ["{}ANNA", "ANNA{}", "AN{}NA", "\u06cc {}A", "A{}\u06cc", "\u06cc{}A"]
)
def test_a_joiner_that_joins_nothing_is_dropped(name: str, joiner: str) -> None:
    assert clean(name.format(joiner)) == name.format("")


@pytest.mark.parametrize("selector", ["\ufe0f", "\U000e0100", "\u180b"])
def test_a_variation_selector_without_a_base_is_dropped(selector: str) -> None:
    assert clean(selector) == ""
    assert clean(f"{selector}\u200dANNA {selector}MARIA") == "ANNA MARIA"


@pytest.mark.parametrize("space", [*"\u00a0\u2007\u202f"])
def test_no_break_spaces_become_spaces(space: str) -> None:
    dropped: Counter[str] = Counter()
    assert clean(f" ANNA{space}MARIA{space}", dropped) == "ANNA MARIA"
    assert clean_all([f"ANNA{space}MARIA"]) == ["ANNA MARIA"]
    assert dropped == {space: 2}


def test_tags_without_a_black_flag_are_dropped() -> None:
    flag, tag = "\U0001f3f4", "\U000e0067"
    assert clean(f"{tag}A{tag}") == "A"
    assert clean(f"{flag}A{tag}") == f"{flag}A"
    assert clean(f"{flag}{tag}{tag}\U000e0001{tag}A") == f"{flag}{tag}{tag}A"


def test_an_accent_after_an_invisible_character_is_composed() -> None:
    assert clean("ZOE\u200b\u0301") == "ZO\u00c9"


def test_every_format_character_is_dropped_or_known_to_matter() -> None:
    """The category depends on Python's Unicode version; this test shows what a new one adds."""
    found = {chr(code) for code in chain(range(0x20000), range(0xE0000, 0xE0200))}
    found = {it for it in found if unicodedata.category(it) == "Cf" and not SUSPECT.match(it)}
    names = {unicodedata.name(it).split()[0] for it in found}
    assert names == {"ARABIC", "SYRIAC", "KAITHI", "EGYPTIAN", "SHORTHAND"}


@few
@given(
    st.lists(
        st.text(
            st.sampled_from(
                [*ODD, *"\U0001f3f4 AE\u0301", "\u05d0", "\u0d4d", "\U0001f469", "\u212b"]
            )
            | st.characters(exclude_categories=["Cs"])
        )
    )
)
def test_cleaning_is_idempotent_and_counts_dropped_characters(texts: list[str]) -> None:
    dropped: Counter[str] = Counter()
    names = clean_all(texts, dropped)
    assert names == [clean(text) for text in texts] == clean_all(names)
    assert not any(ALWAYS.search(re.sub(FLAG, "", name)) for name in names)
    left = Counter("".join(names))
    given_ = Counter(unicodedata.normalize("NFC", "".join(f"{text}\n" for text in texts)))
    for odd in ODD:
        assert dropped[odd] == given_[odd] - left[odd]
