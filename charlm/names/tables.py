"""Reading a column of a table: lines of cells, separated by commas, semicolons, tabs or bars.

The separator is found in the first row, or stated in a line like `sep=;` before it, as some
spreadsheets write it. Between tabs, quotes are a part of the text, as they are in TSV. Otherwise a
cell in quotes may contain separators, and each quote in it is doubled (RFC 4180); but it must end
on its line, as a stray quote would swallow the lines after it.
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
"""The number of a line, from 1, and what was read from it and the following ones."""

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
STATED = re.compile('"?sep=([^"])"?', re.IGNORECASE)
QUOTED = re.compile('"(?:[^"]|"")*"')
SAMPLE = 200
"""Lines that decide about the separator, at the beginning, or about the format, anywhere."""
SHOWN = 20
"""Headings shown in an error message."""
TITLES = 20
"""Lines at the beginning among which headings are sought."""
R = "give a table written with write.csv(x, row.names = FALSE)"


def first_lines(blocks: Iterator[list[str]]) -> list[str]:
    """Take the first lines from blocks: `SAMPLE` of them with text or more, if there are."""
    first: list[str] = []
    found = 0
    for lines in blocks:
        first += lines
        found += sum(not line.isspace() for line in lines if line)
        if found >= SAMPLE:
            break
    return first


def spread(lines: Sequence[str]) -> list[str]:
    """Return `SAMPLE` of the lines, or all if there are fewer, evenly spread from the first one.

    The first lines of a sorted list are often the odd ones.
    """
    count = min(SAMPLE, len(lines))
    return [lines[index * len(lines) // count] for index in range(count)]


def stated(lines: list[str]) -> tuple[int, str] | None:
    """Return number (from 1) and separator of a line such as `sep=;`, if it is the first."""
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
    """Yield blocks of the cells of a column; empty where a row ends before it.

    Args:
        blocks: the lines of the table.
        path: its file, for error messages.
        suffix: the suffix of the file when decompressed.
        column: the heading of the column, or its number from 1.
        header: whether the first row holds headings; blanks and invisible characters around
            them do not count.
        notes: remarks for the user are appended.

    Raises:
        InputError: there is no such column, or not one only, or a row is not well-formed.
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
        raise InputError(f"{path} is separated by blanks, as R's write.table does it; {R}")
    cells = _split(first[0], separator, path, top)
    width = len(cells)
    place = _place(clean_all(cells), separator, path, top, column, header, notes, first)
    odd = _OddRows(path, separator, top, place, first, sample)
    headings = {f"{mark}{it}" for it in cells if it for mark in ("", "\ufeff")} if header else set()
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
    """Rows of a table that differ from its first one.

    Attributes:
        path: the file of the table.
        separator: the separator of its cells.
        top: the number of the first row's line.
        place: the place of the column with the names, from 0.
        first: the first lines with text, beginning with the first row.
        sample: lines with text spread over the table, beginning with the first row.
        short: rows with fewer cells.
        blank: rows with a blank between the name and the next cell.
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
        """Return the cells of lines; none of a line that is not well-formed."""
        return [_cells(line, self.separator) for line in lines]

    def check_width(self, row: list[str], at: int) -> None:
        """Note a row that has fewer cells than the first one.

        Raises InputError if it has more, unless these are empty.
        """
        if len(row) < self.width:
            if any(map(clean, row)):
                self.short.add(str(at))
        elif any(map(clean, row[self.width :])):
            raise InputError(
                f"{self.path}, line {at}: {len(row):,} cells where line {self.top} has "
                f"{self.width:,}; {self._too_many()}"
            )

    def _too_many(self) -> str:
        rows = self.rows(self.sample[1:])
        (usual, _), *_ = Counter(map(len, rows)).most_common(1) or [(self.width, 0)]
        inside = f"put a cell that contains a {self.separator!r} in double quotes"
        if self.separator == "\t":
            inside = "remove the tabs within cells"
        if usual == self.width + 1 and all(is_number(row[0]) for row in rows if row):
            inside = f"if the first heading is missing, as in a table of R, {R}; if not, {inside}"
        elif usual > self.width and len(rows) >= FEW_LINES:
            inside = f"if line {self.top} is a title, remove it; if not, {inside}"
        return inside

    def names(self, rows: list[list[str]]) -> list[str]:
        """Return the cells of the column in those rows that have it."""
        return [row[self.place] for row in rows if self.place < len(row)]

    def check_blank(self, row: list[str], at: int) -> None:
        """Note a row in which a separator with a blank may be a part of the name."""
        if row[self.place + 1 : self.place + 2] and row[self.place + 1].startswith(" "):
            self.blank.add(str(at))

    def drop_headings(self, lines: list[str], cells: list[str], number: int) -> None:
        """Empty the cells of rows that repeat the headings, in lines counted from `number`.

        Raises InputError if they are repeated in another order.
        """
        for index, row in enumerate(self.rows(lines)):
            if row == self.headings:
                self.repeated.add(str(number + index))
                cells[index] = ""
            elif sorted(row) == sorted(self.headings):
                raise InputError(
                    f"{self.path}, line {number + index}: the headings of line {self.top} in "
                    "another order; bring the columns of joined tables in the same order"
                )

    def remarks(self, header: bool) -> list[str]:
        """Return remarks for the user after all rows are read.

        Raises InputError if the names are R's numbers of the rows.
        """
        rows, first = self.rows(self.sample), self.rows(self.first)
        names = self.names(rows[header:])
        remarks = []
        if self.width == 1 and (description := looks_like_table(self.sample[1:])):
            remarks.append(
                f"looks like {description}, below line {self.top}; if that is a title, remove it"
            )
        if len(names) >= FEW_LINES and all(map(is_number, names)):
            if header and all(len(row) == self.width + 1 for row in rows[1:]):
                raise InputError(
                    f"{self.path}: rows have one cell more than headings, and the names are "
                    f"numbers; if the first heading is missing, as R's write.table does it, {R}"
                )
            remarks.append(f"the names are numbers, such as {shown(names[0])}; check names.column")
        if self.separator == "\t" and names and all(map(QUOTED.fullmatch, names)):
            remarks.append(
                "the names are in quotes, which stay a part of them, as in any table with tabs; "
                "if they should not, save it with commas, as .csv"
            )
        elif description := other_format(names, self.names(first[header:])):
            remarks.append(f"the names look like {description}")
        if not header and looks_like_headings(rows):
            remarks.append(
                f"line {self.top} looks like headings, and {shown(self.headings[self.place])} is "
                "taken as a name; if they are, set names.header to true"
            )
        second = [row for row in first[1:2] if row != self.headings]
        if header and second and looks_like_headings(second):
            remarks.append(
                f"the row below line {self.top} looks like headings; if line {self.top} is a "
                "title, remove it"
            )
        if self.repeated.count:
            remarks.append(f"{self.repeated.lines()}: headings repeated, and left out")
        if self.short.count:
            remarks.append(
                f"{self.short.lines()}: fewer cells than on line {self.top}; check that none is "
                "missing"
            )
        spaced = f"{self.separator} " in self.first[0] and (header or self.width > 2)
        if self.blank.count and not spaced:  # else all of them are written so
            remarks.append(
                f"{self.blank.lines()}: a blank after the name's {self.separator!r}; if these are "
                "a part of the name, put it in double quotes"
            )
        return remarks


def looks_like_table(lines: list[str]) -> str:
    """Return a description if nine in ten lines have as many of a separator, or ""."""
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
    """Return the cells of a line, whose invisible characters around quotes may have been moved.

    Raises InputError if a quoted cell is not well-formed.
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
        f"{path}, line {number}: {reasons.get(problem, problem)}; remove stray quotes, or put the "
        'cell in quotes on one line with each quote in it doubled ("")'
    )


def _into_quotes(line: str, separator: str) -> str:
    """Move invisible characters around a quoted cell into it, where they are dropped."""
    around, edge = f"({SUSPECT.pattern[:-1]} ]*)", re.escape(separator)
    cell = rf'(^|{edge}){around}"((?:[^"]|"")*)"{around}(?=$|{edge})'
    return re.sub(cell, r'\1"\2\3\4"', line)


def _cells(line: str, separator: str) -> list[str]:
    """Return the cells of a line, cleaned; none if it is not well-formed."""
    try:
        return clean_all(_split(line, separator, Path(), 1))
    except InputError:
        return []


def _separator(rows: list[str], path: Path, suffix: str, column: str | int | None) -> str:
    """Return the separator in the first of `rows`: one that gives the column, or the most regular.

    Raises InputError if that is not clear.
    """
    if suffix == ".tsv" and ("\t" in rows[0] or column in {1, clean(rows[0])}):
        return "\t"
    unquoted = [QUOTED.sub("", row) for row in rows]
    found = [separator for separator in SEPARATORS if separator in unquoted[0]]
    if isinstance(column, str):
        giving = [it for it in found if clean(column) in _cells(rows[0], it)]
        found = giving or found
    if len(found) > 1:
        counts = {it: [row.count(it) for row in unquoted] for it in found}
        regular = {it: counts[it].count(counts[it][0]) for it in found}
        found = [it for it in found if regular[it] == max(regular.values())]
    if len(found) > 1 and isinstance(column, int):
        raise InputError(
            f"{path} may be split at {' or at '.join(SEPARATORS[it] for it in found)}; "
            f"state which: put a line sep={found[-1]} (or sep={found[0]}) before its first one"
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
    """Return the place of the column in the first row of a table, from 0."""
    listed = ", ".join(map(repr, headings[:SHOWN]))
    if len(headings) > SHOWN:
        listed += f" and {len(headings) - SHOWN:,} more"
    listed += f" (split at {SEPARATORS.get(separator, repr(separator))})"
    if isinstance(column, int):
        if column > len(headings):
            raise InputError(
                f"{path}, line {number}: no column {column}; there are {len(headings)}: {listed}"
            )
        if header:
            notes.append(
                f"{path}, line {number}: column {column} is headed {headings[column - 1]!r}; "
                "if that is a name, set names.header to false"
            )
        return column - 1
    if not header:
        raise InputError(
            f"{path}, line {number}: without headings, the column with the names must be given "
            f"by its number, 1 to {len(headings)}, as the first row is: {listed}"
        )
    if column is None:
        raise InputError(
            f"{path} is a table; give the column with the names, one of: {listed}, or its number"
        )
    return _place_of_heading(headings, listed, path, number, column, sample)


def _place_of_heading(
    headings: Sequence[str], listed: str, path: Path, number: int, column: str, sample: list[str]
) -> int:
    """Return the place of the only heading that is `column`."""
    places = [place for place, heading in enumerate(headings) if heading == clean(column)]
    if len(places) > 1:
        numbers = " and ".join(str(place + 1) for place in places)
        raise InputError(
            f"{path}, line {number}: columns {numbers} are headed {column!r}; "
            "give the number of the one with the names"
        )
    if not places:
        title = ""
        for line in sample[1:TITLES]:
            if any(clean(column) in _cells(line, separator) for separator in SEPARATORS):
                title = f"remove the lines above {shown(line)}, if that has the headings, or "
                break
        raise InputError(
            f"{path}, line {number}: no column {column!r}; {title}give one of: {listed}, or its "
            "number; if these are no headings, set header to false and column to a number"
        )
    return places[0]
