"""Finding what is probably no name: other formats, rules and footers of tables, lost letters.

Nothing is dropped here, as names may be unusual; but whoever gives the list should know. A few
names in quotes or parentheses, or that begin with a sign, are none of this.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

REGULAR = 0.9
"""Fraction of lines that must be alike to tell a format."""
FEW_LINES = 3
"""Fewer lines tell no format."""
BLANKS = re.compile(r'"[^"]*"(?: (?:"[^"]*"|[^" ]+))+')
"""Cells in quotes between blanks."""
QUOTES = re.compile(r"""(["'`]).*\1""")
"""A line in quotes."""
SIGNS = re.compile(r"""["'\[{<|(`\\].*|[-*+] .*|[-+=]+|.*[,;:|\]}>"'`]|\W*\w+\W*: .*""")
"""A line of JSON, YAML, SQL, HTML, Markdown or program code."""
NUMBER = re.compile(r"\W*(\d{1,9})\W+\w")
"""The number of a line of a numbered list."""
HEADING = re.compile(
    "((full|first|given|fore|last|sur|family)_?)?names?|noms?|pr[eé]noms?|(vor|nach)namen?|"
    "nombres?|apellidos?|(sobre)?nomes?|cognome|(voor|achter)?naam|(för|efter)?namn|"
    "(for|etter)?navn|(etu|suku)?nimi|imi(ę|e|ona)|nazwisko|jméno|příjmení|"
    "(kereszt|vezeték)?név|имя|имена|фамилия|[όο]νομα|isim|名前|氏名|姓名|名字|이름|성명|"
    "(ال)?اسم|שם"
)
"""Usual headings of names, in small letters and with underscores for blanks."""
NO_NAME = re.compile(
    r"[!-/:-@\[-`{-~ \t\u2500-\u257f]+|\\N|\(\d+ \w+(?: \w+)?\)|(?:#|--|//)[ \t].*"
)
"""A name of punctuation only, what databases write in place of one, or a comment."""
FORMULA = re.compile(r'="[^"]*"')
"""A text as spreadsheets are made not to take it for a number."""
MISSING = {"nan", "null", "none"}
"""Cells in place of numbers that are no headings."""
LOST = "\ufffd"
"""What decoders put in place of bytes that they cannot read."""
TRACES = set("¡¢£¤¥¦§¨©«¬¯°±²³´¶·¸¹»¼½¾¿€‚ƒ„…†‡ˆ‰‹“”•—˜™›")
"""Characters of CP1252 that are rarely part of a name, but of letters in UTF-8 read as CP1252."""
MISREAD = re.compile(f"[ÂÃÄÅÐÑÎÏ×ØÙÚ][{''.join(sorted(TRACES))}]")
"""A letter of Latin, Cyrillic, Greek, Hebrew or Arabic in UTF-8, as most are read as CP1252."""
SHOWN = 3
"""Examples in a remark."""
LONGEST = 40
"""Characters of an example."""


def shown(text: str, quoted: Callable[[str], str] = repr) -> str:
    """Return a text in quotes, cut if it is long, in which special characters are escaped."""
    return quoted(text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}...")


def alike(lines: Sequence[str], pattern: re.Pattern[str]) -> bool:
    """Return whether nearly all of `lines` match, of which there must be some."""
    matching = sum(pattern.fullmatch(line) is not None for line in lines)
    return len(lines) >= FEW_LINES and matching >= REGULAR * len(lines)


def other_format(lines: Sequence[str]) -> str:
    """Describe the format of lines, without surrounding blanks, unless they are names; or ""."""
    if alike(lines[1:], BLANKS):
        return (
            "cells separated by blanks, as R's write.table writes them; give a table written "
            "with write.csv(x, row.names = FALSE)"
        )
    found = [NUMBER.match(line) for line in lines]
    numbers = [int(match[1]) if match else None for match in found]
    steps = list(pairwise(numbers))
    if len(steps) >= FEW_LINES:
        consecutive = sum(a is not None and b == a + 1 for a, b in steps)
        if consecutive >= REGULAR * len(steps):
            return "a numbered list; if it is one, remove the numbers"
    if alike(lines, FORMULA):
        return ""  # which is noted name by name
    if alike(lines, QUOTES):
        return "names in quotes, which stay a part of them; if they should not, remove the quotes"
    if alike(lines, SIGNS):
        return (
            "another format than one name per line, such as JSON, YAML, SQL or Markdown (a line "
            f"is {shown(lines[len(lines) // 2])}); if it is one, remove all but the names"
        )
    return ""


def looks_like_headings(rows: Sequence[Sequence[str]]) -> bool:
    """Return whether the first of `rows`, with cells without surrounding blanks, holds headings.

    It does if a cell is a usual heading, or a word above numbers only.
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
    """Return whether a cell is a number, in whatever notation."""
    return text.replace(",", "").replace(".", "").replace(" ", "").lstrip("-+").isdecimal()


def is_word(text: str) -> bool:
    """Return whether a cell has three letters or more, and is none for a missing number."""
    return sum(map(str.isalpha, text)) >= FEW_LINES and text.casefold() not in MISSING


@dataclass
class Examples:
    """How many there are of something, and the first of them."""

    count: int = 0
    first: list[str] = field(default_factory=list)

    def add(self, *texts: str) -> None:
        self.count += len(texts)
        self.first += texts[: SHOWN - len(self.first)] if len(self.first) < SHOWN else ()

    def __str__(self) -> str:
        more = self.count - len(self.first)
        return ", ".join(self.first) + (f" and {more:,} more" if more else "")

    def lines(self) -> str:
        """Return the examples as numbers of lines."""
        return f"line{'s' if self.count > 1 else ''} {self}"


@dataclass
class Suspects:
    """Names that are probably damaged or none.

    Attributes:
        none: names that match `NO_NAME`.
        formulas: names like `="ANNA"`.
        lost: names in which a letter was replaced by U+FFFD.
        misread: names in UTF-8 that were read as CP1252.
    """

    none: Examples = field(default_factory=Examples)
    formulas: Examples = field(default_factory=Examples)
    lost: Examples = field(default_factory=Examples)
    misread: Examples = field(default_factory=Examples)

    def add(self, names: Sequence[str], characters: set[str]) -> None:
        """Look through further names, given all characters so far, which tell what may be found."""
        signs = (name for name in names if not name[0].isalnum())
        self.none.add(*map(shown, filter(NO_NAME.fullmatch, signs)))
        if "=" in characters:
            self.formulas.add(*map(shown, filter(FORMULA.fullmatch, names)))
        if LOST in characters:
            self.lost.add(*(shown(name) for name in names if LOST in name))
        if not TRACES.isdisjoint(characters):
            read = ((name, original(name)) for name in names if MISREAD.search(name))
            self.misread.add(*(f"{shown(name)} for {shown(it)}" for name, it in read if it))

    def remarks(self) -> list[str]:
        """Return a line on each kind of which there are some."""
        lines = {
            f"probably no names: {self.none}; if so, remove them from the list": self.none,
            f"names as formulas of a spreadsheet: {self.formulas}; save the table with their "
            "values": self.formulas,
            f"letters lost in a conversion (U+FFFD): {self.lost}; convert the original list "
            "again": self.lost,
            f"UTF-8 read as CP1252: {self.misread}; give the original list": self.misread,
        }
        return [line for line, examples in lines.items() if examples.count]


def original(name: str, taken_for: str = "cp1252", encoding: str = "utf-8") -> str:
    """Return what a name was if it was decoded wrongly, or "" if it cannot have been."""
    try:
        return name.encode(taken_for).decode(encoding)
    except UnicodeError:
        return ""
