"""Helpers for the unit tests: a few names, small models, and checks of errors."""

import importlib
import inspect
import io
import os
import pickle
import re
import subprocess
import sys
import tempfile
import types
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import psutil
import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st

import stages
from charlm.core.errors import InputError
from charlm.core.randomness import derive_seed, seeded
from charlm.data.corpus import Corpus
from charlm.data.splits import Part, split_windows
from charlm.data.windows import Windows, windows_by_part
from charlm.models.base import LanguageModel, architecture_of
from charlm.models.compact import CompactWaveNet
from charlm.models.fcn import FCN
from charlm.models.wavenet import WaveNet
from charlm.names import reading
from charlm.training.trainer import Trainer
from tests.conftest import TRAINED, Project
from tests.models import GRU, CausalTransformer

ROOT = Path(__file__).resolve().parent.parent

T = TypeVar("T")

torch.set_num_threads(1)  # with models this small, more threads would only wait for each other

few = settings(max_examples=50, deadline=None, derandomize=True)

# fmt: off
NAMES = [
    "ANNA", "BERTA", "CLARA", "DORA", "EMMA", "FRIDA", "GRETA", "HANNAH", "IDA", "JANA",
    "KLARA", "LENA", "MARIE", "NELE", "OLGA", "PAULA", "RENÉE", "SOFIA", "TILDA", "URSULA",
    "VERA", "WILMA", "XENIA", "YVONNE", "ZOÉ", "JEAN-LUC", "D'ARCY", "Ó.B.",
]
# fmt: on

LETTERS = st.characters(categories=["L"]) | st.just(".")
NAME_LISTS = st.lists(st.text(LETTERS, min_size=1, max_size=20), min_size=1, max_size=20)


ARCHITECTURES = pytest.mark.parametrize("architecture", [FCN, WaveNet, CompactWaveNet])
"""The models that come with the project and run on the fast path."""

EVERY_MODEL = pytest.mark.parametrize("architecture", list(map(architecture_of, TRAINED)))
"""All trained models of `charlm.models`, including those that a user has added."""

ANY_MODEL = pytest.mark.parametrize(
    "architecture", [*map(architecture_of, TRAINED), CausalTransformer, GRU]
)
"""The same, plus two in plain PyTorch."""


POSIX = pytest.mark.skipif(sys.platform == "win32", reason="it uses signals, links or a shell")
"""For tests that Windows cannot run."""

DAMAGES = {
    "empty": lambda whole: b"",
    "garbage": lambda whole: b"what is this? " * 40,
    "cut in the header": lambda whole: whole[:40],
    "cut at the end": lambda whole: whole[:-1],
}
DAMAGED: Callable = pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())


def code_blocks(kind: str, page: str) -> list[str]:
    """Return the code blocks of a Markdown page in one language."""
    return re.findall(rf"^```{kind}\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL)


def cells(line: str) -> list[str]:
    """Return the cells of a row of a Markdown table."""
    return [cell.strip() for cell in line.strip()[1:-1].split("|")]


def printed_by(code: str, file: str, namespace: dict[str, object]) -> str:
    """Run the code of a page or a notebook, and return what it prints."""
    printed = io.StringIO()
    with redirect_stdout(printed):
        exec(compile(code, file, "exec"), namespace)
    return printed.getvalue()


@contextmanager
def refused(*parts: object) -> Iterator[None]:
    """Expect an InputError of one line that contains each of `parts`."""
    with pytest.raises(InputError) as caught:
        yield
    assert_one_line(caught.value, parts)


def taken_or_refused(call: Callable[[], T], *parts: object) -> T | None:
    """Return the result of `call`, or None for a one-line InputError that contains `parts`."""
    try:
        return call()
    except InputError as error:
        assert_one_line(error, parts)
        return None


def assert_one_line(error: InputError, parts: Iterable[object]) -> None:
    message = str(error)
    assert message
    assert "\n" not in message
    for part in parts:
        assert str(part) in message


@dataclass(frozen=True)
class NameList:
    """What `gather_names` writes, in memory, and how many duplicates it dropped."""

    names: list[str]
    duplicates: int


def read_names(path: Path, column: str | int | None = None, header: bool = True) -> NameList:
    """Return what `gather_names` finds, after checking it against its report and `read_names`."""
    with tempfile.TemporaryFile() as file:
        found = reading.gather_names(path, column, header, file)
        file.seek(0)
        names = file.read().decode().removesuffix("\n").split("\n")
    assert found.count == len(names)
    assert found.characters == "".join(sorted(set("".join(names))))
    assert found.total_length == len("".join(names))
    assert found.longest == max(map(len, names))
    assert found.tally.rows == found.count + found.duplicates + found.empty
    assert reading.read_names(path, column, header) == names
    return NameList(names, found.duplicates)


def small_corpus(block_size: int = 4) -> Corpus:
    return Corpus.from_names(NAMES, block_size)


def small_split(corpus: Corpus, seed: int = 1) -> dict[Part, Windows]:
    """Return the windows of each part of a split by window, 60/20/20."""
    split = split_windows(corpus, "window", 0.6, 0.2, derive_seed(seed, "split"))
    return windows_by_part(corpus, split)


def small_model(
    corpus: Corpus,
    architecture: type[LanguageModel] = FCN,
    seed: int = 1,
    hidden_dim: int = 12,
    **options: Any,
) -> LanguageModel:
    """Return an untrained model for a corpus; the seed determines its weights.

    The models of the course are made small. Any other model has its own defaults.
    """
    sizes: dict[str, Any] = {}
    if architecture in (FCN, WaveNet):
        sizes = {"embed_dim": 5, "hidden_dim": hidden_dim}
    elif architecture is CompactWaveNet:
        sizes = {"channels": hidden_dim}
    with seeded(seed, "init"):
        return architecture(
            vocab_size=len(corpus.vocabulary), block_size=corpus.block_size, **sizes, **options
        )


def assert_same(one: Trainer, other: Trainer) -> None:
    """Check that all weights, buffers and averages have the same bits, and equal histories."""
    assert one.history == other.history
    for mine, its in (
        (one.model.state_dict(), other.model.state_dict()),
        (one.weights(), other.weights()),
    ):
        assert mine.keys() == its.keys()
        for name, tensor in mine.items():
            assert torch.equal(tensor, its[name]), name


def refused_here(project: Project, stage: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run a stage in this process, to save imports, and return the line with which it would end."""
    monkeypatch.chdir(project.path)
    main = importlib.import_module(f"stages.{stage}").main
    with pytest.raises(Exception) as caught:  # noqa: PT011  whatever it is, it must be explained
        main()
    line, code = stages.explain(caught.value)
    assert code == 1
    assert "\n" not in line
    return line


class Evil:
    """Creates a file when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.trace,)


def write_evil_pickle(path: Path, trace: Path) -> None:
    """Write a file that creates `trace` when it is unpickled, and check that it does."""
    path.write_bytes(pickle.dumps(Evil(trace), protocol=2))
    pickle.loads(path.read_bytes())
    assert trace.exists()
    trace.unlink()


def run_python(code: str, *arguments: object, cwd: Path = ROOT, **env: str) -> str:
    """Run `code` in a new Python process that can import the project, and return its output."""
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), **env},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def processes_in(project: Project) -> list[psutil.Process]:
    """Return the processes whose current folder is in the project."""
    found = []
    for process in psutil.process_iter():
        try:
            if Path(process.cwd()).is_relative_to(project.path):
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


def in_a_module(monkeypatch: pytest.MonkeyPatch, *kinds: type[LanguageModel]) -> None:
    """Make `charlm.models.own` define these models."""
    module = types.ModuleType("charlm.models.own")
    module.__file__ = inspect.getfile(kinds[0])
    for kind in kinds:
        monkeypatch.setattr(kind, "__module__", module.__name__)
        setattr(module, kind.__name__, kind)
    monkeypatch.setitem(sys.modules, module.__name__, module)
