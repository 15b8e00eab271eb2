"""Drop invisible characters, which would make identical names distinct.

Copied text, spreadsheets and joined files contain byte order marks, zero-width spaces, soft hyphens
and direction marks. These are dropped. Invisible characters that are part of the spelling are kept:

- joiners (U+200C, U+200D and two rarer ones) between letters of a script that shapes them, between
  emoji, and after a virama, which can end a Malayalam name (as in RFC 5892, appendix A);
- tags after a black flag: the flags of England, Scotland and Wales;
- variation selectors after a character, because they distinguish Japanese names;
- format characters with a visible form, for example the Arabic number sign.

No-break spaces become plain spaces.

The characters are listed explicitly because Unicode categories depend on the version of Python.
"""

import re
from collections import Counter
from collections.abc import Iterable
from unicodedata import combining, normalize

ALWAYS = re.compile(
    "[\u00ad\u061c\u17b4\u17b5\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\u3164\ufeff\uffa0"
    "\ufff9-\ufffb\U0001d173-\U0001d17a\U000e0000-\U000e007f]"
)
"""Characters that are never part of the spelling, except for the tags in `FLAG`."""
FLAG = "\U0001f3f4[\U000e0020-\U000e007f]+"
NOT_SPELLING = re.compile(f"({FLAG})|{ALWAYS.pattern}")
_JOINERS = "\u034f\u180e\u200c\u200d"
JOINERS = re.compile(f"[{_JOINERS}]+")
SELECTORS = "\u180b-\u180d\u180f\ufe00-\ufe0f\U000e0100-\U000e01ef"
AT_START = re.compile(rf"(?:^|(?<=\s))[{_JOINERS}{SELECTORS}]+")
NO_BREAK = re.compile("[\u00a0\u2007\u202f]")
SUSPECT = re.compile(f"{ALWAYS.pattern[:-1]}{NO_BREAK.pattern[1:-1]}{_JOINERS}{SELECTORS}]")
"""Characters that may have to be dropped or replaced."""
UNSHAPED = re.compile("[\u0000-\u058f\u1e00-\u206f]")
"""Characters next to which a joiner has no effect: Latin, Greek, Cyrillic and Armenian letters,
digits, spaces and punctuation."""
VIRAMA = 9
"""The combining class of a virama."""


def drop_invisible(text: str, dropped: Counter[str] | None = None) -> str:
    """Return `text` in NFC, without invisible characters that are not part of the spelling.

    Args:
        text: any text. No-break spaces become plain spaces.
        dropped: counts by character; those dropped or replaced are added.
    """
    text = normalize("NFC", text)
    if not SUSPECT.search(text):
        return text
    counts: Counter[str] = Counter() if dropped is None else dropped

    def drop(match: re.Match[str]) -> str:
        counts.update(match[0])
        return ""

    def blank(match: re.Match[str]) -> str:
        return drop(match) or " "

    def drop_unless_spelling(match: re.Match[str]) -> str:
        before, after = text[: match.start()][-1:], text[match.end() :][:1]
        if before and combining(before) == VIRAMA:
            return match[0]
        if before and after and not UNSHAPED.match(before) and not UNSHAPED.match(after):
            return match[0]
        return drop(match)

    text = NO_BREAK.sub(blank, text)
    text = NOT_SPELLING.sub(lambda match: match[1] or drop(match), text)
    text = AT_START.sub(drop, text)
    return normalize("NFC", JOINERS.sub(drop_unless_spelling, text))


def clean(text: str, dropped: Counter[str] | None = None) -> str:
    """Return a name in NFC, without invisible characters or surrounding whitespace."""
    return drop_invisible(text, dropped).strip()


def clean_all(texts: Iterable[str], dropped: Counter[str] | None = None) -> list[str]:
    """Apply `clean` to each of `texts`; fast if there are no invisible characters."""
    texts = list(texts)
    if SUSPECT.search("\n".join(texts)):
        return [clean(text, dropped) for text in texts]
    return [normalize("NFC", text).strip() for text in texts]
