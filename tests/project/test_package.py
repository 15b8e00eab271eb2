"""pyproject.toml: what is installed, what it needs, and that it works outside of this folder."""

import ast
import importlib.metadata
import re
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from itertools import chain
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

import charlm
from charlm.data import checkpoint
from tests.conftest import ROOT, Project, copy_checkout
from tests.helpers import small_corpus, small_model

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = PYPROJECT["project"]
LOCK = tomllib.loads((ROOT / "uv.lock").read_text(encoding="utf-8"))
OURS = {"benchmarks", "charlm", "experiments", "pipeline", "stages", "tests"}
NOT_IMPORTED = {"scipy"}
"""Needed although nothing imports it: Numba compiles matrix products with it."""
NO_PART_OF_THE_PIPELINE = {"vl_convert"}
"""Modules that requirements-plots.txt and requirements-dev.txt bring."""


def declared(*extras: str) -> dict[str, SpecifierSet]:
    """Return the allowed versions of each distribution that the library, or these extras, need."""
    lists = [PROJECT["optional-dependencies"][extra] for extra in extras]
    requirements = map(Requirement, sum(lists, [] if extras else PROJECT["dependencies"]))
    return {r.name.lower(): r.specifier for r in requirements if r.name != PROJECT["name"]}


def imported(*files: Path) -> set[str]:
    """Return the distributions that files import from, anywhere in the files."""
    modules = set()
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                modules |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                modules.add(str(node.module).partition(".")[0])
    known = importlib.metadata.packages_distributions()
    others = modules - set(sys.stdlib_module_names) - OURS - NO_PART_OF_THE_PIPELINE
    # Not in this mapping: a namespace such as `ruamel` may be missing; pydantic brings its core.
    names = {"ruamel": "ruamel.yaml", "pydantic_core": "pydantic"}
    return {names.get(module) or known[module][0].lower() for module in others}


def test_the_library_declares_exactly_what_it_imports() -> None:
    files = {*(ROOT / "charlm").rglob("*.py")}
    report = {*(ROOT / "charlm/report").rglob("*.py")}
    assert imported(*files - report) | NOT_IMPORTED == declared().keys()
    assert imported(*report) - declared().keys() == declared("report").keys()


def test_the_stages_and_tools_declare_exactly_what_they_import() -> None:
    files = [file for folder in ("stages", "pipeline") for file in (ROOT / folder).rglob("*.py")]
    rest = imported(*files) - declared().keys() - declared("report").keys()
    assert rest == declared("pipeline").keys()
    assert "charlm[report]" in PROJECT["optional-dependencies"]["pipeline"]


def test_every_version_range_has_both_ends_and_contains_the_pinned_version() -> None:
    text = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    pinned = dict(re.findall(r"^([\w.-]+)==(\S+)", text, flags=re.MULTILINE))
    for name, versions in (declared() | declared("report", "pipeline")).items():
        assert {s.operator for s in versions} == {">=", "<"}, name
        assert pinned[name] in versions, name


REQUIREMENTS = ("requirements.txt", "requirements-plots.txt", "requirements-dev.txt")


def pins(*files: str) -> dict[str, str]:
    """Return the version of each package that requirements files pin, by normalized name."""
    found: dict[str, str] = {}
    for file in files:
        text = (ROOT / file).read_text(encoding="utf-8")
        for name, version in re.findall(r"^([\w.-]+)==([^\s;#]+)", text, flags=re.MULTILINE):
            assert found.setdefault(canonicalize_name(name), version) == version, (file, name)
    return found


def test_uv_and_pip_install_only_pinned_versions() -> None:
    """uv.lock has what the requirements need on every system and Python, including CUDA."""
    locked = [(package["name"], package["version"]) for package in LOCK["package"]]
    pinned = pins(*REQUIREMENTS, "constraints.txt")
    assert sorted(locked) == sorted([*pinned.items(), (PROJECT["name"], PROJECT["version"])])
    (torch,) = (package for package in LOCK["package"] if package["name"] == "torch")
    cuda = {its["name"] for its in torch["dependencies"] if "linux" in its.get("marker", "")}
    assert {"cuda-toolkit", "nvidia-cudnn-cu13", "triton"} <= cuda <= pinned.keys()
    assert {"pywin32", "setuptools"} <= pinned.keys()


def test_every_installed_dependency_is_pinned() -> None:
    pinned = pins(*REQUIREMENTS, "constraints.txt")
    waiting, seen = [(name, "") for name in pins(*REQUIREMENTS)], set[tuple[str, str]]()
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        found = importlib.metadata.distribution(name)
        assert found.version.partition("+")[0] == pinned.get(name), name
        for needed in map(Requirement, found.requires or []):
            if not needed.marker or needed.marker.evaluate({"extra": extra}):
                waiting += [(canonicalize_name(needed.name), its) for its in ["", *needed.extras]]
    assert len(seen) > 100


def test_the_lock_was_made_from_pyproject_and_public_registries() -> None:
    (own,) = (package for package in LOCK["package"] if package["name"] == PROJECT["name"])
    assert own["source"] == {"editable": "."}, "it is importable as in the folder"
    listed = [*PROJECT["dependencies"], *chain(*PROJECT["optional-dependencies"].values())]
    declared = {(r.name.replace(".", "-"), r.specifier) for r in map(Requirement, listed)}
    locked = own["metadata"]["requires-dist"]
    assert declared == {(it["name"], SpecifierSet(it.get("specifier", ""))) for it in locked}
    assert SpecifierSet(LOCK["requires-python"]) == SpecifierSet(PROJECT["requires-python"])
    for package in LOCK["package"]:
        assert package is own or package["source"] == {"registry": "https://pypi.org/simple"}
    hosts = set(re.findall(r"\b\w+://([^/\"]+)", (ROOT / "uv.lock").read_text(encoding="utf-8")))
    assert hosts == {"pypi.org", "files.pythonhosted.org"}


def test_the_dependency_groups_match_the_requirements_files() -> None:
    groups = PYPROJECT["dependency-groups"]
    assert PYPROJECT["tool"]["uv"] == {"default-groups": ["pipeline"]}
    extra, *rest = groups["pipeline"]
    assert extra == "charlm[pipeline]"
    # Packages that come with others, and are pinned because they affect the bytes.
    indirect = {"kiwisolver", "llvmlite"}
    names = {*declared(), *declared("report", "pipeline"), *rest}
    assert {canonicalize_name(name) for name in names} | indirect == {
        *pins("requirements.txt", "requirements-plots.txt")
    }
    pipeline, *dev = groups["dev"]
    assert pipeline == {"include-group": "pipeline"}
    assert set(dev) == {*pins("requirements-dev.txt")}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy without network access."""
    project = copy_checkout(tmp_path_factory.mktemp("source"))
    code = "from setuptools import build_meta; build_meta.build_wheel('dist')"
    project.run(sys.executable, "-c", code)
    assert project.git("status", "--porcelain", "--untracked-files=all", "build", "dist") == ""
    (built,) = (project.path / "dist").glob("*.whl")
    return built


def test_the_wheel_contains_only_the_library(wheel: Path) -> None:
    files = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    tracked = Project(ROOT).git("ls-files", "--cached", "--others", "--exclude-standard", "charlm")
    assert files == {name for name in tracked.splitlines() if (ROOT / name).is_file()}
    assert {"charlm/report/page.html", "charlm/report/style.css", "charlm/report/generator.js"} <= (
        files
    )


def test_the_wheel_has_the_right_metadata(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        folder = f"charlm-{PROJECT['version']}.dist-info"
        scripts = archive.read(f"{folder}/entry_points.txt").decode()
        metadata = archive.read(f"{folder}/METADATA").decode().partition("\n\n")[0].splitlines()
        assert f"{folder}/licenses/LICENSE" in archive.namelist()
    assert scripts.split() == ["[console_scripts]", "charlm", "=", "charlm.cli:run"]
    for line in ("Name: charlm", "Requires-Python: <3.15,>=3.11", "License-Expression: MIT"):
        assert line in metadata
    assert {line for line in metadata if line.startswith("Provides-Extra")} == {
        "Provides-Extra: report",
        "Provides-Extra: pipeline",
    }


OLD = "raise RuntimeError('an older charlm')"


def test_the_stages_use_the_library_beside_them(tmp_path: Path) -> None:
    (tmp_path / "site/charlm").mkdir(parents=True)
    (tmp_path / "site/charlm/__init__.py").write_text(OLD)
    project = copy_checkout(tmp_path / "project")
    environment = {"PYTHONPATH": str(tmp_path / "site")}
    project.run(sys.executable, "-m", "stages.build_dataset", **environment)
    elsewhere = Project(tmp_path).run(sys.executable, "-c", "import charlm", code=1, **environment)
    assert "an older charlm" in elsewhere.text


class Installed:
    """A virtual environment with the dependencies of this one, but without charlm."""

    def __init__(self, folder: Path) -> None:
        venv.create(folder, with_pip=True)
        self.commands = folder / "bin"
        paths = {"base": str(folder), "platbase": str(folder)}
        self.site = Path(sysconfig.get_path("purelib", "venv", paths))
        (self.site / "dependencies.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")
        pip = ("-m", "pip", "uninstall", "--yes", "setuptools")
        self.run(folder, "python", *pip)  # Python 3.11 brings an older one that would shadow ours

    def run(self, folder: Path, command: str, *arguments: object) -> str:
        words = [str(self.commands / command), *map(str, arguments)]
        done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def install(self, folder: Path, *what: object) -> None:
        options = ("--no-deps", "--no-build-isolation", "--no-index", "--force-reinstall")
        self.run(folder, "python", "-m", "pip", "install", *options, *what)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["wheel", "folder", "editable"])
def test_an_installation_works_in_another_folder(how: str, wheel: Path, tmp_path: Path) -> None:
    source = copy_checkout(tmp_path / "source")
    source.commit("All")
    installed = Installed(tmp_path / "venv")
    what = {"wheel": [wheel], "folder": ["."], "editable": ["-e", "."]}
    if how == "editable":  # on top of what Numba's cache leaves behind from an earlier installation
        (installed.site / "charlm/fast/__pycache__").mkdir(parents=True)
    installed.install(source.path, *what[how])
    assert source.git("status", "--porcelain") == ""

    folder = tmp_path / "elsewhere"
    folder.mkdir()
    corpus = small_corpus()
    checkpoint.save(folder / "tiny.safetensors", small_model(corpus), corpus.vocabulary)
    model = charlm.load(folder / "tiny.safetensors")
    names = model.sample(count=3)
    for command in (["charlm"], ["python", "-m", "charlm"]):
        printed = installed.run(folder, *command, "sample", "tiny.safetensors", "--count", "3")
        assert printed.splitlines() == names
        printed = installed.run(folder, *command, "score", "tiny.safetensors", "anna")
        assert f"{model.score('ANNA')[0].log_likelihood:.3f}" in printed
        assert installed.run(folder, *command, "--help").startswith(f"usage: {' '.join(command)} ")
    code = "import charlm; print(charlm.load('tiny.safetensors').sample(count=3)); "
    printed = installed.run(folder, "python", "-c", code + "print(charlm.__file__)")
    shown, file = printed.splitlines()
    assert shown == str(names)
    home = source.path if how == "editable" else tmp_path / "venv"
    assert Path(file).is_relative_to(home)
