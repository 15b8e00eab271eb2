"""The library's folders import only from folders below them, according to the table in this file.

To print who imports whom: python -m pytest -s -n 0 tests/project/test_house.py
"""

import ast
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from tests.conftest import ROOT

HOUSE = {
    "core": set[str](),
    "names": {"core"},
    "data": {"core"},
    "models": set[str](),
    "fast": {"core", "data"},
    "training": {"core", "data", "models.base", "models.kneser_ney", "fast"},
    "evaluation": {"core", "data", "models", "fast"},
    "sampling": {"core", "data", "models", "fast"},
    "report": {"core", "data"},
}
"""What each folder of charlm may import from the others, from the bottom up."""

AROUND = {
    "stages": {
        "charlm",
        "pipeline.cache",
        "pipeline.clone",
        "pipeline.inputs",
        "pipeline.parent",
        "pipeline.put_back",
    },
    "pipeline": {"charlm", "stages", "benchmarks", "tests.chromium"},
    "benchmarks": {"charlm", "stages", "pipeline"},
    "experiments": {"charlm", "benchmarks", "pipeline"},
}
"""What the folders around charlm may import. Circular imports of their modules are an error."""

SHARED = {"__init__.py", "training.py"}
"""Files in stages/ that are not stages."""


def imported(path: Path) -> Iterator[str]:
    """Yield the modules that a file imports anywhere, including modules imported from a package."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            for alias in node.names:
                below = ROOT / (node.module or "").replace(".", "/") / f"{alias.name}.py"
                yield f"{node.module}.{alias.name}" if below.exists() else node.module or ""


def of_library(folder: str) -> dict[str, set[str]]:
    """Return what each module in a folder of charlm imports from its other folders."""
    found = {}
    for path in sorted((ROOT / "charlm" / folder).rglob("*.py")):
        inner = {m.removeprefix("charlm.") for m in imported(path) if m.startswith("charlm.")}
        found[path.stem] = {m for m in inner if m.partition(".")[0] != folder}
    return found


def allowed(module: str, may: set[str]) -> bool:
    return any(module == it or module.startswith(f"{it}.") for it in may)


def test_every_folder_is_in_the_table_and_the_table_has_no_cycle() -> None:
    folders = {path.parent.name for path in (ROOT / "charlm").glob("*/__init__.py")}
    assert folders == set(HOUSE)
    below: set[str] = set()
    for folder, may in HOUSE.items():
        assert {it.partition(".")[0] for it in may} <= below, folder
        below.add(folder)


@pytest.mark.parametrize("folder", HOUSE)
def test_a_folder_imports_only_what_the_table_allows(folder: str) -> None:
    every = set[str]().union(*of_library(folder).values())
    print(folder, "imports", ", ".join(sorted({m.partition(".")[0] for m in every})) or "-")
    wrong = [
        f"{folder}/{name}.py imports charlm.{module}"
        for name, modules in of_library(folder).items()
        for module in sorted(modules)
        if not allowed(module, HOUSE[folder])
    ]
    assert wrong == []


def test_a_model_imports_only_torch_and_other_models() -> None:
    for path in (ROOT / "charlm/models").glob("*.py"):
        roots = {module.partition(".")[0] for module in imported(path)}
        assert roots - sys.stdlib_module_names <= {"torch", "charlm"}, path


def test_the_library_imports_nothing_from_the_folders_around_it() -> None:
    around = {"stages", "pipeline", "tests", "benchmarks", "experiments", "dvc"}
    for path in (ROOT / "charlm").rglob("*.py"):
        assert around.isdisjoint(module.partition(".")[0] for module in imported(path)), path


@pytest.mark.parametrize("folder", AROUND)
def test_a_folder_around_the_library_imports_only_what_the_table_allows(folder: str) -> None:
    for path in (ROOT / folder).glob("*.py"):
        own = {m for m in imported(path) if (ROOT / m.partition(".")[0] / "__init__.py").exists()}
        assert {m for m in own if not allowed(m, AROUND[folder] | {folder})} == set(), path


def test_there_are_no_circular_imports() -> None:
    folders = ("charlm", *AROUND)
    paths = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    names = {str(p.relative_to(ROOT).with_suffix("")).replace("/", "."): p for p in paths}
    modules = {name.removesuffix(".__init__"): set(imported(path)) for name, path in names.items()}
    TopologicalSorter(modules).prepare()  # raises CycleError


def test_no_stage_imports_the_user_interface() -> None:
    for path in (ROOT / "stages").glob("*.py"):
        for module in imported(path):
            assert module not in {"charlm.cli", "charlm.trained", "charlm.folding"}, path


def test_the_stages_folder_has_only_stages_and_shared_files() -> None:
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
def test_every_form_of_import_is_found(tmp_path: Path, text: str, found: set[str]) -> None:
    (tmp_path / "it.py").write_text(text)
    assert set(imported(tmp_path / "it.py")) == found
