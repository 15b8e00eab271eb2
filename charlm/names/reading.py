"""Reading a list of names: plain text, CSV or TSV, optionally compressed."""

import codecs
import collections
import gzip
import io
import itertools
import os
import re
import unicodedata
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath
from tempfile import TemporaryFile
from typing import IO, BinaryIO

from charlm.core.errors import InputError
from charlm.core.terminal import bar
from charlm.names.distinct import Distinct

SEPARATORS = {".csv": ",", ".tsv": "\t"}
"""Separators of cells by suffix. A .csv whose header has semicolons and no comma is split at
semicolons: spreadsheets write it so in locales with a decimal comma."""
UNSUPPORTED = {".json", ".jsonl", ".xml", ".html", ".parquet"}
"""Formats that would otherwise be read as plain text, but are not lists of names."""
MIN_NAMES = 3  # one each for training, validation and test
CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]")
"""Characters that no name contains and that break terminals or tables. Tabs are allowed."""
BLOCK = 1 << 20
"""Bytes per read."""
ROWS = 1 << 16
"""Rows of a table per read."""


@dataclass(frozen=True)
class NamesFound:
    """Statistics of a list of names.

    Attributes:
        count: number of distinct names.
        duplicates: number of repetitions dropped.
        characters: the distinct characters of all names, in code point order.
        total_length: sum of the lengths of the distinct names, in characters.
        longest: length of the longest name, in characters.
    """

    count: int
    duplicates: int
    characters: str
    total_length: int
    longest: int


def gather_names(path: Path, column: str | None, target: BinaryIO) -> NamesFound:
    """Write the distinct names of a list to a file, one per line in UTF-8, in order.

    Names are normalized to Unicode NFC, so that an accented letter is always the same character,
    and stripped of surrounding whitespace; empty lines and repeated names are dropped. A byte
    order mark and any line endings are accepted. The list is read in blocks, and 16 bytes per
    name are kept in memory.

    Args:
        path: a text file with one name per line, or a `.csv` or `.tsv` table with a header (a
            `.csv` may use semicolons), in UTF-8; may be compressed as `.gz`, or be the only file
            in a `.zip`.
        column: the column with the names; required for tables, None for text.
        target: an empty file, open for reading and writing.

    Raises:
        InputError: the file cannot be read, is not UTF-8, lacks the column, has a
            control character in a name, or has fewer than three distinct names. If several
            apply, the first in this order is raised, wherever they occur in the file.
    """
    distinct = Distinct(target)
    characters: set[str] = set()
    given = total_length = longest = 0
    for names in name_blocks(path, column):
        given += len(names)
        new = distinct.add(names)
        lengths = list(map(len, new))
        total_length += sum(lengths)
        longest = max([longest, *lengths])
        characters.update(*new)
    if distinct.count < MIN_NAMES:
        held = {0: "no names", 1: "one name only"}.get(
            distinct.count, f"only {distinct.count} names"
        )
        raise InputError(
            f"{path} holds {held}; give a list of at least {MIN_NAMES} different names "
            "(a useful model needs thousands)"
        )
    return NamesFound(
        distinct.count,
        given - distinct.count,
        "".join(sorted(characters)),
        total_length,
        longest,
    )


def read_names(path: str | os.PathLike[str], column: str | None = None) -> list[str]:
    """Return the distinct names of a list in order, read and checked as by `gather_names`."""
    with TemporaryFile() as file:
        gather_names(Path(path), column, file)
        file.seek(0)
        return file.read().decode().splitlines()


def name_blocks(path: Path, column: str | None) -> Iterator[list[str]]:
    """Yield blocks of the names of a list, including repeated ones; see `gather_names`."""
    with _opened(path) as (source, suffix):
        if suffix in UNSUPPORTED:
            raise InputError(
                f"{path} is {suffix[1:].upper()}; give text with one name per line, .csv or .tsv"
            )
        unit = "row" if suffix in SEPARATORS else "line"
        texts = _texts(source, path)
        if suffix in SEPARATORS:
            lists = _cells(texts, SEPARATORS[suffix], path, column)
        elif column is not None:
            _exhaust(texts)
            raise InputError(
                f"{path} is read as text with one name per line, which has no column {column!r}; "
                "leave the column empty, or give a .csv or .tsv file"
            )
        else:
            lists = map(_lines, texts)
        before = 0
        for lines in lists:
            names = [name for line in lines if (name := unicodedata.normalize("NFC", line).strip())]
            if CONTROL.search("\t".join(names)):
                _exhaust(lists)
                raise InputError(_first_control(lines, before, path, unit))
            before += len(lines)
            yield names


def _exhaust(blocks: Iterator[object]) -> None:
    """Read to the end, since an error of the whole file takes precedence over one in a line.

    So the error reported does not depend on the size of the blocks.
    """
    collections.deque(blocks, maxlen=0)


def _first_control(lines: list[str], before: int, path: Path, unit: str) -> str:
    """Return the message for the first control character in lines that follow `before` others."""
    for number, line in enumerate(lines, start=before + 1):
        if control := CONTROL.search(name := line.strip()):
            shown = name if len(name) <= 40 else f"{name[:37]}..."
            return (
                f"{path}, {unit} {number}: {shown!a} contains a control character "
                f"(U+{ord(control[0]):04X}); is this a list of names? If so, remove the character"
            )
    raise ValueError("no control character")


def _lines(text: str) -> list[str]:
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return lines if lines[-1] else lines[:-1]


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Iterator[bytes], str]]:
    """Yield blocks of a file's uncompressed content, and the suffix that gives its format."""
    with _open(path) as file, bar("reading the names", path.stat().st_size, "B") as shown:
        with _explaining(path):
            match path.suffix.lower():
                case ".gz":
                    unpacked: IO[bytes] | gzip.GzipFile = gzip.GzipFile(fileobj=file)
                    suffix = PurePath(path.stem).suffix
                case ".zip":
                    unpacked, suffix = _only_member(file, path)
                case suffix:
                    unpacked = file

        def blocks() -> Iterator[bytes]:
            while True:
                with _explaining(path):
                    block = unpacked.read(BLOCK)
                if not block:
                    return
                shown.update(file.tell() - shown.n)
                yield block

        yield blocks(), suffix.lower()


def _open(path: Path) -> BinaryIO:
    try:
        # Opening a named pipe blocks until something writes to it; a device may never end.
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise InputError(f"{path} is not a regular file; give the path of a list of names")
        return path.open("rb")
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; give the path of a list of names") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise _unreadable(path, error) from None


@contextmanager
def _explaining(path: Path) -> Iterator[None]:
    """Turn any error while reading or decompressing into an InputError."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # the decompressors raise a dozen kinds of error for damaged data
        if path.suffix.lower() not in {".gz", ".zip"}:
            raise _unreadable(path, error) from None
        raise InputError(
            f"{path} cannot be decompressed ({error}); compress the list again"
        ) from None


def _unreadable(path: Path, error: Exception) -> InputError:
    return InputError(
        f"{path} cannot be read ({getattr(error, 'strerror', None) or error}); "
        "give the path of a readable list of names"
    )


def _only_member(file: BinaryIO, path: Path) -> tuple[IO[bytes], str]:
    archive = zipfile.ZipFile(file)
    members = [
        info
        for info in archive.infolist()
        if not info.is_dir() and not info.filename.startswith("__MACOSX/")
    ]
    if len(members) != 1:
        raise InputError(
            f"{path} contains {len(members)} files; a zip must contain just one, the list of names"
        )
    return archive.open(members[0]), PurePath(members[0].filename).suffix


def _texts(blocks: Iterator[bytes], path: Path) -> Iterator[str]:
    """Yield the blocks as text, each of whole lines."""
    line, begins = 1, b""
    for number, lines in enumerate(_whole_lines(blocks)):
        begins = begins or lines[:4]
        data = lines if number else lines.removeprefix(codecs.BOM_UTF8)
        try:
            yield data.decode()
        except UnicodeDecodeError as error:
            line += data.count(b"\n", 0, error.start)
            byte = data[error.start]
            _exhaust(blocks)
            place = f"{path}, line {line}: not UTF-8 (byte 0x{byte:02x})"
            raise InputError(f"{place}{_what_to_do(begins, path)}") from None
        line += data.count(b"\n")


def _what_to_do(begins: bytes, path: Path) -> str:
    """Return the advice for a file that is not UTF-8, given its first bytes."""
    if begins.startswith(b"PK\3\4"):
        return ", but a workbook or an archive; save the table as CSV UTF-8, and give that file"
    wide = begins.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    encoding, kind = ("UTF-16", ", but UTF-16") if wide else ("LATIN1", "")
    target = path.with_stem(f"{path.stem}-utf8")
    return f"{kind}; convert it first, for example: iconv -f {encoding} -t UTF-8 {path} > {target}"


def _whole_lines(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the same bytes in blocks that end with a line ending, except for the last."""
    begun: list[bytes] = []
    for block in blocks:
        # A carriage return at the end may be the first half of a line ending.
        cut = max(block.rfind(b"\n"), block.rfind(b"\r", 0, len(block) - 1)) + 1
        if cut:
            yield b"".join([*begun, block[:cut]])
            begun = []
        begun.append(block[cut:])
    yield b"".join(begun)


class _Reader(io.TextIOBase):
    """A file-like object over blocks of text, for pandas."""

    def __init__(self, texts: Iterator[str]) -> None:
        self.texts = texts
        self.text = io.StringIO()

    def read(self, size: int | None = -1, /) -> str:
        while not (part := self.text.read(size)):
            following = next(self.texts, None)
            if following is None:
                return ""
            self.text = io.StringIO(following, newline="")
        return part


def _cells(
    texts: Iterator[str], separator: str, path: Path, column: str | None
) -> Iterator[list[str]]:
    """Yield blocks of the cells of one column."""
    import pandas as pd  # takes half a second, which a plain list need not spend

    first = next(texts, "")
    header = first.partition("\n")[0]
    if separator == "," and ";" in header and "," not in header:
        separator = ";"
    texts = itertools.chain([first], texts)
    known: dict[str, None] = {}

    def wanted(name: str) -> bool:
        known[name] = None
        return name == column

    try:
        # Without keep_default_na=False, the names "NA", "Nan" and "None" would be missing values;
        # without index_col=False, the first column would become the index if rows are too long.
        tables = pd.read_csv(
            _Reader(texts),
            sep=separator,
            usecols=wanted,
            index_col=False,
            dtype=str,
            keep_default_na=False,
            chunksize=ROWS,
        )
        if column not in known:
            _exhaust(texts)
            columns = ", ".join(map(str, known))
            if column is None:
                raise InputError(
                    f"{path} is a table; give the column with the names, one of: {columns}"
                )
            raise InputError(f"{path}, line 1: no column {column!r}; give one of: {columns}")
        for table in tables:
            yield [str(value) for value in table[column].fillna("")]
    except pd.errors.EmptyDataError:
        return
    except (pd.errors.ParserError, ValueError) as error:
        reason = " ".join(str(error).split())
        _exhaust(texts)
        raise InputError(f"{path} is not a well-formed table ({reason}); fix that line") from None
