"""Find what is probably not a name: other file formats, parts of tables, damaged letters.

Nothing is dropped, because names can be unusual, but the user is told. A few names in quotes or
parentheses, or that begin with a symbol, are not reported.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from html.entities import html5
from itertools import pairwise

REGULAR = 0.9
"""Fraction of the lines that must match to recognize a format."""
FEW_LINES = 3
"""Minimum number of lines to recognize a format."""
R_CELL = re.compile(r'"[^"]*"|[\w.+-]+')
"""A cell written by R's write.table: quoted text, or a number, TRUE or NA."""
R_HEADINGS = re.compile(r'"[^"]*"(?: "[^"]*")*')
R_ROW = re.compile(rf'"[^"]*"(?: (?:{R_CELL.pattern}))+')
QUOTES = re.compile(r"""(["'`]).*\1|[“„].*[“”]|‘.*’|«.*»|».*«|「.*」""")
"""A line in quotes."""
SIGNS = re.compile(r"""["'\[{<|(`\\│].*|[-*+•·–—] .*|[-+=]+|.*[,;:|\]}>"'`]|\W*\w+\W*: .*""")
"""A line of JSON, YAML, SQL, HTML, Markdown or program code."""
DOCUMENT = re.compile(r"<!doctype\b|<html\b|<\?xml\b|begin:v|[{[]$", re.IGNORECASE)
"""The beginning of HTML, XML, contacts (vCard) or JSON."""
NUMBER = re.compile(r"\W*(\d{1,9})\W+\w")
"""The number of an item in a numbered list."""
HEADING = re.compile(
    "((full|first|given|fore|last|sur|family)_?)?names?|noms?|pr[eé]noms?|(vor|nach)namen?|"
    "nombres?|apellidos?|(sobre)?nomes?|cognome|(voor|achter)?naam|(för|efter)?namn|"
    "(for|etter)?navn|(etu|suku)?nimi|imi(ę|e|ona)|nazwisko|jméno|příjmení|"
    "(kereszt|vezeték)?név|имя|имена|фамилия|[όο]νομα|isim|名前|氏名|姓名|名字|이름|성명|"
    "(ال)?اسم|שם"
)
"""Common headings of names, in lower case and with underscores for spaces."""
NO_NAME = re.compile(
    r"[!-/:-@\[-`{-~ \t\u2500-\u257f\u115f\u1160\u2800\ufffc]+|\\N|\(\d+ \w+(?: \w+)?\)|"
    r"(?:#|--|//)[ \t].*|_[A-Z]+(?:_[A-Z]+)+"
)
"""A line that is not a name.

Punctuation or invisible characters only, a comment, a database's marker for a missing name, or
`_PRENOMS_RARES`, the row for all rare names in the French statistics.
"""
OTHERS = "ALL OTHER NAMES"
"""The last row of the surnames in the US Census."""
FORMULA = re.compile(r'="[^"]*"')
"""Text written as a formula, so that spreadsheets do not read it as a number."""
MISSING = {"nan", "null", "none", "unknown"}
"""Markers for a missing number, which are not headings."""
LOST = "\ufffd"
"""The replacement character, which decoders insert for bytes that they cannot read."""
TRACES = set("¡¢£¤¥¦§¨©«¬¯°±²³´¶·¸¹»¼½¾¿€‚ƒ„…†‡ˆ‰‹“”•—˜™›√≈├┼─╨╤")
"""Characters that are rare in names, but common in UTF-8 decoded with another encoding."""
LEADS = {
    "cp1252": "[ÂÃÄÅÐÑÎÏ×ØÙÚà-ð][ºŸ]?(?![ŠšŒœŽžŸªºµ])",  # "Lukáš“" is a name in quotes
    "cp1250": "[ĂĹÄĐŃ]",
    "cp1251": "[РСГЕ]",
    "mac_roman": "[√≈–]",
    "cp850": "[├┼─ð]",
    "cp437": "[├┼─╨╤]",
    "cp866": "[├┼─╨╤]",
}
"""For each encoding, a pattern of what it makes of the first byte of a letter in UTF-8."""


def _misread(encoding: str) -> re.Pattern[str]:
    """Return a pattern of the first two bytes of a character in UTF-8, decoded with `encoding`.

    Other names match, too, for example "Zoé™"; `original` tells them apart.
    """
    following = bytes(range(0x80, 0xC0)).decode(encoding, "ignore")
    return re.compile(f"{LEADS[encoding]}[{re.escape(following)}]")


MISREAD = {encoding: _misread(encoding) for encoding in LEADS}
HIDING = re.compile("[\u00a0\u00ad]")
"""A no-break space or a soft hyphen, which the second byte of à or í can become."""
ENTITY = re.compile(r"&(?:#\d+|#[xX][0-9A-Fa-f]+|[A-Za-z]\w*);")
"""What looks like an HTML entity."""
ESCAPE = re.compile(
    r"\\(?:u[\da-f]{4}|x[\da-f]{2})|%[c-f][\da-f]%[89ab][\da-f]|(?<=[^\W\d_])%2[\da-f](?=[^\W\d_])",
    re.ASCII | re.IGNORECASE,
)
"""An escape sequence of JSON, program code or URLs."""
SHOWN = 3
"""Number of examples in a remark."""
LONGEST = 40
"""Maximum length of an example, in characters."""


def shown(text: str, quoted: Callable[[str], str] = repr) -> str:
    """Return text in quotes, cut if it is long, with special characters escaped."""
    return quoted(text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}...")


def alike(lines: Sequence[str], matches: Callable[[str], object]) -> bool:
    """Return whether there are enough `lines` and nearly all of them match."""
    matching = sum(map(bool, map(matches, lines)))
    return len(lines) >= FEW_LINES and matching >= REGULAR * len(lines)


def is_r_table(lines: Sequence[str]) -> bool:
    """Return whether the lines look like a table written by R's write.table.

    The headings are in quotes. A row has as many cells as there are headings, or one more: its
    number or name.
    """
    if not lines or not R_HEADINGS.fullmatch(lines[0]):
        return False
    width = len(R_CELL.findall(lines[0]))
    extra = [len(R_CELL.findall(row)) - width if R_ROW.fullmatch(row) else -1 for row in lines[1:]]
    return any(
        len(extra) >= FEW_LINES and extra.count(number) >= REGULAR * len(extra) for number in (0, 1)
    )


def is_aligned(line: str) -> bool:
    """Return whether a line has spaces as between columns, or a number before or after a word."""
    words = line.split(" ")
    counted = is_number(words[0]) or is_number(words[-1].strip("()"))
    return "  " in line or (counted and any(map(str.isalpha, line)))


def other_format(lines: Sequence[str], first: Sequence[str]) -> str:
    """Describe the format of lines that are not names; return "" if they are.

    Args:
        lines: lines spread over the list, beginning with the first one, without surrounding
            whitespace.
        first: the first lines of the list, in which a numbered list shows.
    """
    found = [NUMBER.match(line) for line in first]
    numbers = [int(match[1]) if match else None for match in found]
    steps = list(pairwise(numbers))
    if len(steps) >= FEW_LINES:
        consecutive = sum(a is not None and b == a + 1 for a, b in steps)
        if consecutive >= REGULAR * len(steps):
            return "a numbered list; if it is one, remove the numbers"
    if alike(lines, FORMULA.fullmatch):
        return ""  # reported by `Suspects`
    if alike(lines, QUOTES.fullmatch):
        return "names in quotes, which are kept; if they are not part of the names, remove them"
    if alike(lines, SIGNS.fullmatch) or (len(lines) >= FEW_LINES and DOCUMENT.match(lines[0])):
        return (
            "JSON, YAML, SQL, HTML, Markdown, contacts or another format instead of one name per "
            f"line (one line is {shown(lines[len(lines) // 2])}); if so, keep only the names"
        )
    if alike(lines, is_aligned):
        return (
            f"columns separated by spaces (one line is {shown(lines[len(lines) // 2])}); if so, "
            "keep only the names"
        )
    return ""


def looks_like_headings(rows: Sequence[Sequence[str]]) -> bool:
    """Return whether the first of `rows` looks like headings; the cells must be stripped.

    It does if a cell is a common heading, or a word above a column of numbers.
    """
    top, *rest = rows
    if any(HEADING.fullmatch("_".join(cell.casefold().split())) for cell in top):
        return True
    columns = ([row[place] for row in rest if place < len(row)] for place in range(len(top)))
    return any(
        len(cells) >= FEW_LINES and is_word(cell) and all(map(is_number, cells))
        for cell, cells in zip(top, columns, strict=True)
    )


def is_number(text: str) -> bool:
    """Return whether a cell is a number, in any notation."""
    return text.replace(",", "").replace(".", "").replace(" ", "").lstrip("-+").isdecimal()


def is_word(text: str) -> bool:
    """Return whether a cell has at least three letters and does not mark a missing number."""
    return sum(map(str.isalpha, text)) >= FEW_LINES and text.casefold() not in MISSING


@dataclass
class Examples:
    """The number of times something was found, and the first few instances."""

    count: int = 0
    first: list[str] = field(default_factory=list)

    def add(self, *texts: str) -> None:
        self.count += len(texts)
        self.first += texts[: SHOWN - len(self.first)] if len(self.first) < SHOWN else ()

    def __str__(self) -> str:
        more = self.count - len(self.first)
        return ", ".join(self.first) + (f" and {more:,} more" if more else "")

    def lines(self) -> str:
        """Return the examples as line numbers."""
        return f"line{'s' if self.count > 1 else ''} {self}"


@dataclass
class Suspects:
    """Names that are probably damaged, or not names.

    Attributes:
        none: matches of `NO_NAME`.
        formulas: spreadsheet formulas, for example `="ANNA"`.
        lost: names in which a letter was replaced by U+FFFD.
        misread: UTF-8 that was decoded with another encoding.
        entities: names with HTML entities, for example `O&#39;Neil`.
        escapes: names with escape sequences, for example `Ren%C3%A9e`.
    """

    none: Examples = field(default_factory=Examples)
    formulas: Examples = field(default_factory=Examples)
    lost: Examples = field(default_factory=Examples)
    misread: Examples = field(default_factory=Examples)
    entities: Examples = field(default_factory=Examples)
    escapes: Examples = field(default_factory=Examples)

    def add(self, names: Sequence[str], characters: set[str]) -> None:
        """Look through more names. `characters` has all characters so far, to skip checks."""
        signs = (name for name in names if not name[0].isalnum())
        self.none.add(*map(shown, filter(NO_NAME.fullmatch, signs)))
        if names[-1:] == [OTHERS]:  # checks only the end of a list, to save time
            self.none.add(shown(OTHERS))
        if "=" in characters:
            self.formulas.add(*map(shown, filter(FORMULA.fullmatch, names)))
        if LOST in characters:
            self.lost.add(*(shown(name) for name in names if LOST in name))
        if not TRACES.isdisjoint(characters):
            self.misread.add(*misread(names))
        if "&" in characters:
            self.entities.add(*(shown(name) for name in names if "&" in name and has_entity(name)))
        if not characters.isdisjoint("\\%"):
            signs = (name for name in names if "%" in name or "\\" in name)
            self.escapes.add(*map(shown, filter(ESCAPE.search, signs)))

    def remarks(self) -> list[str]:
        """Return one line for each kind of name that was found."""
        lines = {
            f"probably not names: {self.none}; if so, remove them from the list": self.none,
            f"names written as spreadsheet formulas: {self.formulas}; save the table with values "
            "instead of formulas": self.formulas,
            f"letters lost in a conversion (U+FFFD): {self.lost}; convert the original list "
            "again": self.lost,
            f"UTF-8 read as another encoding: {self.misread}; use the original list": self.misread,
            f"HTML entities: {self.entities}; decode them, for example with Python's "
            "html.unescape": self.entities,
            f"escape sequences of program code or URLs: {self.escapes}; replace them with the "
            "characters themselves": self.escapes,
        }
        return [line for line, examples in lines.items() if examples.count]


def has_entity(name: str) -> bool:
    """Return whether a name contains an HTML entity."""
    return any(entity[1] == "#" or entity[1:] in html5 for entity in ENTITY.findall(name))


def misread(names: Iterable[str]) -> Iterator[str]:
    """Describe each name that is UTF-8 decoded with another encoding."""
    for name in names:
        read = (
            original(name, encoding)
            for encoding, pattern in MISREAD.items()
            if pattern.search(name)
        )
        if was := next(filter(None, read), ""):
            yield f"{shown(name)} for {shown(was)}"


def hidden_misread(lines: Iterable[str]) -> Iterator[str]:
    """Describe such names in raw lines, before dropping invisible characters hides them."""
    return misread(line.strip(" ") for line in lines if HIDING.search(line))


def original(name: str, taken_for: str, encoding: str = "utf-8") -> str:
    """Return what a wrongly decoded name was, or "" if it was not decoded wrongly."""
    try:
        return name.encode(taken_for).decode(encoding)
    except UnicodeError:
        return ""
