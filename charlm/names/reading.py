"""Read a list of names: plain text or a table, optionally compressed."""

import codecs
import collections
import gzip
import os
import re
import shlex
import sys
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path, PurePath
from pkgutil import resolve_name
from tempfile import TemporaryFile
from typing import IO, Any, BinaryIO

from charlm.core.errors import InputError
from charlm.core.terminal import bar
from charlm.names.distinct import Distinct
from charlm.names.invisible import NO_BREAK, clean, clean_all
from charlm.names.suspicious import (
    SHOWN,
    Examples,
    Suspects,
    hidden_misread,
    is_r_table,
    looks_like_headings,
    original,
    other_format,
    shown,
)
from charlm.names.tables import (
    SAMPLE,
    Block,
    R,
    column_cells,
    first_lines,
    looks_like_table,
    spread,
    stated,
)

TABLES = {".csv", ".tsv"}
"""Suffixes of tables. A file with any other suffix is a table if a column is given."""
UNSUPPORTED = {".json", ".jsonl", ".xml", ".html", ".yaml", ".yml", ".sql", ".rtf", ".parquet"}
"""Formats that would otherwise be read as plain text."""
PACKED = {".bz2": "bz2:BZ2Decompressor", ".xz": "lzma:LZMADecompressor"}
"""Decompressors by suffix. Each decompresses one stream; a file can contain several."""
COMPRESSED = {".gz", ".zip", *PACKED}
PADDING = b"\0"
"""Bytes that can follow a compressed stream."""
SYSTEM_FILES = re.compile(r"^__MACOSX/|(^|/)(\.DS_Store|desktop\.ini|Thumbs\.db)$")
"""Files that operating systems add to a zip."""
ENCRYPTED = 1
"""The flag of an encrypted member of a zip."""
_SAVE = "save the table as CSV UTF-8 and use that file"
_UNPACK = "unpack it and use the list inside"
KINDS = {
    b"PK\3\4": f"a workbook or an archive; {_SAVE}",
    b"\xd0\xcf\x11\xe0": f"a workbook or a document; {_SAVE}",
    b"%PDF": f"a PDF; {_SAVE}",
    b"SQLite format 3\0": f"a database; {_SAVE}",
    b"\x1f\x8b": f"compressed (gzip); {_UNPACK}",
    b"BZh": f"compressed (bzip2); {_UNPACK}",
    b"\xfd7zXZ\0": f"compressed (xz); {_UNPACK}",
    b"\x28\xb5\x2f\xfd": f"compressed (zstd); {_UNPACK}",
    b"7z\xbc\xaf\x27\x1c": f"an archive (7-Zip); {_UNPACK}",
    b"Rar!": f"an archive (RAR); {_UNPACK}",
}
"""Kinds of files that are not text, and what to do with them, by their first bytes."""
POINTER = "version https://git-lfs.github.com/spec/"
"""The beginning of a Git LFS pointer."""
TAR = 257, b"ustar"
"""Offset and text of the signature of a tar archive."""
ENCODINGS = (
    "CP1250 for Central European names, CP1251 for Cyrillic, CP1253 for Greek, CP1254 for Turkish, "
    "GB18030 for Chinese, CP932 for Japanese, CP949 for Korean"
)
HEAD = 4096
"""Bytes at the beginning of a file that show its kind and encoding."""
MIN_NAMES = 3  # one each for training, validation and test
CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]")
"""Control characters, which names do not contain and which break terminals and tables.
Tabs are allowed."""
URL = re.compile(r"[a-z][a-z0-9+.-]+:/", re.IGNORECASE)
"""The beginning of a URL, but not of a Windows path, whose drive is a single letter."""
BLOCK = 1 << 20
"""Bytes per read."""


@dataclass
class Tally:
    """Statistics and remarks collected while reading.

    Attributes:
        unit: "line" for text, "row" for a table.
        rows: number of lines or rows, not counting headings.
        invisible: counts of the invisible characters dropped or replaced.
        misread: UTF-8 decoded with another encoding, recognized by dropped characters.
        notes: remarks for the user.
    """

    unit: str = "line"
    rows: int = 0
    invisible: Counter[str] = field(default_factory=Counter)
    misread: Examples = field(default_factory=Examples)
    notes: list[str] = field(default_factory=list)

    def remarks(self) -> list[str]:
        """Return the notes, and lines about invisible characters dropped or replaced, if any."""
        remarks = [*self.notes]
        for did, replaced in (
            ("dropped invisible characters", False),
            ("replaced no-break spaces with spaces", True),
        ):
            counts = ", ".join(
                f"U+{ord(character):04X} ({count:,})"
                for character, count in sorted(self.invisible.items())
                if bool(NO_BREAK.match(character)) is replaced
            )
            remarks += [f"{did}: {counts}"] if counts else []
        return remarks


@dataclass(frozen=True)
class NamesFound:
    """Statistics of a list of names. Every line or row is a new name, a duplicate or empty.

    Attributes:
        count: number of distinct names.
        duplicates: number of repeated names dropped.
        empty: number of lines or rows without a name.
        tally: the number of lines or rows, and remarks.
        characters: the distinct characters of all names, in code point order.
        total_length: sum of the lengths of the distinct names, in characters.
        longest: length of the longest name, in characters.
    """

    count: int
    duplicates: int
    empty: int
    tally: Tally
    characters: str
    total_length: int
    longest: int


def gather_names(
    path: str | os.PathLike[str], column: str | int | None, header: bool, target: IO[bytes]
) -> NamesFound:
    """Write the distinct names of a list to a file, in order, one per line in UTF-8.

    Names are normalized to Unicode NFC, so that an accented letter is always the same character.
    Surrounding whitespace and invisible characters (`charlm.names.invisible`) are removed. Empty
    lines and repeated names are dropped. All kinds of line endings are accepted. The list is read
    in blocks and takes 16 bytes of memory per name.

    Args:
        path: a text file with one name per line, or a table (`charlm.names.tables`), in UTF-8. It
            can be compressed (`.gz`, `.bz2`, `.xz`), or be the only file in a `.zip`.
        column: the column with the names, by heading or by number from 1. Required for `.csv` and
            `.tsv`. Any other file is a table if a column is given, and plain text otherwise.
        header: whether the first row of a table contains headings.
        target: an empty file, open for reading and writing.

    Raises:
        InputError: the file cannot be read, changes while being read, is not UTF-8, is not a
            well-formed table, lacks the column, has a control character in a name, or has fewer
            than three distinct names. If several apply, the first one in this order is raised,
            wherever in the file they occur.
    """
    distinct, tally = Distinct(target), Tally()
    suspects = Suspects(misread=tally.misread)
    characters: set[str] = set()
    given = total_length = longest = 0
    for names in name_blocks(path, column, header, tally):
        given += len(names)
        new = distinct.add(names)
        lengths = list(map(len, new))
        total_length += sum(lengths)
        longest = max([longest, *lengths])
        characters.update(*new)
        suspects.add(new, characters)
    tally.notes += [f"{os.fspath(path)}: {remark}" for remark in suspects.remarks()]
    if distinct.count < MIN_NAMES:
        held = {0: "no names", 1: "only one name"}.get(
            distinct.count, f"only {distinct.count} names"
        )
        raise InputError(
            f"{os.fspath(path)} contains {held}; use a list of at least {MIN_NAMES} distinct names "
            "(a useful model needs thousands)"
        )
    return NamesFound(
        distinct.count,
        given - distinct.count,
        tally.rows - given,
        tally,
        "".join(sorted(characters)),
        total_length,
        longest,
    )


def read_names(
    path: str | os.PathLike[str], column: str | int | None = None, header: bool = True
) -> list[str]:
    """Return the distinct names of a list, in order. Reads and checks like `gather_names`."""
    with TemporaryFile() as file:
        gather_names(path, column, header, file)
        file.seek(0)
        return file.read().decode().splitlines()


def name_blocks(
    path: str | os.PathLike[str],
    column: str | int | None = None,
    header: bool = True,
    tally: Tally | None = None,
) -> Iterator[list[str]]:
    """Yield the names of a list in blocks, including repeated ones; see `gather_names`.

    Statistics and remarks are added to `tally`.
    """
    path, tally = _local(path), tally or Tally()
    with _opened(path) as (source, suffix):
        if suffix in UNSUPPORTED:
            raise InputError(
                f"{path} is {suffix[1:].upper()}; use a text file with one name per line, or a "
                ".csv or .tsv table"
            )
        head = bytearray()
        texts = _texts(_keeping(source, head), path)
        blocks = map(_lines, texts)
        try:
            if suffix in TABLES or column is not None or not header:
                tally.unit = "row"
                numbered = column_cells(blocks, path, suffix, column, header, tally.notes)
            else:
                numbered = _numbered(blocks, path, tally)
            for number, lines in numbered:
                names = list(filter(None, clean_all(lines, tally.invisible)))
                if tally.invisible:
                    tally.misread.add(*hidden_misread(lines))
                if CONTROL.search("\t".join(names)):
                    _exhaust(numbered)
                    raise InputError(_first_control(lines, number, path))
                tally.rows += len(lines)
                yield names
        except InputError:
            _exhaust(texts)
            if advice := _what_it_is(bytes(head), path):
                raise InputError(f"{path} is not UTF-8, but {advice}") from None
            raise


def _local(path: str | os.PathLike[str]) -> Path:
    """Return the path of a list with `~` expanded; raise InputError for a URL."""
    text = os.fspath(path)
    with suppress(OSError, ValueError):  # an impossible path is reported when it is opened
        if Path(text).exists():
            return Path(text)
    if text.lower().startswith("file:"):
        alone = text[len("file:") :].lstrip("/")
        alone = alone if re.match("[a-zA-Z]:", alone) else f"/{alone}"  # a drive of Windows
        raise InputError(f"{text} is a URL; give the path alone: {alone}")
    if URL.match(text):
        url = re.sub(":/+", "://", text, count=1)
        raise InputError(
            f"{url} is a URL; download the list first, for example: "
            f"dvc import-url {_quoted(url)} data/ (then give the path of the file)"
        )
    with suppress(RuntimeError):  # no such user
        return Path(text).expanduser()
    return Path(text)


def _numbered(blocks: Iterator[list[str]], path: Path, tally: Tally) -> Iterator[Block]:
    """Yield blocks of lines, each with the number of its first line; note other formats.

    Raises InputError if the first line declares the separator of a table.
    """
    first = first_lines(blocks)
    if statement := stated(first):
        line = first[statement[0] - 1]
        raise InputError(
            f"{path} is a table, because its first line is {line}; set names.column to the heading "
            "or the number of the column with the names"
        )
    filled = [line for line in first if clean(line)]
    sample, begin = spread(filled), clean_all(filled[:SAMPLE])
    cleaned = clean_all(sample)
    if description := looks_like_table(sample):
        tally.notes.append(
            f"{path} looks like {description}; if it is a table, set names.column to the heading "
            "or the number of the column with the names (and names.header to false if there are "
            "no headings)"
        )
    elif is_r_table(cleaned):
        tally.notes.append(
            f"{path} looks like cells separated by spaces, written by R's write.table; {R}"
        )
    elif description := other_format(cleaned, begin):
        tally.notes.append(f"{path} looks like {description}")
    elif begin and looks_like_headings([begin[:1]]):
        tally.notes.append(
            f"{path}: {shown(begin[0])} is read as a name; if it is a heading, remove it"
        )
    number = 1
    for lines in chain([first], blocks):
        yield number, lines
        number += len(lines)


def _exhaust(blocks: Iterator[object]) -> None:
    """Read to the end, because an error in the whole file takes precedence over one in a line.

    This way, the error reported does not depend on the block size.
    """
    collections.deque(blocks, maxlen=0)


def _first_control(lines: list[str], number: int, path: Path) -> str:
    """Return the message for the first control character in `lines`, numbered from `number`."""
    for place, (line, name) in enumerate(zip(lines, clean_all(lines), strict=True), start=number):
        if control := CONTROL.search(name):
            at = f"{path}, line {place}: {shown(name, ascii)} contains a control character "
            at += f"(U+{ord(control[0]):04X})"
            for encoding in ("utf-8", "cp1252"):
                if control[0] >= "\x80" and (was := original(line.strip(" "), "latin-1", encoding)):
                    return (
                        f"{at}, probably from {encoding.upper()} read as Latin-1 ({shown(was)}); "
                        f"convert the original list again, from {encoding.upper()}"
                    )
            return f"{at}; is this a list of names? If so, remove the character"
    raise ValueError("no control character")


def _lines(text: str) -> list[str]:
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return lines if lines[-1] else lines[:-1]


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Iterator[bytes], str]]:
    """Open a file; yield its decompressed content in blocks, and the suffix of its format."""
    with _open(path) as file, bar("reading the names", path.stat().st_size, "B") as shown:
        with _explaining(path):
            inner = PurePath(path.stem).suffix
            match path.suffix.lower():
                case ".gz":
                    source, suffix = _read(gzip.GzipFile(fileobj=file)), inner
                case packed if packed in PACKED:
                    source, suffix = _unpacked(file, resolve_name(PACKED[packed])), inner
                case ".zip":
                    source, suffix = _only_member(file, path)
                case suffix:
                    source = _read(file)

        begun = _version(file)

        def blocks() -> Iterator[bytes]:
            while True:
                with _explaining(path):
                    block = next(source, b"")
                if _version(file) != begun:
                    raise InputError(
                        f"{path} changed while it was being read; try again once it is complete"
                    )
                if not block:
                    return
                shown.update(file.tell() - shown.n)
                yield block

        yield blocks(), suffix.lower()


def _version(file: BinaryIO) -> tuple[int, int]:
    """Return the size and the modification time of a file, which change when it is written."""
    stat = os.fstat(file.fileno())
    return stat.st_size, stat.st_mtime_ns


def _open(path: Path) -> BinaryIO:
    try:
        # Opening a named pipe blocks until something writes to it, and a device may never end.
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise InputError(f"{path} is not a regular file; give the path of a list of names")
        return path.open("rb")
    except FileNotFoundError:
        if Path(f"{path}.dvc").exists():
            todo = f"restore it: dvc checkout {path}.dvc (or fetch it: dvc pull {path}.dvc)"
        else:
            todo = "give the path of a list of names"
        raise InputError(f"{path} does not exist; {todo}") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise _unreadable(path, error) from None


@contextmanager
def _explaining(path: Path) -> Iterator[None]:
    """Convert errors while reading or decompressing into InputError."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # decompressors raise a dozen kinds of errors for damaged data
        if path.suffix.lower() not in COMPRESSED:
            raise _unreadable(path, error) from None
        raise InputError(
            f"{path} cannot be decompressed ({error}); compress the list again"
        ) from None


def _unreadable(path: Path, error: Exception) -> InputError:
    return InputError(
        f"{path} cannot be read ({getattr(error, 'strerror', None) or error}); "
        "give the path of a readable list of names"
    )


def _read(file: IO[bytes] | gzip.GzipFile) -> Iterator[bytes]:
    """Yield a file in blocks."""
    return iter(lambda: file.read(BLOCK), b"")


def _unpacked(file: BinaryIO, new: Callable[[], Any]) -> Iterator[bytes]:
    """Yield the content of a file with one or more compressed streams, in blocks.

    `bz2.open` and `lzma.open` would stop at the first damaged stream without an error.
    """
    data = file.read(BLOCK)
    while data:
        decompressor = new()
        while not decompressor.eof:
            if decompressor.needs_input and not data and not (data := file.read(BLOCK)):
                raise EOFError("the file ends in the middle of a stream")
            if block := decompressor.decompress(data, BLOCK):
                yield block
            data = b""
        data = decompressor.unused_data.lstrip(PADDING)
        while not data and (more := file.read(BLOCK)):
            data = more.lstrip(PADDING)


def _only_member(file: BinaryIO, path: Path) -> tuple[Iterator[bytes], str]:
    archive = zipfile.ZipFile(file)
    members = [
        info
        for info in archive.infolist()
        if not info.is_dir() and not SYSTEM_FILES.search(info.filename)
    ]
    if len(members) != 1:
        listed = ", ".join(shown(info.filename) for info in members[:SHOWN])
        raise InputError(
            f"{path} contains {len(members)} files{f' ({listed})' * bool(listed)}; a zip must "
            "contain a single file, the list of names"
        )
    if members[0].flag_bits & ENCRYPTED:
        raise InputError(f"{path} is encrypted; {_UNPACK}")
    return _read(archive.open(members[0])), PurePath(members[0].filename).suffix


def _keeping(blocks: Iterator[bytes], head: bytearray) -> Iterator[bytes]:
    """Yield the same blocks; if there was no error, append the first bytes to `head` at the end."""
    begun = bytearray()
    for block in blocks:
        begun += block[: HEAD - len(begun)]
        yield block
    head += begun


def _texts(blocks: Iterator[bytes], path: Path) -> Iterator[str]:
    """Yield the blocks as text, split at line ends."""
    line = 1
    for number, data in enumerate(_whole_lines(blocks)):
        try:
            text = data.decode()
        except UnicodeDecodeError as error:
            line += _line_ends(data[: error.start])
            byte = data[error.start]
            _exhaust(blocks)
            place = f"{path}, line {line}: not UTF-8 (byte 0x{byte:02x})"
            command = _conversion("CP1252", path)
            raise InputError(
                f"{place}; convert it first, for example: {command} (or from {ENCODINGS})"
            ) from None
        if not number and text.startswith(POINTER):
            raise InputError(f"{path} is a Git LFS pointer; fetch the list: git lfs pull")
        yield text if number else text.lstrip("\ufeff")
        line += _line_ends(data)


def _line_ends(data: bytes) -> int:
    """Count line ends: LF, CR LF or CR."""
    return data.count(b"\n") + data.count(b"\r") - data.count(b"\r\n")


def _what_it_is(head: bytes, path: Path) -> str:
    """Return what a file is and what to do with it, or "" if its first bytes look like UTF-8."""
    for begin, kind in KINDS.items():
        if head.startswith(begin):
            return kind
    if head.startswith(TAR[1], TAR[0]):
        return f"an archive (tar); {_UNPACK}"
    if head.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        encoding = "UTF-32"
    elif head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encoding = "UTF-16"
    else:
        first, second = head[::2].count(0), head[1::2].count(0)  # of each pair of bytes
        if min(first, second) or first + second < max(head.count(b"\n"), 1):
            return ""
        encoding = "UTF-16BE" if first else "UTF-16LE"
    return f"{encoding}; convert it first, for example: {_conversion(encoding, path)}"


def _conversion(encoding: str, path: Path) -> str:
    """Return a command that converts a file to UTF-8."""
    target = path.with_stem(f"{path.stem}-utf8")
    if sys.platform == "win32":  # Windows has no iconv
        code = f"Path({target.as_posix()!r}).write_text(Path({path.as_posix()!r}).read_text("
        code += f"{encoding!r}), 'UTF-8')"
        return f'python -c "from pathlib import Path; {code}"'
    return f"iconv -f {encoding} -t UTF-8 {_quoted(str(path))} > {_quoted(str(target))}"


def _quoted(text: str) -> str:
    """Quote text for the shell. The shells of Windows only know double quotes."""
    quoted = shlex.quote(text)
    return f'"{text}"' if sys.platform == "win32" and quoted != text else quoted


def _whole_lines(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the same bytes in blocks that end with a line end, except for the last one."""
    begun: list[bytes] = []
    for block in blocks:
        # A carriage return at the end may be the first half of CR LF.
        cut = max(block.rfind(b"\n"), block.rfind(b"\r", 0, len(block) - 1)) + 1
        if cut:
            yield b"".join([*begun, block[:cut]])
            begun = []
        begun.append(block[cut:])
    yield b"".join(begun)
