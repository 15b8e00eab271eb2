"""A cache of compiled code that cannot be used is a miss: it is replaced, without an error."""

import errno
import importlib
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from charlm.core.compiled import CheckedFiles, compiled

DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda whole: b"",
    "cut to a half": lambda whole: whole[: len(whole) // 2],
    "filled with zeros": lambda whole: bytes(len(whole)),
    "ending in zeros": lambda whole: whole[: len(whole) // 2].ljust(len(whole), b"\0"),
    "zeros in the middle": lambda whole: whole[:2000] + bytes(500) + whole[2500:],
    "longer": lambda whole: whole + b"\0",
    "something else": lambda whole: b"what is this? " * 40,
}


@pytest.fixture
def total(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], Any]:
    """A function in a module of its own, not yet compiled."""
    path = tmp_path / "loops.py"
    path.write_text("def total(x):\n    s = 0\n    for v in x:\n        s += v\n    return s\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "loops", raising=False)
    function: Callable[[Any], Any] = importlib.import_module("loops").total
    return function


X = np.arange(10.0)


def hits(function: Callable[[Any], Any], x: np.ndarray = X) -> int:
    """Compile the function as a new process would, call it, and return the number of cache hits."""
    dispatcher = compiled(function)
    assert dispatcher(x) == x.sum()
    return sum(dispatcher.stats.cache_hits.values())


def files(function: Callable[[Any], Any]) -> list[Path]:
    folder = Path(function.__code__.co_filename).parent / "__pycache__"
    return sorted(folder.glob("*.nb?"))


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_cache_is_a_miss(
    total: Callable[[Any], Any], damage: Callable[[bytes], bytes]
) -> None:
    assert hits(total) == 0
    assert hits(total) == 1
    (path,) = files(total)
    path.write_bytes(damage(path.read_bytes()))
    assert hits(total) == 0
    assert hits(total) == 1, "it was not replaced"


def test_code_for_another_signature_is_a_miss(total: Callable[[Any], Any]) -> None:
    hits(total)
    (of_floats,) = files(total)
    hits(total, np.arange(10))
    (of_integers,) = set(files(total)) - {of_floats}
    shutil.copy(of_floats, of_integers)
    assert hits(total, np.arange(10)) == 0
    assert hits(total, np.arange(10)) == 1


def test_code_of_another_version_is_a_miss(
    total: Callable[[Any], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    hits(total)
    with monkeypatch.context() as other:
        other.setattr("numba.__version__", "0.1")
        assert hits(total) == 0
        assert hits(total) == 1
    assert hits(total) == 0


def test_code_that_cannot_be_loaded_is_a_miss(
    total: Callable[[Any], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    hits(total)
    monkeypatch.setattr(
        "numba.core.compiler.CompileResult._rebuild",
        lambda *data: (_ for _ in ()).throw(ModuleNotFoundError("<dynamic>")),
    )
    assert hits(total) == 0


def test_an_edited_function_replaces_its_code(total: Callable[[Any], Any]) -> None:
    hits(total)
    before = files(total)
    path = Path(total.__code__.co_filename)
    path.write_text(path.read_text() + "# edited\n")
    assert hits(total) == 0
    assert hits(total) == 1
    assert files(total) == before


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_cache_that_cannot_be_written_is_not_needed(
    total: Callable[[Any], Any], monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def fail(*path: object) -> None:
        raise OSError(number, "no")

    monkeypatch.setattr(CheckedFiles, "_open_for_write", fail)
    assert hits(total) == 0
    assert files(total) == []
