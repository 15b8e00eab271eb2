"""Files written whole or not at all, and read without running code."""

import errno
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import safetensors

from charlm.core.errors import FileError

# torch takes two seconds to import, pandas half a one: those who need neither do not wait.
if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray
    from torch import Tensor

# safetensors keeps its metadata in a hash map, which is written in another order
# in every process: a single entry has only one order.
_METADATA = "charlm"

DECIMALS = 6
"""Of numbers in text files: enough to tell runs apart; beyond it machines differ."""


DECIMALS = 6
"""Of what is written as JSON; beyond them machines differ."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a path to write a file or a folder to; once written, it takes the place of `path`.

    It is written in a temporary folder beside `path` and renamed, so that a reader sees the
    old one or the new one and never a part; of an old folder nothing remains. On an exception
    `path` stays as it was; an OSError names it.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".partial-") as folder:
            partial = Path(folder) / path.name
            yield partial
            if partial.is_dir():
                _replace_folder(partial, path, aside=Path(folder) / "before")
            else:
                with partial.open("rb+") as file:
                    os.fsync(file.fileno())
                partial.replace(path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise OSError(error.errno or errno.EIO, reason, os.fspath(path)) from error


def _replace_folder(new: Path, path: Path, aside: Path) -> None:
    """Rename the folder `new` to `path`; the one that is there is moved aside first."""
    try:
        if path.exists():
            path.rename(aside)
        new.rename(path)
    except BaseException:
        if aside.exists() and not path.exists():
            aside.rename(path)
        raise


@contextmanager
def restoring(path: Path) -> Iterator[None]:
    """Give `path` the contents back that it has now, should the block end by an exception."""
    before = path.read_bytes() if path.is_file() else None
    try:
        yield
    except BaseException:
        if before is not None:
            with suppress(OSError), replacing(path) as partial:
                partial.write_bytes(before)
        raise


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8 with `\\n` line ends."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, value: Mapping[str, Any] | Sequence[Any]) -> None:
    """Write a mapping or a list as indented JSON, keys in the order given."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_csv(path: Path, table: "pd.DataFrame") -> None:
    """Write a table without its index, floats with `DECIMALS` decimals."""
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
    """The content of a file of `save_tensors`; tensors that share memory are written each."""
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
    """Write what `save_tensors` would with no tensor at all."""
    with replacing(path) as partial:
        partial.write_bytes(safetensors.serialize({}, _as_texts(metadata)))


def _as_texts(metadata: Mapping[str, Any]) -> dict[str, str]:
    """Metadata as safetensors has them: texts by name."""
    return {_METADATA: json.dumps(metadata, ensure_ascii=False, sort_keys=True)}


def _from_texts(texts: Mapping[str, str] | None) -> dict[str, Any]:
    return dict(json.loads((texts or {})[_METADATA]))


def tensor_header(
    name: str, dtype: "np.dtype[np.integer]", length: int, metadata: Mapping[str, Any]
) -> bytes:
    """What stands before the elements in a file of `save_tensors` with one tensor (length,).

    For a tensor that is written piece by piece, little-endian; `dtype` is one of integers.
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
    """Turn whatever goes wrong over a file into one FileError."""
    try:
        yield
    except FileNotFoundError:
        raise FileError(f"{path} does not exist") from None
    except Exception as error:  # the parsers raise a dozen kinds of error over a damaged file
        raise FileError(f"{path} is damaged or not a file of this project ({error})") from None


def load_tensors(path: Path) -> tuple[dict[str, "Tensor"], dict[str, Any]]:
    """Read what `save_tensors` wrote: tensors by name, and the metadata.

    Raises FileError where the file is missing, cut short or something else.
    """
    with _reading(path), safetensors.safe_open(path, framework="pt") as file:
        metadata = _from_texts(file.metadata())
        return {name: file.get_tensor(name) for name in file.keys()}, metadata  # noqa: SIM118


def load_arrays(path: Path) -> tuple[dict[str, "NDArray[Any]"], dict[str, Any]]:
    """What `load_tensors` reads as NumPy's arrays, which stay in the file, mapped into memory.

    They may be changed; the file is not. Raises FileError where the file is missing, cut short
    or something else.
    """
    import numpy as np

    with _reading(path):
        with safetensors.safe_open(path, framework="np") as file:  # looks through the header
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
    """Read columns of finite numbers from a table that `write_csv` wrote.

    Raises FileError where the file is missing or damaged, or lacks one of them.
    """
    import numpy as np
    import pandas as pd

    with _reading(path):
        table = pd.read_csv(path, dtype=float, usecols=list(columns))
        if table.empty or not np.isfinite(table).all(axis=None):
            raise ValueError("not a finite number in each of its rows")
        return table


def read_table(
    path: Path, columns: Mapping[str, type], models: Iterable[str] = ()
) -> "pd.DataFrame":
    """Read columns, each of a type, from a table that `write_csv` wrote.

    Args:
        models: of which each must have a row, by its column `model`.

    Raises FileError where the file is missing or damaged, or lacks a column, a value or a model.
    """
    import numpy as np
    import pandas as pd

    with _reading(path):
        table = pd.read_csv(path, usecols=list(columns), dtype=dict(columns), keep_default_na=False)
        if table.empty or not np.isfinite(table.select_dtypes("number")).all(axis=None):
            raise ValueError("not a value in each of its rows")
        if missing := set(models).difference(table.get("model", ())):
            raise ValueError(f"no row of {', '.join(sorted(missing))}")
        return table[list(columns)]
