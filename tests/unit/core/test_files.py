"""Files written whole or not at all."""

import errno
import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import torch

from charlm.core.errors import FileError
from charlm.core.files import (
    PARTIAL,
    load_arrays,
    load_tensors,
    read_numbers,
    read_table,
    remove,
    replacing,
    restoring,
    save_metadata,
    save_tensors,
    write_csv,
    write_json,
    write_text,
)
from tests.helpers import DAMAGED, POSIX, refused, write_evil_pickle


def test_replacing_replaces_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with replacing(path) as partial:
        partial.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def write_folder(path: Path, error: type[BaseException] | None = None, **files: str) -> None:
    with replacing(path) as partial:
        for name, text in files.items():
            write_text(partial / name, text)
        if error:
            raise error


def test_replacing_a_folder_leaves_nothing_of_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    for files in ({"a": "1", "b": "2"}, {"b": "3", "c": "4"}):
        write_folder(path, **files)
        assert {file.name: file.read_text() for file in path.iterdir()} == files
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_replacing_a_folder_leaves_the_old_one_on_an_exception(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    path, rename = tmp_path / "folder", Path.rename
    write_folder(path, a="1")

    def fail(source: Path, target: Path) -> Path:
        if target == path and source.name == path.name:  # moving the new folder into place
            raise error
        return rename(source, target)

    with pytest.raises(error):
        write_folder(path, error, b="2")
    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(error):
        write_folder(path, b="2")
    assert {file.name: file.read_text() for file in path.iterdir()} == {"a": "1"}
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_in_a_folder_names_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space") as caught:
        write_folder(tmp_path / "folder", a="1")
    assert caught.value.filename == str(tmp_path / "folder")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [errno.EPIPE, errno.EBADF])
def test_the_error_of_a_stream_names_no_file(tmp_path: Path, number: int) -> None:
    with pytest.raises(OSError, match=os.strerror(number)) as caught, replacing(tmp_path / "a"):
        raise OSError(number, os.strerror(number))  # as from print
    assert caught.value.filename is None


def test_replacing_creates_parent_folders(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file"
    with replacing(path) as partial:
        partial.write_text("new")
    assert path.read_text() == "new"


def write_half(path: Path, error: type[BaseException]) -> None:
    with replacing(path) as partial:
        partial.write_text("half of the ne")
        raise error


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_replacing_leaves_the_old_file_on_an_exception(
    tmp_path: Path, error: type[BaseException]
) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(error):
        write_half(path, error)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_replacing_leaves_no_new_file_on_an_exception(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError):
        write_half(tmp_path / "file", RuntimeError)
    assert list(tmp_path.iterdir()) == []


def test_replacing_writes_beside_the_file_in_a_folder_that_git_ignores(tmp_path: Path) -> None:
    with replacing(tmp_path / "file") as partial:
        partial.write_text("new")
        assert partial.parent.parent == tmp_path
        assert partial.parent.name.startswith(".partial-")


@POSIX
def test_replacing_does_not_write_through_a_link(tmp_path: Path) -> None:
    cached, path = tmp_path / "cached", tmp_path / "file"
    cached.write_text("old")
    path.symlink_to(cached)
    with replacing(path) as partial:
        partial.write_text("new")
    assert cached.read_text() == "old"
    assert path.read_text() == "new"
    assert not path.is_symlink()


def test_written_files_have_the_usual_permissions(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    write_text(tmp_path / "file", "text")
    assert (tmp_path / "file").stat().st_mode == (tmp_path / "plain").stat().st_mode


def windows(monkeypatch: pytest.MonkeyPatch, open_for: int = 0) -> None:
    """Refuse what Windows refuses: to rename or delete files that are read-only or open elsewhere.

    After `open_for` attempts, the other program closes all files.
    """
    monkeypatch.setattr(sys, "platform", "win32")
    left = [open_for]

    def refusing(allowed: Callable[..., None]) -> Callable[..., None]:
        def change(*paths: Path, **options: object) -> None:
            old = [path for path in map(Path, paths) if PARTIAL not in str(path) and path.exists()]
            if old and not options:
                left[0] -= 1
                if left[0] >= 0 or not all(path.stat().st_mode & stat.S_IWRITE for path in old):
                    raise PermissionError(errno.EACCES, "Access is denied", str(paths[-1]))
            allowed(*paths, **options)

        return change

    for name in ("replace", "rename", "unlink"):
        monkeypatch.setattr(os, name, refusing(getattr(os, name)))


def test_read_only_files_are_replaced_and_deleted_on_windows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    for change, left in ((lambda: write_text(path, "new"), [path]), (lambda: remove(path), [])):
        path.touch()
        path.chmod(0o444)
        with monkeypatch.context() as patch:
            windows(patch)
            with pytest.raises(PermissionError):
                path.unlink()
            change()
        assert list(tmp_path.iterdir()) == left


@pytest.mark.parametrize("closed", [True, False])
def test_on_windows_changes_wait_until_another_program_closes_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, closed: bool
) -> None:
    monkeypatch.setattr("charlm.core.files.PATIENCE_SECONDS", 60 if closed else 0.1)
    write_text(tmp_path / "file", "old")
    write_folder(tmp_path / "folder", a="old")
    for change in (
        lambda: write_text(tmp_path / "file", "new"),
        lambda: write_folder(tmp_path / "folder", a="new"),
    ):
        with monkeypatch.context() as patch:
            windows(patch, open_for=2 if closed else 1000)
            if closed:
                change()
            else:
                with pytest.raises(PermissionError, match=r"Access is denied: .*/f"):
                    change()
    read = [path.read_text() for path in (tmp_path / "file", tmp_path / "folder/a")]
    assert read == ["new" if closed else "old"] * 2
    assert {path.name for path in tmp_path.iterdir()} == {"file", "folder"}


def fail_after_writing(path: Path, error: type[BaseException]) -> None:
    with restoring(path):
        path.write_text("new")
        raise error


def test_restoring_restores_the_contents(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with pytest.raises(KeyboardInterrupt):
        fail_after_writing(path, KeyboardInterrupt)
    assert path.read_text() == "new", "there was nothing before"
    path.write_text("old")
    with pytest.raises(ValueError):  # noqa: PT011
        fail_after_writing(path, ValueError)
    assert path.read_text() == "old"
    with restoring(path):
        path.write_text("new")
    assert path.read_text() == "new"


def test_text_is_utf8_with_unix_line_endings(tmp_path: Path) -> None:
    write_text(tmp_path / "file", "ZOÉ\nB\n")
    assert (tmp_path / "file").read_bytes() == b"ZO\xc3\x89\nB\n"


def test_json_is_indented_readable_and_in_the_order_given(tmp_path: Path) -> None:
    write_json(tmp_path / "file", {"b": 1, "a": {"é": 0.25}})
    expected = '{\n  "b": 1,\n  "a": {\n    "é": 0.25\n  }\n}\n'
    assert (tmp_path / "file").read_text(encoding="utf-8") == expected


def test_csv_has_no_index_and_six_decimals(tmp_path: Path) -> None:
    table = pd.DataFrame({"name": ["ZOÉ", "A,B"], "x": [1 / 3, 2.0], "n": [1, 2], "b": [True] * 2})
    write_csv(tmp_path / "file", table)
    expected = 'name,x,n,b\nZOÉ,0.333333,1,True\n"A,B",2.000000,2,True\n'
    assert (tmp_path / "file").read_bytes() == expected.encode()


def test_the_order_of_the_metadata_does_not_matter(tmp_path: Path) -> None:
    tensors = {"x": torch.arange(3)}
    save_tensors(tmp_path / "one", tensors, {"a": 1, "b": 2})
    save_tensors(tmp_path / "two", tensors, {"b": 2, "a": 1})
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_tensors_and_metadata_are_loaded_as_they_were(tmp_path: Path) -> None:
    tensors = {
        "bytes": torch.arange(5, dtype=torch.uint8),
        "transposed": torch.arange(6.0).reshape(2, 3).T,
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "number": torch.tensor(3),
    }
    metadata = {"text": "É中", "number": 3, "mapping": {"b": [1, None]}}
    save_tensors(tmp_path / "file", tensors, metadata)
    loaded, loaded_metadata = load_tensors(tmp_path / "file")
    assert loaded_metadata == metadata
    assert loaded.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert loaded[name].dtype == tensor.dtype
        assert torch.equal(loaded[name], tensor)


@pytest.mark.parametrize(
    "dtype",
    [torch.uint8, torch.int16, torch.int32, torch.int64, torch.float16, torch.float32],
    ids=str,
)
def test_tensors_can_be_loaded_as_arrays(tmp_path: Path, dtype: torch.dtype) -> None:
    tensors = {"odd": torch.arange(5).byte(), "x": torch.arange(6).reshape(2, 3).to(dtype)}
    save_tensors(tmp_path / "file", tensors, {"text": "É中"})
    loaded, metadata = load_arrays(tmp_path / "file")
    assert metadata == {"text": "É中"}
    assert loaded.keys() == tensors.keys()
    for name, array in loaded.items():
        assert torch.equal(torch.from_numpy(array), tensors[name])
        assert array.dtype == tensors[name].numpy().dtype


def test_changing_a_loaded_array_does_not_change_its_file(tmp_path: Path) -> None:
    save_tensors(tmp_path / "file", {"x": torch.arange(9)}, {})
    before = (tmp_path / "file").read_bytes()
    arrays, _ = load_arrays(tmp_path / "file")
    arrays["x"] += 1
    assert np.array_equal(arrays["x"], np.arange(1, 10))
    assert (tmp_path / "file").read_bytes() == before


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.bool, torch.float8_e4m3fn], ids=str)
def test_types_unknown_to_numpy_are_refused(tmp_path: Path, dtype: torch.dtype) -> None:
    save_tensors(tmp_path / "file", {"x": torch.zeros(3, dtype=dtype)}, {})
    with refused(tmp_path / "file"):
        load_arrays(tmp_path / "file")


def test_metadata_alone_make_a_file_without_tensors(tmp_path: Path) -> None:
    metadata = {"text": "É中", "number": 3}
    save_metadata(tmp_path / "one", metadata)
    save_tensors(tmp_path / "two", {}, metadata)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert load_arrays(tmp_path / "one") == ({}, metadata)


LOADERS = pytest.mark.parametrize("load", [load_tensors, load_arrays])


@LOADERS
@DAMAGED
def test_damaged_tensors_are_refused(tmp_path: Path, damage, load: Callable) -> None:
    path = tmp_path / "file"
    save_tensors(path, {"x": torch.arange(9)}, {"a": 1})
    path.write_bytes(damage(path.read_bytes()))
    with refused(path):
        load(path)


@LOADERS
@pytest.mark.parametrize("metadata", [None, {"other": "1"}, {"charlm": "{"}, {"charlm": ""}])
def test_safetensors_files_of_other_projects_are_refused(
    tmp_path: Path, metadata: dict[str, str] | None, load: Callable
) -> None:
    path = tmp_path / "file"
    safetensors.torch.save_file({"x": torch.arange(3)}, path, metadata)
    with refused(path):
        load(path)


def test_metadata_nested_too_deeply_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    safetensors.torch.save_file({"x": torch.arange(3)}, path, {"charlm": "[" * 100_000})
    with refused(path):
        load_tensors(path)


READERS = pytest.mark.parametrize(
    "read",
    [
        load_tensors,
        load_arrays,
        lambda path: read_numbers(path, "ab"),
        lambda path: read_table(path, {"a": str, "b": float}),
    ],
    ids=["tensors", "arrays", "numbers", "table"],
)


@READERS
def test_a_file_that_cannot_be_read_raises_file_error(read: Callable, tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"none does not exist$"):
        read(tmp_path / "none")
    for content in (b"", b"\xff\x00\n\x01"):
        (tmp_path / "file").write_bytes(content)
        with pytest.raises(FileError, match="file is damaged"):
            read(tmp_path / "file")
    with pytest.raises(FileError):
        read(tmp_path)


def test_numbers_are_read_as_they_were_written(tmp_path: Path) -> None:
    table = pd.DataFrame({"name": ["ZOÉ", "A,B"], "x": [0.25, 2.0], "n": [1, 2]})
    write_csv(tmp_path / "csv", table)
    numbers = read_numbers(tmp_path / "csv", ["n", "x"])
    assert numbers[["n", "x"]].to_dict("list") == {"n": [1, 2], "x": [0.25, 2.0]}


def test_a_table_is_read_as_it_was_written(tmp_path: Path) -> None:
    columns = {
        "name": ["ZOÉ", "A,B", "NA", "1", '"', " ", "(end)"],
        "x": [0.25, 2.0, -3.0, 0.0, 1.0, 5.0, 6.0],
        "n": [1, 2, 3, 4, 5, 6, 7],
        "known": [True, False] * 3 + [True],
    }
    write_csv(tmp_path / "csv", pd.DataFrame(columns))
    kinds = {"name": str, "x": float, "n": int, "known": bool}
    assert read_table(tmp_path / "csv", kinds).to_dict("list") == columns
    assert list(read_table(tmp_path / "csv", {"n": int, "x": float}).columns) == ["n", "x"]


@pytest.mark.parametrize(
    "text", ["a\n1\n", "a,b\n", "a,b\n1,x\n", "a,b\n1,\n", "a,b\n1,inf\n", "1,2"]
)
def test_an_edited_table_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "file").write_text(text)
    with refused(tmp_path / "file"):
        read_table(tmp_path / "file", {"a": str, "b": float})


def test_a_table_with_a_missing_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("model,b\na,1\nb,2\n")
    columns = {"model": str, "b": float}
    assert len(read_table(tmp_path / "file", columns, ["b", "a"])) == 2
    with pytest.raises(FileError, match="no row for c"):
        read_table(tmp_path / "file", columns, ["a", "c"])


@pytest.mark.parametrize(
    "text", ["a\n1\n", "a,b\n", "a,b\n1,x\n", "a,b\n1,\n", "a,b\n1,inf\n", "1,2"]
)
def test_edited_numbers_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "file").write_text(text)
    with refused(tmp_path / "file"):
        read_numbers(tmp_path / "file", ["a", "b"])


def test_an_evil_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    write_evil_pickle(tmp_path / "file", trace=tmp_path / "trace")
    with refused(tmp_path / "file"):
        load_tensors(tmp_path / "file")
    assert not (tmp_path / "trace").exists()
