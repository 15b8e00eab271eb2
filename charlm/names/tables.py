"""Read a column of a table whose cells are separated by commas, semicolons, tabs or vertical bars.

The separator is found in the first row, or declared in a line like `sep=;` before it, as some
spreadsheets do. If cells are separated by tabs, quotes are part of the text, as in TSV. Otherwise,
a quoted cell can contain separators, and each quote inside it is doubled (RFC 4180). A quoted cell
must end on its line; otherwise, a stray quote would swallow the lines after it.
"""

import csv
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from charlm.core.errors import InputError
from charlm.names.invisible import SUSPECT, clean, clean_all, drop_invisible
from charlm.names.suspicious import (
    FEW_LINES,
    REGULAR,
    Examples,
    is_number,
    is_r_table,
    looks_like_headings,
    other_format,
    shown,
)

Block = tuple[int, list[str]]
"""The number of a line, from 1, and the content of this line and the lines after it."""

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
STATED = re.compile('"?sep=([^"])"?', re.IGNORECASE)
QUOTED = re.compile('"(?:[^"]|"")*"')
SAMPLE = 200
"""Number of lines used to find the separator (the first ones) or the format (spread ones)."""
SHOWN = 20
"""Maximum number of headings in an error message."""
TITLES = 20
"""Number of lines at the beginning in which to look for headings."""
R = "export the table with write.csv(x, row.names = FALSE)"


def first_lines(blocks: Iterator[list[str]]) -> list[str]:
    """Take lines from the blocks until `SAMPLE` of them have text; return them."""
    first: list[str] = []
    found = 0
    for lines in blocks:
        first += lines
        found += sum(not line.isspace() for line in lines if line)
        if found >= SAMPLE:
            break
    return first


def spread(lines: Sequence[str]) -> list[str]:
    """Return `SAMPLE` evenly spread lines, including the first one, or all if there are fewer.

    The first lines of a sorted list are often unusual.
    """
    count = min(SAMPLE, len(lines))
    return [lines[index * len(lines) // count] for index in range(count)]


def stated(lines: list[str]) -> tuple[int, str] | None:
    """Return the line number (from 1) and the separator if the first line is like `sep=;`."""
    filled = ((number, line) for number, line in enumerate(lines, start=1) if clean(line))
    number, line = next(filled, (0, ""))
    found = STATED.fullmatch(drop_invisible(line).strip(" "))
    return (number, found[1]) if found else None


def column_cells(
    blocks: Iterator[list[str]],
    path: Path,
    suffix: str,
    column: str | int | None,
    header: bool,
    notes: list[str],
) -> Iterator[Block]:
    """Yield blocks of the cells of a column. A cell is empty if its row is too short.

    Args:
        blocks: the lines of the table.
        path: the file, for error messages.
        suffix: the suffix of the decompressed file.
        column: the heading of the column, or its number from 1.
        header: whether the first row contains headings. Whitespace and invisible characters
            around them are ignored.
        notes: a list to which remarks for the user are appended.

    Raises:
        InputError: the column does not exist or is ambiguous, or a row is not well-formed.
    """
    block = first_lines(blocks)
    skipped = 0
    filled = [number for number, line in enumerate(block, start=1) if clean(line)]
    if statement := stated(block):
        skipped = filled.pop(0)
    if not filled:
        return
    top, lines = filled[0], [block[number - 1] for number in filled]
    first, sample = lines[:SAMPLE], spread(lines)
    separator = statement[1] if statement else _separator(first, path, suffix, column)
    if separator not in first[0] and is_r_table(clean_all(sample)):
        raise InputError(f"{path} has cells separated by spaces, written by R's write.table; {R}")
    cells = _split(first[0], separator, path, top)
    width = len(cells)
    place = _place(clean_all(cells), separator, path, top, column, header, notes, first)
    odd = _OddRows(path, separator, top, place, first, sample)
    headings = (
        {f"{mark}{cell}" for cell in cells if cell for mark in ("", "\ufeff")} if header else set()
    )
    if header:
        skipped = top
    number, spaced = skipped + 1, f"{separator} "
    for lines in chain([block[skipped:]], blocks):
        cells = []
        for at, line in enumerate(lines, start=number):
            row = _split(line, separator, path, at)
            if len(row) != width:
                odd.check_width(row, at)
            elif spaced in line:
                odd.check_blank(row, at)
            cells.append(row[place] if place < len(row) else "")
        if not headings.isdisjoint(cells):
            odd.drop_headings(lines, cells, number)
        yield number, cells
        number += len(lines)
    notes += [f"{path}: {remark}" for remark in odd.remarks(header)]


@dataclass
class _OddRows:
    """Rows of a table that do not match its first row.

    Attributes:
        path: the file of the table.
        separator: the separator of its cells.
        top: the line number of the first row.
        place: the index of the column with the names, from 0.
        first: the first non-empty lines, beginning with the first row.
        sample: non-empty lines spread over the table, beginning with the first row.
        short: rows with fewer cells.
        blank: rows with a space after the separator that follows the name.
        repeated: rows that repeat the headings.
    """

    path: Path
    separator: str
    top: int
    place: int
    first: list[str]
    sample: list[str]
    short: Examples = field(default_factory=Examples)
    blank: Examples = field(default_factory=Examples)
    repeated: Examples = field(default_factory=Examples)

    def __post_init__(self) -> None:
        self.headings, *_ = self.rows(self.first[:1])
        self.width = len(self.headings)

    def rows(self, lines: list[str]) -> list[list[str]]:
        """Return the cells of each line; none if the line is not well-formed."""
        return [_cells(line, self.separator) for line in lines]

    def check_width(self, row: list[str], at: int) -> None:
        """Note a row with fewer cells than the first one.

        Raises InputError if it has more cells, unless the additional ones are empty.
        """
        if len(row) < self.width:
            if any(map(clean, row)):
                self.short.add(str(at))
        elif any(map(clean, row[self.width :])):
            raise InputError(
                f"{self.path}, line {at}: {len(row):,} cells, but line {self.top} has "
                f"{self.width:,}; {self._too_many()}"
            )

    def _too_many(self) -> str:
        rows = self.rows(self.sample[1:])
        (usual, _), *_ = Counter(map(len, rows)).most_common(1) or [(self.width, 0)]
        inside = f"put a cell that contains a {self.separator!r} in double quotes"
        if self.separator == "\t":
            inside = "remove the tabs within cells"
        if usual == self.width + 1 and all(is_number(row[0]) for row in rows if row):
            inside = f"if R left out the first heading, {R}; otherwise, {inside}"
        elif usual > self.width and len(rows) >= FEW_LINES:
            inside = f"if line {self.top} is a title, remove it; otherwise, {inside}"
        return inside

    def names(self, rows: list[list[str]]) -> list[str]:
        """Return the cells of the column, for the rows that are long enough."""
        return [row[self.place] for row in rows if self.place < len(row)]

    def check_blank(self, row: list[str], at: int) -> None:
        """Note a row in which a separator followed by a space may be part of the name."""
        if row[self.place + 1 : self.place + 2] and row[self.place + 1].startswith(" "):
            self.blank.add(str(at))

    def drop_headings(self, lines: list[str], cells: list[str], number: int) -> None:
        """Empty the cells of rows that repeat the headings. `number` is that of the first line.

        Raises InputError if the headings are in a different order.
        """
        for index, row in enumerate(self.rows(lines)):
            if row == self.headings:
                self.repeated.add(str(number + index))
                cells[index] = ""
            elif sorted(row) == sorted(self.headings):
                raise InputError(
                    f"{self.path}, line {number + index}: the headings of line {self.top} in a "
                    "different order; when joining tables, put their columns in the same order"
                )

    def remarks(self, header: bool) -> list[str]:
        """Return remarks for the user, after all rows have been read.

        Raises InputError if the names are row numbers written by R.
        """
        rows, first = self.rows(self.sample), self.rows(self.first)
        names = self.names(rows[header:])
        remarks = []
        if self.width == 1 and (description := looks_like_table(self.sample[1:])):
            remarks.append(
                f"looks like {description}, below line {self.top}; if line {self.top} is a title, "
                "remove it"
            )
        if len(names) >= FEW_LINES and all(map(is_number, names)):
            if header and all(len(row) == self.width + 1 for row in rows[1:]):
                raise InputError(
                    f"{self.path}: the rows have one more cell than the headings, and the names "
                    f"are numbers; if R left out the first heading, {R}"
                )
            remarks.append(f"the names are numbers ({shown(names[0])}); check names.column")
        if self.separator == "\t" and names and all(map(QUOTED.fullmatch, names)):
            remarks.append(
                "the names are in quotes, which are kept if cells are separated by tabs; if they "
                "are not part of the names, save the table with commas, as .csv"
            )
        elif description := other_format(names, self.names(first[header:])):
            remarks.append(f"the names look like {description}")
        if not header and looks_like_headings(rows):
            remarks.append(
                f"line {self.top} looks like headings, but {shown(self.headings[self.place])} is "
                "read as a name; if they are headings, set names.header to true"
            )
        second = [row for row in first[1:2] if row != self.headings]
        if header and second and looks_like_headings(second):
            remarks.append(
                f"the row below line {self.top} looks like headings; if line {self.top} is a "
                "title, remove it"
            )
        if self.repeated.count:
            remarks.append(f"{self.repeated.lines()}: repeated headings, skipped")
        if self.short.count:
            remarks.append(
                f"{self.short.lines()}: fewer cells than in line {self.top}; check that none is "
                "missing"
            )
        spaced = f"{self.separator} " in self.first[0] and (header or self.width > 2)
        if self.blank.count and not spaced:  # not if the table always has that space
            remarks.append(
                f"{self.blank.lines()}: a space after the {self.separator!r} that ends the name; "
                "if the name continues there, put all of it in double quotes"
            )
        return remarks


def looks_like_table(lines: list[str]) -> str:
    """Describe the table if nine in ten lines have the same number of a separator, else ""."""
    rows = [QUOTED.sub("", line) for line in lines]
    for separator, name in SEPARATORS.items():
        counts = Counter(row.count(separator) for row in rows)
        (count, lines_alike), *_ = counts.most_common(1) or [(0, 0)]
        # "Smith, Anna" is a name.
        spelled = separator == "," and all(row.count(", ") == row.count(",") < 2 for row in rows)
        ending = count == 1 and sum(row.endswith(separator) for row in rows) > lines_alike / 2
        regular = len(rows) >= FEW_LINES and lines_alike >= REGULAR * len(rows)
        if count and regular and not spelled and not ending:
            return f"a table of {count + 1} columns, separated by {name}"
    return ""


def _split(line: str, separator: str, path: Path, number: int, moved: bool = False) -> list[str]:
    """Return the cells of a line.

    `moved` says whether `_into_quotes` has been applied. Raises InputError if a quoted cell is not
    well-formed.
    """
    if separator == "\t" or '"' not in line:
        return line.split(separator)
    read = csv.reader([line], delimiter=separator, strict=True, skipinitialspace=True)
    try:
        row = next(read)
        if line.isascii() or '"' not in "".join(row):
            return row
        problem = ""
    except csv.Error as error:
        problem = str(error)
    tidy = line if moved else _into_quotes(line, separator)
    if tidy != line:
        return _split(tidy, separator, path, number, moved=True)
    if not problem:
        return row
    reasons = {
        "unexpected end of data": "a quoted cell does not end on its line",
        f"'{separator}' expected after '\"'": "a quoted cell is followed by text",
    }
    raise InputError(
        f"{path}, line {number}: {reasons.get(problem, problem)}; remove stray quotes, or quote "
        'the whole cell on one line and double each quote inside it ("")'
    )


def _into_quotes(line: str, separator: str) -> str:
    """Move invisible characters around a quoted cell into it, where they are dropped later."""
    around, edge = f"({SUSPECT.pattern[:-1]} ]*)", re.escape(separator)
    cell = rf'(^|{edge}){around}"((?:[^"]|"")*)"{around}(?=$|{edge})'
    return re.sub(cell, r'\1"\2\3\4"', line)


def _cells(line: str, separator: str) -> list[str]:
    """Return the cleaned cells of a line; none if it is not well-formed."""
    try:
        return clean_all(_split(line, separator, Path(), 1))
    except InputError:
        return []


def _separator(rows: list[str], path: Path, suffix: str, column: str | int | None) -> str:
    """Return the separator of the first of `rows`.

    This is the one that yields the column, or else the most regular one. Raises InputError if it
    is ambiguous.
    """
    if suffix == ".tsv" and ("\t" in rows[0] or column in {1, clean(rows[0])}):
        return "\t"
    unquoted = [QUOTED.sub("", row) for row in rows]
    found = [separator for separator in SEPARATORS if separator in unquoted[0]]
    if isinstance(column, str):
        giving = [separator for separator in found if clean(column) in _cells(rows[0], separator)]
        found = giving or found
    if len(found) > 1:
        counts = {separator: [row.count(separator) for row in unquoted] for separator in found}
        regular = {separator: counts[separator].count(counts[separator][0]) for separator in found}
        found = [separator for separator in found if regular[separator] == max(regular.values())]
    if len(found) > 1 and isinstance(column, int):
        raise InputError(
            f"{path} could be separated by {' or '.join(SEPARATORS[each] for each in found)}; to "
            f"say which, put a line sep={found[-1]} (or sep={found[0]}) at the top"
        )
    return found[0] if found else "\t" if suffix == ".tsv" else ","


def _place(
    headings: list[str],
    separator: str,
    path: Path,
    number: int,
    column: str | int | None,
    header: bool,
    notes: list[str],
    sample: list[str],
) -> int:
    """Return the index of the column in the first row of a table, from 0."""
    listed = ", ".join(map(repr, headings[:SHOWN]))
    if len(headings) > SHOWN:
        listed += f" and {len(headings) - SHOWN:,} more"
    listed += f" (split at {SEPARATORS.get(separator, repr(separator))})"
    if isinstance(column, int):
        if column > len(headings):
            raise InputError(
                f"{path}, line {number}: no column number {column}; there are {len(headings)}: "
                f"{listed}; a heading that is a number needs quotes"
            )
        if header:
            notes.append(
                f"{path}, line {number}: the heading of column {column} is "
                f"{headings[column - 1]!r}; if that is a name, set names.header to false"
            )
        return column - 1
    if not header:
        raise InputError(
            f"{path}, line {number}: without headings, column must be the number of the column "
            f"with the names, 1 to {len(headings)}; the first row is: {listed}"
        )
    if column is None:
        raise InputError(
            f"{path} is a table; set column to the heading or number of the column with the "
            f"names: {listed}"
        )
    return _place_of_heading(headings, listed, path, number, column, sample)


def _place_of_heading(
    headings: Sequence[str], listed: str, path: Path, number: int, column: str, sample: list[str]
) -> int:
    """Return the index of the only heading that equals `column`."""
    places = [place for place, heading in enumerate(headings) if heading == clean(column)]
    if len(places) > 1:
        numbers = " and ".join(str(place + 1) for place in places)
        raise InputError(
            f"{path}, line {number}: columns {numbers} have the heading {column!r}; "
            "give the number of the one with the names"
        )
    if not places:
        title = ""
        for line in sample[1:TITLES]:
            if any(clean(column) in _cells(line, separator) for separator in SEPARATORS):
                title = (
                    f"if the headings are {shown(line)}, remove the lines above them; otherwise, "
                )
                break
        raise InputError(
            f"{path}, line {number}: no column {column!r}; {title}give one of: {listed}, or its "
            "number; if these are not headings, set header to false and column to a number"
        )
    return places[0]
