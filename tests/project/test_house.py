"""The folders of the library import downwards only, as the table here says.

Prints who imports whom: python -m pytest -s -n 0 tests/project/test_house.py
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT

HOUSE = {
    "core": set[str](),
    "names": {"core"},
    "data": {"core"},
    "models": set[str](),
    "fast": {"core", "data"},
    "training": {"core", "data", "models.base", "fast"},
    "evaluation": {"core", "data", "models", "fast"},
    "sampling": {"core", "data", "models", "fast"},
    "report": {"core", "data"},
}
"""What each folder of charlm may import of the others, from the ground up."""

SHARED = {"__init__.py", "training.py"}
"""What is in stages/ beside the stages."""


def imported(path: Path) -> Iterator[str]:
    """The modules that a file imports, at its top or later, names imported from a package too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            for alias in node.names:
                below = ROOT / (node.module or "").replace(".", "/") / f"{alias.name}.py"
                yield f"{node.module}.{alias.name}" if below.exists() else node.module or ""


def of_library(folder: str) -> dict[str, set[str]]:
    """What each module of a folder of charlm imports of the other folders, without "charlm."."""
    found = {}
    for path in sorted((ROOT / "charlm" / folder).rglob("*.py")):
        inner = {m.removeprefix("charlm.") for m in imported(path) if m.startswith("charlm.")}
        found[path.stem] = {m for m in inner if m.partition(".")[0] != folder}
    return found


def allowed(module: str, may: set[str]) -> bool:
    return any(module == it or module.startswith(f"{it}.") for it in may)


def test_every_folder_is_in_the_table_and_the_table_has_no_circle() -> None:
    folders = {path.parent.name for path in (ROOT / "charlm").glob("*/__init__.py")}
    assert folders == set(HOUSE)
    below: set[str] = set()
    for folder, may in HOUSE.items():
        assert {it.partition(".")[0] for it in may} <= below, folder
        below.add(folder)


def test_the_table_of_imports() -> None:
    """Seen with -s."""
    print()
    for folder in HOUSE:
        every = set[str]().union(*of_library(folder).values())
        names = sorted({module.partition(".")[0] for module in every})
        print(f"{folder:11}{', '.join(names) or '-'}")


@pytest.mark.parametrize("folder", HOUSE)
def test_a_folder_imports_what_the_table_lets_it(folder: str) -> None:
    wrong = [
        f"{folder}/{name}.py imports charlm.{module}"
        for name, modules in of_library(folder).items()
        for module in sorted(modules)
        if not allowed(module, HOUSE[folder])
    ]
    assert wrong == []


def test_a_model_imports_torch_and_other_models_alone() -> None:
    for path in (ROOT / "charlm/models").glob("*.py"):
        roots = {module.partition(".")[0] for module in imported(path)}
        assert roots - sys.stdlib_module_names <= {"torch", "charlm"}, path


def test_the_library_imports_nothing_of_what_is_around_it() -> None:
    around = {"stages", "pipeline", "tests", "benchmarks", "experiments", "dvc"}
    for path in (ROOT / "charlm").rglob("*.py"):
        assert around.isdisjoint(module.partition(".")[0] for module in imported(path)), path


def test_no_stage_imports_what_people_call() -> None:
    for path in (ROOT / "stages").glob("*.py"):
        for module in imported(path):
            assert module not in {"charlm.cli", "charlm.trained", "charlm.folding"}, path


def test_the_stages_are_alone_with_what_they_share() -> None:
    files = {path.name for path in (ROOT / "stages").glob("*.py")} - SHARED
    for name in files:
        assert 'if __name__ == "__main__":' in (ROOT / "stages" / name).read_text(), name


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("import charlm.fast.linear", {"charlm.fast.linear"}),
        ("from charlm.core import files", {"charlm.core.files"}),
        ("def f():\n    from charlm.core.files import replacing", {"charlm.core.files"}),
        ("from charlm.report import SHOWN, charts", {"charlm.report", "charlm.report.charts"}),
    ],
)
def test_an_import_is_seen_however_it_is_written(
    tmp_path: Path, text: str, found: set[str]
) -> None:
    (tmp_path / "it.py").write_text(text)
    assert set(imported(tmp_path / "it.py")) == found
