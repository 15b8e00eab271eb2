"""Write files completely or not at all, and read them without running code."""

import errno
import json
import os
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import safetensors

from charlm.core.errors import CLOSED_STREAM, FileError, is_out_of_memory

# Imported only if needed: torch takes two seconds to import, pandas half a second.
if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray
    from torch import Tensor

# safetensors writes metadata entries in a different order in every process (they are in a hash
# map), so all metadata goes into a single entry.
_METADATA = "charlm"

PARTIAL = ".partial-"
"""Prefix of temporary folders for new files."""

DECIMALS = 6
"""Decimal places in text files: enough to distinguish runs; later digits differ by machine."""

PATIENCE_SECONDS = 2.0
"""How long to wait on Windows for another program to close a file."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path for a new file or folder, then atomically replace `path` with it.

    The temporary path is in a folder next to `path` and is renamed at the end, so that readers see
    either the old or the new version. A folder is replaced as a whole. On an exception, `path` is
    left unchanged. An OSError gets `path` as its file name, unless only a stream can raise it.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # On Windows, a reader can keep a file of the old folder open, which then cannot be deleted.
        with tempfile.TemporaryDirectory(
            dir=path.parent, prefix=PARTIAL, ignore_cleanup_errors=True
        ) as folder:
            partial = Path(folder) / path.name
            yield partial
            if partial.is_dir():
                _replace_folder(partial, path, aside=Path(folder) / "before")
            else:
                with partial.open("rb+") as file:
                    os.fsync(file.fileno())
                _persistently(lambda: partial.replace(path), path)
    except OSError as error:
        if error.errno in CLOSED_STREAM and error.filename is None:
            raise
        reason = error.strerror or str(error)
        raise OSError(error.errno or errno.EIO, reason, os.fspath(path)) from error


def _replace_folder(new: Path, path: Path, aside: Path) -> None:
    """Rename the folder `new` to `path`, after moving an existing folder to `aside`."""
    try:
        if path.exists():
            _persistently(lambda: path.rename(aside))
        _persistently(lambda: new.rename(path))
    except BaseException:
        if aside.exists() and not path.exists():
            aside.rename(path)
        raise


def remove(path: Path) -> None:
    """Delete a file, even if it is read-only."""
    _persistently(path.unlink, path)


def _persistently(change: Callable[[], object], path: Path | None = None) -> None:
    """Rename or delete a file or folder; on Windows, make `path` writable first, and retry.

    Windows refuses both for a read-only file, and for a file that another program (a virus scanner,
    an editor, a spreadsheet) has open.
    """
    if sys.platform == "win32":
        if path and path.is_file():
            path.chmod(stat.S_IWRITE)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            try:
                change()
                return
            except PermissionError:
                time.sleep(0.05)
    change()


@contextmanager
def restoring(path: Path) -> Iterator[None]:
    """Restore the current contents of `path` if the block raises an exception."""
    before = path.read_bytes() if path.is_file() else None
    try:
        yield
    except BaseException:
        if before is not None:
            with suppress(OSError), replacing(path) as partial:
                partial.write_bytes(before)
        raise


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8 with `\\n` line endings."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, value: Mapping[str, Any] | Sequence[Any]) -> None:
    """Write a mapping or a list as indented JSON, with keys in the given order."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_csv(path: Path, table: "pd.DataFrame") -> None:
    """Write a table without its index, and floats with `DECIMALS` decimal places."""
    text = table.to_csv(index=False, float_format=f"%.{DECIMALS}f", lineterminator="\n")
    write_text(path, text)


def save_tensors(path: Path, tensors: "Mapping[str, Tensor]", metadata: Mapping[str, Any]) -> None:
    """Write named tensors and JSON metadata as one safetensors file.

    The same tensors and metadata give the same bytes.
    """
    content = tensors_as_bytes(tensors, metadata)
    with replacing(path) as partial:
        partial.write_bytes(content)


def tensors_as_bytes(tensors: "Mapping[str, Tensor]", metadata: Mapping[str, Any]) -> bytes:
    """Return the bytes that `save_tensors` writes. Tensors that share memory are all included."""
    import safetensors.torch

    contiguous: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in tensors.items():
        own = tensor.detach().cpu().contiguous()
        storage = own.untyped_storage().data_ptr()
        contiguous[name] = own.clone() if storage in seen else own
        seen.add(storage)
    return safetensors.torch.save(contiguous, metadata=_as_texts(metadata))


def save_metadata(path: Path, metadata: Mapping[str, Any]) -> None:
    """Write JSON metadata as a safetensors file without tensors."""
    with replacing(path) as partial:
        partial.write_bytes(safetensors.serialize({}, _as_texts(metadata)))


def _as_texts(metadata: Mapping[str, Any]) -> dict[str, str]:
    """Return metadata as a mapping of strings, which safetensors requires."""
    return {_METADATA: json.dumps(metadata, ensure_ascii=False, sort_keys=True)}


def _from_texts(texts: Mapping[str, str] | None) -> dict[str, Any]:
    return dict(json.loads((texts or {})[_METADATA]))


def tensor_header(
    name: str, dtype: "np.dtype[np.integer]", length: int, metadata: Mapping[str, Any]
) -> bytes:
    """Return the header of a `save_tensors` file with one tensor (length,) of an integer type.

    Use it to write a tensor in little-endian chunks.
    """
    header = {
        "__metadata__": _as_texts(metadata),
        name: {
            "dtype": f"{dtype.kind.upper()}{8 * dtype.itemsize}",
            "shape": [length],
            "data_offsets": [0, length * dtype.itemsize],
        },
    }
    content = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    content += b" " * (-len(content) % 8)
    return len(content).to_bytes(8, "little") + content


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Convert errors while reading a file into FileError."""
    try:
        yield
    except FileNotFoundError:
        raise FileError(f"{path} does not exist") from None
    except Exception as error:  # parsers raise a dozen kinds of errors for a damaged file
        if is_out_of_memory(error):
            raise
        raise FileError(f"{path} is damaged or not a file of this pipeline ({error})") from None


def load_tensors(path: Path) -> tuple[dict[str, "Tensor"], dict[str, Any]]:
    """Read tensors by name, and metadata, from a file written by `save_tensors`.

    Raises FileError if the file is missing, truncated or not such a file.
    """
    with _reading(path), safetensors.safe_open(path, framework="pt") as file:
        metadata = _from_texts(file.metadata())
        return {name: file.get_tensor(name) for name in file.keys()}, metadata  # noqa: SIM118


def load_arrays(path: Path) -> tuple[dict[str, "NDArray[Any]"], dict[str, Any]]:
    """Read memory-mapped arrays by name, and metadata, from a file written by `save_tensors`.

    The arrays are copy-on-write: changing them does not change the file. Raises FileError if the
    file is missing, truncated or not such a file.
    """
    import numpy as np

    with _reading(path):
        with safetensors.safe_open(path, framework="np") as file:  # validates the header
            metadata = _from_texts(file.metadata())
        with path.open("rb") as header:
            size = int.from_bytes(header.read(8), "little")
            described = json.loads(header.read(size))
        described.pop("__metadata__")
        arrays = {}
        for name, tensor in described.items():
            kind, bits = tensor["dtype"][0], int(tensor["dtype"][1:])
            dtype, begin = f"<{kind.lower()}{bits // 8}", tensor["data_offsets"][0]
            mapped = np.memmap(path, dtype, "c", 8 + size + begin, tuple(tensor["shape"]))
            arrays[name] = np.asarray(mapped)
        return arrays, metadata


def read_numbers(path: Path, columns: Sequence[str]) -> "pd.DataFrame":
    """Read columns of finite numbers from a table written by `write_csv`.

    Raises FileError if the file is missing or damaged, or lacks a column.
    """
    import numpy as np
    import pandas as pd

    with _reading(path):
        table = pd.read_csv(path, dtype=float, usecols=list(columns))
        if table.empty or not np.isfinite(table).all(axis=None):
            raise ValueError("a row lacks a finite number")
        return table


def read_table(
    path: Path, columns: Mapping[str, type], models: Iterable[str] = ()
) -> "pd.DataFrame":
    """Read columns of the given types from a table written by `write_csv`.

    Args:
        path: the file of the table.
        columns: the type of each column by name.
        models: names that must occur in the column `model`.

    Raises FileError if the file is missing or damaged, or lacks a column, a value or a model.
    """
    import numpy as np
    import pandas as pd

    with _reading(path):
        table = pd.read_csv(path, usecols=list(columns), dtype=dict(columns), keep_default_na=False)
        if table.empty or not np.isfinite(table.select_dtypes("number")).all(axis=None):
            raise ValueError("a row lacks a value")
        if missing := set(models).difference(table.get("model", ())):
            raise ValueError(f"no row for {', '.join(sorted(missing))}")
        return table[list(columns)]
