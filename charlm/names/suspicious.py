"""Finding what is probably no name: other formats, rules and footers of tables, lost letters.

Nothing is dropped here, as names may be unusual; but whoever gives the list should know. A few
names in quotes or parentheses, or that begin with a sign, are none of this.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from html.entities import html5
from itertools import pairwise

REGULAR = 0.9
"""Fraction of lines that must be alike to tell a format."""
FEW_LINES = 3
"""Fewer lines tell no format."""
R_CELL = re.compile(r'"[^"]*"|[\w.+-]+')
"""A cell of R's write.table: a text in quotes, or a number, TRUE or NA."""
R_HEADINGS = re.compile(r'"[^"]*"(?: "[^"]*")*')
R_ROW = re.compile(rf'"[^"]*"(?: (?:{R_CELL.pattern}))+')
QUOTES = re.compile(r"""(["'`]).*\1|[“„].*[“”]|‘.*’|«.*»|».*«|「.*」""")
"""A line in quotes."""
SIGNS = re.compile(r"""["'\[{<|(`\\│].*|[-*+•·–—] .*|[-+=]+|.*[,;:|\]}>"'`]|\W*\w+\W*: .*""")
"""A line of JSON, YAML, SQL, HTML, Markdown or program code."""
DOCUMENT = re.compile(r"<!doctype\b|<html\b|<\?xml\b|begin:v|[{[]$", re.IGNORECASE)
"""The beginning of HTML, XML, contacts (vCard) or JSON."""
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
    r"[!-/:-@\[-`{-~ \t\u2500-\u257f\u115f\u1160\u2800\ufffc]+|\\N|\(\d+ \w+(?: \w+)?\)|"
    r"(?:#|--|//)[ \t].*|_[A-Z]+(?:_[A-Z]+)+"
)
"""A name of punctuation or invisible characters only, or a comment.

Or what databases write in place of a name, or `_PRENOMS_RARES`, the row of all rare names in the
French statistics.
"""
OTHERS = "ALL OTHER NAMES"
"""The last row of the surnames in the US Census."""
FORMULA = re.compile(r'="[^"]*"')
"""A text as spreadsheets are made not to take it for a number."""
MISSING = {"nan", "null", "none", "unknown"}
"""Cells in place of numbers that are no headings."""
LOST = "\ufffd"
"""What decoders put in place of bytes that they cannot read."""
TRACES = set("¡¢£¤¥¦§¨©«¬¯°±²³´¶·¸¹»¼½¾¿€‚ƒ„…†‡ˆ‰‹“”•—˜™›√≈├┼─╨╤")
"""Characters that are rarely part of a name, but of letters in UTF-8 read in other encodings."""
LEADS = {
    "cp1252": "[ÂÃÄÅÐÑÎÏ×ØÙÚà-ð][ºŸ]?(?![ŠšŒœŽžŸªºµ])",  # "Lukáš“" is a name in quotes
    "cp1250": "[ĂĹÄĐŃ]",
    "cp1251": "[РСГЕ]",
    "mac_roman": "[√≈–]",
    "cp850": "[├┼─ð]",
    "cp437": "[├┼─╨╤]",
    "cp866": "[├┼─╨╤]",
}
"""Patterns of the character as which the first byte of a letter in UTF-8 is often read."""


def _misread(encoding: str) -> re.Pattern[str]:
    """Return a pattern of the beginning of a letter, a punctuation mark or an emoji.

    Many more names match, such as "Zoé™", but are not UTF-8 if they are taken for it (`original`).
    """
    following = bytes(range(0x80, 0xC0)).decode(encoding, "ignore")
    return re.compile(f"{LEADS[encoding]}[{re.escape(following)}]")


MISREAD = {encoding: _misread(encoding) for encoding in LEADS}
HIDING = re.compile("[\u00a0\u00ad]")
"""A no-break space or a soft hyphen: the second byte of à or í."""
ENTITY = re.compile(r"&(?:#\d+|#[xX][0-9A-Fa-f]+|[A-Za-z]\w*);")
"""A character as in HTML, if it has such a name."""
ESCAPE = re.compile(
    r"\\(?:u[\da-f]{4}|x[\da-f]{2})|%[c-f][\da-f]%[89ab][\da-f]|(?<=[^\W\d_])%2[\da-f](?=[^\W\d_])",
    re.ASCII | re.IGNORECASE,
)
"""A character as in JSON and program code, or as in a URL."""
SHOWN = 3
"""Examples in a remark."""
LONGEST = 40
"""Characters of an example."""


def shown(text: str, quoted: Callable[[str], str] = repr) -> str:
    """Return a text in quotes, cut if it is long, in which special characters are escaped."""
    return quoted(text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}...")


def alike(lines: Sequence[str], matches: Callable[[str], object]) -> bool:
    """Return whether nearly all of `lines` match, of which there must be some."""
    matching = sum(map(bool, map(matches, lines)))
    return len(lines) >= FEW_LINES and matching >= REGULAR * len(lines)


def is_r_table(lines: Sequence[str]) -> bool:
    """Return whether lines are as R's write.table writes them.

    The headings are in quotes, and a row has as many cells, or one more: its number or name.
    """
    if not lines or not R_HEADINGS.fullmatch(lines[0]):
        return False
    width = len(R_CELL.findall(lines[0]))
    extra = [len(R_CELL.findall(row)) - width if R_ROW.fullmatch(row) else -1 for row in lines[1:]]
    return any(len(extra) >= FEW_LINES and extra.count(it) >= REGULAR * len(extra) for it in (0, 1))


def is_aligned(line: str) -> bool:
    """Return whether a line has blanks as between columns, or a number before or after a word."""
    words = line.split(" ")
    counted = is_number(words[0]) or is_number(words[-1].strip("()"))
    return "  " in line or (counted and any(map(str.isalpha, line)))


def other_format(lines: Sequence[str], first: Sequence[str]) -> str:
    """Describe the format of lines unless they are names; or "".

    Args:
        lines: lines spread over the list, beginning with the first; without surrounding blanks.
        first: its first lines, which tell a numbered list.
    """
    found = [NUMBER.match(line) for line in first]
    numbers = [int(match[1]) if match else None for match in found]
    steps = list(pairwise(numbers))
    if len(steps) >= FEW_LINES:
        consecutive = sum(a is not None and b == a + 1 for a, b in steps)
        if consecutive >= REGULAR * len(steps):
            return "a numbered list; if it is one, remove the numbers"
    if alike(lines, FORMULA.fullmatch):
        return ""  # which is noted name by name
    if alike(lines, QUOTES.fullmatch):
        return "names in quotes, which stay a part of them; if they should not, remove the quotes"
    if alike(lines, SIGNS.fullmatch) or (len(lines) >= FEW_LINES and DOCUMENT.match(lines[0])):
        return (
            "another format than one name per line, such as JSON, YAML, SQL, HTML, Markdown or "
            f"contacts (a line is {shown(lines[len(lines) // 2])}); if it is one, remove all but "
            "the names"
        )
    if alike(lines, is_aligned):
        return (
            f"columns separated by blanks (a line is {shown(lines[len(lines) // 2])}); if they "
            "are, remove all but the names"
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
        misread: names in UTF-8 that were read as another encoding.
        entities: names with characters as in HTML, such as `O&#39;Neil`.
        escapes: names with characters as in program code or URLs, such as `Ren%C3%A9e`.
    """

    none: Examples = field(default_factory=Examples)
    formulas: Examples = field(default_factory=Examples)
    lost: Examples = field(default_factory=Examples)
    misread: Examples = field(default_factory=Examples)
    entities: Examples = field(default_factory=Examples)
    escapes: Examples = field(default_factory=Examples)

    def add(self, names: Sequence[str], characters: set[str]) -> None:
        """Look through further names, given all characters so far, which tell what may be found."""
        signs = (name for name in names if not name[0].isalnum())
        self.none.add(*map(shown, filter(NO_NAME.fullmatch, signs)))
        if names[-1:] == [OTHERS]:  # it ends a list, and comparing all names takes time
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
        """Return a line on each kind of which there are some."""
        lines = {
            f"probably no names: {self.none}; if so, remove them from the list": self.none,
            f"names as formulas of a spreadsheet: {self.formulas}; save the table with their "
            "values": self.formulas,
            f"letters lost in a conversion (U+FFFD): {self.lost}; convert the original list "
            "again": self.lost,
            f"UTF-8 read as another encoding: {self.misread}; give the original list": self.misread,
            f"characters as in HTML: {self.entities}; replace them, for example with html.unescape "
            "of Python": self.entities,
            f"characters as in program code or URLs: {self.escapes}; replace them by the "
            "characters themselves": self.escapes,
        }
        return [line for line, examples in lines.items() if examples.count]


def has_entity(name: str) -> bool:
    """Return whether a name has a character that is written as in HTML."""
    return any(it[1] == "#" or it[1:] in html5 for it in ENTITY.findall(name))


def misread(names: Iterable[str]) -> Iterator[str]:
    """Yield each name that is UTF-8 read as another encoding, with what it was."""
    for name in names:
        read = (original(name, its) for its, begins in MISREAD.items() if begins.search(name))
        if was := next(filter(None, read), ""):
            yield f"{shown(name)} for {shown(was)}"


def hidden_misread(lines: Iterable[str]) -> Iterator[str]:
    """Yield the same of lines that lose the traces of it as invisible characters are dropped."""
    return misread(line.strip(" ") for line in lines if HIDING.search(line))


def original(name: str, taken_for: str, encoding: str = "utf-8") -> str:
    """Return what a name was if it was decoded wrongly, or "" if it cannot have been."""
    try:
        return name.encode(taken_for).decode(encoding)
    except UnicodeError:
        return ""
