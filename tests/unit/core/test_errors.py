"""Errors that mean too little memory, and missing packages."""

import pytest

from charlm.core.errors import is_out_of_memory, no_module
from charlm.core.files import load_tensors


@pytest.mark.parametrize(
    "message",
    [
        "[enforce fail] DefaultCPUAllocator: can't allocate memory",
        "CUDA out of memory. Tried to allocate 2 GiB",
        "libtorch_cpu.so: failed to map segment from shared object",
        "can't start new thread",
        "[enforce fail] DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes.",
        "[WinError 1455] The paging file is too small for this operation to complete",
    ],
)
def test_out_of_memory_is_recognized_while_libraries_are_loaded_too(message: str) -> None:
    assert is_out_of_memory(RuntimeError(message))
    later = OSError("library not found")
    later.__context__ = ImportError(message)
    assert is_out_of_memory(later)
    later.__suppress_context__ = True  # raise ... from None
    assert not is_out_of_memory(later)


def test_out_of_memory_is_not_taken_for_a_damaged_file(
    tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise MemoryError

    monkeypatch.setattr("safetensors.safe_open", fail)
    with pytest.raises(MemoryError):
        load_tensors(tmp_path / "file")


def test_the_error_for_a_missing_package_has_the_command_for_the_system(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for system, command in (
        ("linux", "source .venv/bin/activate"),
        ("win32", r".venv\Scripts\activate"),
    ):
        monkeypatch.setattr("sys.platform", system)
        assert no_module("torch").endswith(f"or run: {command}")
