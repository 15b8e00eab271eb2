"""Reading a list of names: plain text, CSV or TSV, as it is or compressed."""

import gzip
import io
import re
import unicodedata
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePath

from charlm.errors import InputError

SEPARATORS = {".csv": ",", ".tsv": "\t"}
MIN_NAMES = 3  # one each to train on, to validate on and to test on
CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]")
"""What no name has, and what upsets a terminal or a table. A tab may stand in a name."""


@dataclass(frozen=True)
class NameList:
    """Distinct names in the order of the file, and how many repetitions were dropped."""

    names: list[str]
    duplicates: int


def read_names(path: Path, column: str | None = None) -> NameList:
    """Read the names in `path`, one to a line or in one column of a table.

    A name is normalised to Unicode NFC, so that an accent is always the same
    character, and stripped of the blanks around it; empty lines and repeated
    names are dropped. A byte order mark and any line ends are accepted.

    Args:
        path: text with a name a line, or `.csv`/`.tsv` with a header line, in
            UTF-8; with `.gz` appended, or as the only file in a `.zip`.
        column: the column that holds the names; for tables, and only for them.

    Raises:
        InputError: the file cannot be read, is not UTF-8, lacks the column, has a
            control character in a name, or holds fewer than three distinct names.
    """
    data, suffix = _unpack(_read_bytes(path), path)
    text = _decode(data, path)
    if suffix in SEPARATORS:
        lines: Iterable[str] = _read_column(text, SEPARATORS[suffix], path, column)
    elif column is not None:
        raise InputError(
            f"{path} is read as text with a name a line, which has no column {column!r}; "
            "leave the column empty, or give a .csv or .tsv file"
        )
    else:
        lines = re.split("\r\n?|\n", text)
    names = [name for line in lines if (name := unicodedata.normalize("NFC", line).strip())]
    distinct = list(dict.fromkeys(names))
    if any(map(CONTROL.search, distinct)):
        raise InputError(_first_control(lines, path, "row" if suffix in SEPARATORS else "line"))
    if len(distinct) < MIN_NAMES:
        held = {0: "no names", 1: "one name only"}.get(len(distinct), f"only {len(distinct)} names")
        raise InputError(
            f"{path} holds {held}; give a list of at least {MIN_NAMES} different names "
            "(thousands, for a model worth having)"
        )
    return NameList(distinct, duplicates=len(names) - len(distinct))


def _first_control(lines: Iterable[str], path: Path, unit: str) -> str:
    """What to say of the first name with a control character."""
    for number, line in enumerate(lines, start=1):
        if control := CONTROL.search(name := line.strip()):
            shown = name if len(name) <= 40 else f"{name[:37]}..."
            return (
                f"{path}, {unit} {number}: {shown!a} holds a control character "
                f"(U+{ord(control[0]):04X}); is this a list of names? Take that one out"
            )
    raise ValueError("no control character")


def _read_bytes(path: Path) -> bytes:
    try:
        # Opening a named pipe waits until somebody writes to it; a device may never end.
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise InputError(f"{path} is no regular file; give the path of a list of names")
        return path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; give the path of a list of names") from None
    except (OSError, ValueError) as error:  # ValueError: a path with a NUL in it
        raise InputError(
            f"{path} cannot be read ({getattr(error, 'strerror', None) or error}); "
            "give the path of a readable list of names"
        ) from None


def _unpack(data: bytes, path: Path) -> tuple[bytes, str]:
    """The uncompressed bytes of a file, and the suffix that says what they are."""
    try:
        match path.suffix.lower():
            case ".gz":
                return gzip.decompress(data), PurePath(path.stem).suffix.lower()
            case ".zip":
                return _only_member(data, path)
            case suffix:
                return data, suffix
    except InputError:
        raise
    except Exception as error:  # the unpackers raise a dozen kinds of error over damaged data
        raise InputError(f"{path} cannot be unpacked ({error}); compress the list anew") from None


def _only_member(data: bytes, path: Path) -> tuple[bytes, str]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [
            info
            for info in archive.infolist()
            if not info.is_dir() and not info.filename.startswith("__MACOSX/")
        ]
        if len(members) != 1:
            raise InputError(
                f"{path} holds {len(members)} files; a zip must hold just one, the list of names"
            )
        return archive.read(members[0]), PurePath(members[0].filename).suffix.lower()


def _decode(data: bytes, path: Path) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"{path}, line {line}: not UTF-8 (byte 0x{error.object[error.start]:02x}); "
            f"convert it first, for instance: iconv -f LATIN1 -t UTF-8 {path.name}"
        ) from None


def _read_column(text: str, separator: str, path: Path, column: str | None) -> list[str]:
    import pandas as pd  # half a second that a plain list of names need not spend

    try:
        header = pd.read_csv(io.StringIO(text), sep=separator, nrows=0, dtype=str)
        known = ", ".join(map(str, header.columns))
        if column is None:
            raise InputError(
                f"{path} is a table; give the column that holds the names, one of: {known}"
            )
        if column not in header.columns:
            raise InputError(f"{path}, line 1: no column {column!r}; give one of: {known}")
        # Without keep_default_na=False, the names "NA", "Nan" and "None" would be blanks;
        # without index_col=False, a first column would be row labels where rows are too long.
        table = pd.read_csv(
            io.StringIO(text),
            sep=separator,
            usecols=[column],
            index_col=False,
            dtype=str,
            keep_default_na=False,
        )
    except pd.errors.EmptyDataError:
        return []
    except (pd.errors.ParserError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path} is not a well-formed table ({reason}); mend that line") from None
    return [str(value) for value in table[column].fillna("")]
