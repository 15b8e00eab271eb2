"""The saved state of an unfinished training."""

import copy
import hashlib
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import charlm.training.resume
from charlm.core.params import Recipe
from charlm.data.splits import Part
from charlm.training.resume import ResumeFile
from charlm.training.trainer import Trainer
from tests.helpers import DAMAGED, few, small_corpus, small_model, small_split, write_evil_pickle

PARAMETERS = {"lr": 0.2, "sizes": {"hidden_dim": 300}, "device": "cpu"}
STATE = {"weights": {"x": torch.arange(5.0)}, "history": [{"epoch": 1, "loss": 2.5}]}


def resume_file(
    folder: Path, name: str = "fcn", parameters: dict[str, Any] = PARAMETERS, data: str = "data"
) -> ResumeFile:
    (folder / "data").write_text(data)
    return ResumeFile(folder / "resume", name, parameters, [folder / "data"])


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that the module takes for the project, with one imported file per package."""
    for package in ("charlm", "stages", "tests"):
        (tmp_path / package).mkdir()
        for module in ("loaded", "other"):
            (tmp_path / package / f"{module}.py").write_text("x = 1\n")
        loaded = types.ModuleType(f"fake_{package}")
        loaded.__file__ = str(tmp_path / package / "loaded.py")
        monkeypatch.setitem(sys.modules, loaded.__name__, loaded)
    module = tmp_path / "charlm/training/resume.py"
    module.parent.mkdir()
    module.touch()
    monkeypatch.setattr(charlm.training.resume, "__file__", str(module))
    return tmp_path


def test_the_same_training_has_the_same_file_name(tmp_path: Path) -> None:
    reordered = dict(reversed(PARAMETERS.items()))
    assert resume_file(tmp_path).path == resume_file(tmp_path, parameters=reordered).path
    assert resume_file(tmp_path).path.parent == tmp_path / "resume"


@pytest.mark.parametrize(
    "change",
    [
        {"name": "wavenet"},
        {"parameters": PARAMETERS | {"lr": 0.1}},
        {"parameters": PARAMETERS | {"sizes": {"hidden_dim": 301}}},
        {"parameters": PARAMETERS | {"seed": 1}},
        {"data": "date"},
    ],
    ids=repr,
)
def test_another_training_has_another_file_name(tmp_path: Path, change: dict[str, Any]) -> None:
    assert resume_file(tmp_path).path != resume_file(tmp_path, **change).path


def test_a_new_version_of_torch_gives_another_file_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = resume_file(tmp_path).path
    monkeypatch.setattr(torch, "__version__", "0.0")
    assert resume_file(tmp_path).path != before


@pytest.mark.parametrize("package", ["charlm", "stages"])
def test_changed_code_gives_another_file_name(project: Path, package: str) -> None:
    before = resume_file(project).path
    (project / package / "loaded.py").write_text("x = 2\n")
    assert resume_file(project).path != before


@pytest.mark.parametrize("file", ["charlm/other.py", "stages/other.py", "tests/loaded.py"])
def test_code_that_is_not_loaded_or_outside_the_project_does_not_count(
    project: Path, file: str
) -> None:
    before = resume_file(project).path
    (project / file).write_text("x = 2\n")
    assert resume_file(project).path == before


def test_a_saved_state_is_loaded_as_it_was(tmp_path: Path) -> None:
    resume_file(tmp_path).save(STATE)
    loaded = resume_file(tmp_path).load()
    assert loaded is not None
    assert loaded["history"] == STATE["history"]
    assert torch.equal(loaded["weights"]["x"], STATE["weights"]["x"])


def test_a_later_state_replaces_the_earlier_one(tmp_path: Path) -> None:
    file = resume_file(tmp_path)
    for epoch in (1, 2):
        file.save({"epoch": epoch})
    assert file.load() == {"epoch": 2}
    assert list((tmp_path / "resume").iterdir()) == [file.path]


def test_there_is_no_state_at_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert resume_file(tmp_path).load() is None
    assert capsys.readouterr() == ("", "")


def test_a_removed_state_is_gone(tmp_path: Path) -> None:
    file = resume_file(tmp_path)
    file.save(STATE)
    file.remove()
    assert file.load() is None
    assert list((tmp_path / "resume").iterdir()) == []
    file.remove()  # a second removal does no harm


def test_a_real_training_resumes_from_its_file_to_the_same_bits(tmp_path: Path) -> None:
    corpus = small_corpus()
    windows = small_split(corpus)

    recipe = Recipe(lr=0.2, batch_size=32, epochs=3)

    def trainer() -> Trainer:
        sides = windows[Part.TRAIN], windows[Part.VAL]
        return Trainer(small_model(corpus), *sides, recipe, seed=1)

    whole, first, second = trainer(), trainer(), trainer()
    list(whole.run(3))
    list(first.run(1))
    resume_file(tmp_path).save(first.state_dict())
    saved = copy.deepcopy(first.model.state_dict())
    second.load_state_dict(resume_file(tmp_path).load())
    assert all(torch.equal(saved[k], v) for k, v in second.model.state_dict().items())
    list(second.run(3))
    assert second.history == whole.history
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, second.model.state_dict()[name])


def assert_starts_anew(file: ResumeFile, capsys: pytest.CaptureFixture[str]) -> None:
    assert file.load() is None
    out, err = capsys.readouterr()
    assert out == ""
    assert err == f"{file.path} is damaged; training starts from scratch\n"


@DAMAGED
def test_a_damaged_state_is_ignored_with_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], damage
) -> None:
    file = resume_file(tmp_path)
    file.save(STATE)
    file.path.write_bytes(damage(file.path.read_bytes()))
    assert_starts_anew(file, capsys)


@pytest.mark.parametrize("place", [0, 40, -1, "a weight"])
def test_a_single_changed_bit_is_noticed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], place: int | str
) -> None:
    file = resume_file(tmp_path)
    file.save(STATE)
    content = bytearray(file.path.read_bytes())
    if place == "a weight":
        place = bytes(content).index(STATE["weights"]["x"].numpy().tobytes())
    content[place] ^= 1
    file.path.write_bytes(content)
    assert_starts_anew(file, capsys)


@pytest.mark.parametrize(
    "content",
    [b"M", b"\x85", b"\x80\x02h\x09."],
    ids=["struct.error", "IndexError", "KeyError"],
)
def test_a_state_damaged_into_another_pickle_is_ignored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes
) -> None:
    """Even with a checksum forged to match."""
    file = resume_file(tmp_path)
    file.save(STATE)
    file.path.write_bytes(hashlib.sha256(content).digest() + content)
    assert_starts_anew(file, capsys)


@pytest.fixture(scope="module")
def any_resume_file(tmp_path_factory: pytest.TempPathFactory) -> ResumeFile:
    file = resume_file(tmp_path_factory.mktemp("any"))
    file.save(STATE)
    return file


@few
@given(st.binary(max_size=60))
def test_no_content_of_the_file_raises_an_exception(
    any_resume_file: ResumeFile, content: bytes
) -> None:
    any_resume_file.path.write_bytes(content)
    assert any_resume_file.load() is None


def test_an_evil_pickle_is_ignored_and_not_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = resume_file(tmp_path)
    file.save(STATE)
    write_evil_pickle(file.path, trace=tmp_path / "trace")
    evil = file.path.read_bytes()
    for content in (evil, hashlib.sha256(evil).digest() + evil):
        file.path.write_bytes(content)
        assert_starts_anew(file, capsys)
        assert not (tmp_path / "trace").exists()
