"""Reading a column of a table: lines of cells, separated by commas, semicolons, tabs or bars.

The separator is found in the first row, or stated in a line like `sep=;` before it, as some
spreadsheets write it. Between tabs, quotes are a part of the text, as they are in TSV. Otherwise a
cell in quotes may contain separators, and each quote in it is doubled (RFC 4180); but it must end
on its line, as a stray quote would swallow the lines after it.
"""

import csv
import re
from collections import Counter
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from charlm.core.errors import InputError
from charlm.names.invisible import clean, clean_all, drop_invisible

Block = tuple[int, list[str]]
"""The number of a line, from 1, and what was read from it and the following ones."""

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
STATED = re.compile('"?sep=([^"])"?', re.IGNORECASE)
QUOTED = re.compile('"(?:[^"]|"")*"')
SAMPLE = 200
"""Lines at the beginning that decide about the separator."""
SHOWN = 20
"""Headings shown in an error message."""
REGULAR = 0.9
"""Fraction of lines with as many separators from which on text looks like a table."""
FEW_LINES = 3
"""With fewer lines nothing looks like a table."""


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
    first = first_lines(blocks)
    skipped = 0
    filled = [number for number, line in enumerate(first, start=1) if clean(line)]
    if statement := stated(first):
        skipped = filled.pop(0)
    if not filled:
        return
    top, sample = filled[0], [first[number - 1] for number in filled[:SAMPLE]]
    separator = statement[1] if statement else _separator(sample, path, suffix, column)
    width = len(_split(sample[0], separator, path, top))
    place = _place(sample[0], separator, path, top, column, header, notes)
    too_many = f"where line {top} has {width:,}; " + (
        "remove the tabs within cells"
        if separator == "\t"
        else f"put a cell that contains a {separator!r} in double quotes"
    )
    rows = [line.split(separator)[place : place + 1] for line in sample[header:]]
    if separator == "\t" and rows and all(row and QUOTED.fullmatch(row[0]) for row in rows):
        notes.append(
            f"{path}: the names are in quotes, which stay a part of them, as in any table with "
            "tabs; if they should not, save it with commas, as .csv"
        )
    if header:
        skipped = top
    number = skipped + 1
    for lines in chain([first[skipped:]], blocks):
        cells = []
        for at, line in enumerate(lines, start=number):
            row = _split(line, separator, path, at)
            if len(row) > width and any(map(clean, row[width:])):
                raise InputError(f"{path}, line {at}: {len(row):,} cells {too_many}")
            cells.append(row[place] if place < len(row) else "")
        yield number, cells
        number += len(lines)


def looks_like_table(lines: list[str]) -> str:
    """Return a description if nine in ten lines have as many of a separator, or ""."""
    rows = [QUOTED.sub("", line) for line in lines if clean(line)][:SAMPLE]
    for separator, name in SEPARATORS.items():
        counts = Counter(row.count(separator) for row in rows)
        (count, lines_alike), *_ = counts.most_common(1) or [(0, 0)]
        # "Smith, Anna" is a name.
        spelled = separator == "," and all(row.count(", ") == row.count(",") for row in rows)
        regular = len(rows) >= FEW_LINES and lines_alike >= REGULAR * len(rows)
        if count and regular and not spelled:
            return f"a table of {count + 1} columns, separated by {name}"
    return ""


def _split(line: str, separator: str, path: Path, number: int) -> list[str]:
    """Return the cells of a line. Raises InputError if a quoted one is not well-formed."""
    if separator == "\t" or '"' not in line:
        return line.split(separator)
    try:
        return next(csv.reader([line], delimiter=separator, strict=True, skipinitialspace=True))
    except csv.Error as error:
        reasons = {
            "unexpected end of data": "a quoted cell does not end on its line",
            f"'{separator}' expected after '\"'": "a quoted cell is followed by text",
        }
        reason = reasons.get(str(error), str(error))
        raise InputError(
            f"{path}, line {number}: {reason}; remove stray quotes, or put the cell in quotes "
            'on one line with each quote in it doubled ("")'
        ) from None


def _separator(rows: list[str], path: Path, suffix: str, column: str | int | None) -> str:
    """Return the separator in the first of `rows`: one that gives the column, or the most regular.

    Raises InputError if that is not clear.
    """
    unquoted = [QUOTED.sub("", row) for row in rows]
    found = [separator for separator in SEPARATORS if separator in unquoted[0]]
    if suffix == ".tsv" and "\t" in found:
        return "\t"
    if isinstance(column, str):
        giving = [it for it in found if clean(column) in _headings(rows[0], it)]
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


def _headings(line: str, separator: str) -> list[str]:
    try:
        return clean_all(_split(line, separator, Path(), 1))
    except InputError:
        return []


def _place(
    line: str,
    separator: str,
    path: Path,
    number: int,
    column: str | int | None,
    header: bool,
    notes: list[str],
) -> int:
    """Return the place of the column in the first row of a table, from 0."""
    headings = clean_all(_split(line, separator, path, number))
    shown = ", ".join(map(repr, headings[:SHOWN]))
    if len(headings) > SHOWN:
        shown += f" and {len(headings) - SHOWN:,} more"
    shown += f" (split at {SEPARATORS.get(separator, repr(separator))})"
    if isinstance(column, int):
        if column > len(headings):
            raise InputError(
                f"{path}, line {number}: no column {column}; there are {len(headings)}: {shown}"
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
            f"by its number, 1 to {len(headings)}, as the first row is: {shown}"
        )
    if column is None:
        raise InputError(
            f"{path} is a table; give the column with the names, one of: {shown}, or its number"
        )
    places = [place for place, heading in enumerate(headings) if heading == clean(column)]
    if len(places) > 1:
        numbers = " and ".join(str(place + 1) for place in places)
        raise InputError(
            f"{path}, line {number}: columns {numbers} are headed {column!r}; "
            "give the number of the one with the names"
        )
    if not places:
        raise InputError(
            f"{path}, line {number}: no column {column!r}; give one of: {shown}, or its number; "
            "if these are no headings, set header to false and column to a number"
        )
    return places[0]
