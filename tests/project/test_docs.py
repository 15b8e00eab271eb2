"""The README and docs/: links, tables, figures and commands are right."""

import re
import shlex
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from charlm.core.params import automatic, load_params
from pipeline import guide, readme
from tests.conftest import ROOT, Project, run_queue
from tests.helpers import cells, code_blocks
from tests.project.test_house import HOUSE

README = ROOT / "README.md"
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in [*ROOT.glob("*.md"), *DOCS, ROOT / "data/README.md"]
}
TEXT = PAGES["README.md"]
PERFORMANCE = PAGES["docs/performance.md"]
MEASURED = ["benchmarks/RESULTS.md", "benchmarks/LOSS.md", "benchmarks/GROWTH.md"]

LINK = re.compile(r"\]\((?!https?:)([^)\s#]*)(?:#([^)\s]*))?\)")
FENCED = re.compile(r"^```.*?^```$", flags=re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^#{1,6} (.*)$", flags=re.MULTILINE)
NOT_RUN = "<!-- not run by the tests as written: "


def anchors(text: str) -> set[str]:
    """Return the anchors that GitHub gives the headings of a page."""
    found = set()
    for heading in HEADING.findall(FENCED.sub("", text)):
        shown = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading)
        found.add(re.sub(r"[^\w\- ]", "", shown.lower()).replace(" ", "-"))
    return found


@pytest.mark.parametrize("path", PAGES)
def test_no_link_is_dead(path: str) -> None:
    folder = (ROOT / path).parent
    dead = []
    for target, anchor in LINK.findall(FENCED.sub("", PAGES[path])):
        file = folder / target if target else ROOT / path
        if not file.exists():
            dead.append(target)
        elif anchor and anchor not in anchors(file.read_text(encoding="utf-8")):
            dead.append(f"{target}#{anchor}")
    assert dead == []


def test_a_dead_anchor_is_found() -> None:
    text = "# A page\n\n## What's *new*, and [why](why.md)?\n\n```\n# no heading\n```\n"
    assert anchors(text) == {"a-page", "whats-new-and-why"}
    assert LINK.findall("[a](b.md#c), [d](#e), [f](https://g.h)") == [("b.md", "c"), ("", "e")]


@pytest.mark.parametrize("path", ["README.md", "docs/README.md"])
def test_the_table_of_contents_has_every_page(path: str) -> None:
    targets = {(ROOT / path).parent / target for target, _ in LINK.findall(PAGES[path]) if target}
    listed = {target.resolve() for target in targets}
    pages = {page for page in (ROOT / "docs").iterdir() if page.suffix in {".md", ".ipynb"}}
    assert pages - {ROOT / "docs/README.md"} <= listed


@pytest.mark.parametrize("path", [f"docs/{path.name}" for path in DOCS if path.stem != "README"])
def test_the_contents_of_a_page_list_its_sections(path: str) -> None:
    text = FENCED.sub("", PAGES[path])
    sections = re.findall(r"^## (.*)$", text, flags=re.MULTILINE)
    contents = text.partition("\n## ")[0]
    assert re.findall(r"^\s*(?:-|\d+\.) \[(.*)\]\(#", contents, flags=re.MULTILINE) == sections


def test_the_readme_is_short() -> None:
    assert len(TEXT.splitlines()) <= 200


def test_every_table_matches_its_source() -> None:
    for path, text in PAGES.items():
        assert readme.refreshed(text, ROOT) == text, f"{path}: run python -m pipeline.readme"
    for source in (readme.COMPARISON, readme.SAMPLES):
        assert f"<!-- from {source.as_posix()};" in TEXT


def test_the_tables_of_a_run_are_made_from_its_files(template: Project, tmp_path: Path) -> None:
    text = f"<!-- from {readme.COMPARISON.as_posix()}; it -->\n\n| a |\n\nIt.\n\n| b |\n## More\n"
    written = readme.refreshed(text, template.path)
    assert "| Mixture | " in written
    assert "| b |" not in written
    assert written.endswith("\n## More\n")
    names = f"<!-- from {readme.SAMPLES.as_posix()}; it -->\n\n| a |\n"
    lines = readme.refreshed(names, template.path).splitlines()[2:]
    assert lines[0].startswith("| Fully connected net | WaveNet | ")
    assert len(lines) == 2 + readme.SHOWN
    assert len({line.count("|") for line in lines}) == 1
    assert readme.refreshed(text, tmp_path) == text, "without the file"


def numbers(text: str) -> set[str]:
    return set(re.findall(r"\d+(?:[.,]\d+)*", text))


def parted(page: str, measured: dict[str, str]) -> list[str]:
    """List what the performance page has that the measured files, given by path, do not."""
    quoted = {part[1]: readme.QUOTED.findall(part[0]) for part in readme.SOURCED.finditer(page)}
    faults = []
    for path, text in measured.items():
        expected = readme.QUOTED.findall(text)
        assert any(line.startswith("|") for line in expected), path
        if quoted.get(path) != expected:
            faults.append(f"not the tables of {path}; put them in: python -m pipeline.readme")
    known = numbers("".join(measured.values()))
    return faults + [f"{n} stands in no such file" for n in sorted(numbers(page) - known)]


def test_every_performance_figure_was_measured() -> None:
    paths = [path for path in MEASURED if (ROOT / path).exists()]
    if not paths:
        pytest.skip("nothing has been measured yet")
    text = PERFORMANCE.replace("H100", "GPU")
    assert parted(text, {p: (ROOT / p).read_text(encoding="utf-8") for p in paths}) == []


def test_a_wrong_performance_figure_is_found() -> None:
    table = "| | ms |\n|---|---|\n| net | 1.25 |\n| tree | 2.50 |\n"
    measured = {"benchmarks/RESULTS.md": f"# R\n\nMeasured on: 2 cores\n\nIt.\n\n{table}"}
    section = "## How fast it is\n\nIt is fast.\n\n"
    comment = "<!-- from benchmarks/RESULTS.md, and more -->\n"
    whole = f"{section}{comment}Measured on: 2 cores\nSo:\n\n{table}\n## Next\n\n"
    assert parted(whole, measured) == []
    for old, new, faults in (
        ("1.25", "1.52", 2),
        ("| tree | 2.50 |\n", "", 1),
        ("| ms |", "| s |", 1),
        ("2 cores", "4 cores", 2),
        ("is fast", "is 3 times as fast", 1),
        (comment, "", 1),
        (whole, f"{section}## Next\n", 1),
    ):
        assert len(parted(whole.replace(old, new, 1), measured)) == faults, (old, new)


def test_the_settings_of_the_course_are_the_defaults() -> None:
    params = load_params(ROOT / "params.yaml")
    assert (params.block_size, params.batch_size, params.lr, params.epochs) == (8, 256, 0.2, 50)
    assert (params.split.by, params.split.train, params.split.val) == ("window", 0.8, 0.1)


def test_the_wavenet_in_the_readme_is_the_one_in_the_file() -> None:
    (block,) = code_blocks("python", TEXT)
    file = (ROOT / "charlm/models/wavenet.py").read_text(encoding="utf-8")
    assert textwrap.indent(block, "    ") in file
    assert block.startswith("def forward(self, contexts: Tensor) -> Tensor:\n")


def rows(text: str) -> list[list[str]]:
    """Return the cells of each row of all tables in a text."""
    return [cells(line) for line in re.findall(r"^\|.*\|$", text, flags=re.MULTILINE)]


def test_the_documented_import_rules_are_the_tested_ones() -> None:
    table = {row[0].strip("`"): row[-1] for row in rows(PAGES["docs/architecture.md"])}
    for folder, may in HOUSE.items():
        named = table[folder]
        if folder == "models":
            assert named == "torch only"
        else:
            assert set(named.replace("—", "").split(", ")) - {""} == may, folder


def test_the_table_of_automatic_values_is_right() -> None:
    (head,) = (row for row in rows(PAGES["docs/names.md"]) if row[0] == "training windows")
    table = {row[0]: row[1:] for row in rows(PAGES["docs/names.md"])}
    for column, windows in enumerate(head[1:]):
        for key, value in automatic(int(windows.replace(",", ""))).items():
            (shown,) = (values for name, values in table.items() if name.startswith(f"`{key}`: "))
            known = str(value).lower() if isinstance(value, bool) else f"{value:,}"
            assert shown[column] == known.removesuffix(".0"), (key, windows)


def commands_of(page: str) -> list[str]:
    """Return the commands in a page's shell blocks, except `make` (which runs this) and `source`.

    If the tests cannot run a block, a comment above it says why.
    """
    found = []
    for block in re.finditer(r"^```bash\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL):
        if not page[: block.start()].rstrip().splitlines()[-1].startswith(NOT_RUN):
            lines = [re.split(r"\s{2,}#", line)[0].strip() for line in block[1].splitlines()]
            found += [command for line in lines for command in line.split(" && ")]
    return [line for line in found if line and not line.startswith(("#", "make", "source"))]


def commands() -> Iterator[list[str]]:
    """Yield the commands of each page.

    Other tests run those of the course, and those of the guide along with their output.
    """
    for path, text in PAGES.items():
        if path in {"CONTRIBUTING.md", "docs/models.md", "docs/course.md", "docs/install.md"}:
            continue  # see test_contributing.py, test_course.py, test_package.py
        yield commands_of(text)


def test_the_commands_are_found() -> None:
    found = [line for page in commands() for line in page]
    assert "dvc exp run --name narrow -S fcn.hidden_dim=100" in found
    assert "dvc exp run -S ++fcn.optimizer=adamw -S fcn.lr=0.003" in found
    assert "git stash show refs/exps/apply/stash" in found
    assert len(found) == len(set(found)), "each once"


@pytest.mark.slow
def test_every_command_works_as_written(project: Project) -> None:
    (project.path / "my-names.txt").write_text(
        (ROOT / "data/prenoms.txt").read_text(encoding="utf-8")[:9000].rpartition("\n")[0], "utf-8"
    )
    queued = 0
    for page in commands():
        for command in page:
            if "apply/stash" in command:  # needs an edit and an apply; see test_git.py
                continue
            ran = project.run(*shlex.split(command))
            assert "Traceback" not in ran.text, command
            queued += ran.text.count("Queued experiment")
        project.git("checkout", ".")
        project.dvc("checkout")
    run_queue(project, queued)


@pytest.mark.slow
def test_every_command_of_the_guide_works_as_written(project: Project, tmp_path: Path) -> None:
    project.set(fcn__epochs="150")  # long enough to be interrupted
    project.dvc("repro")
    project.commit("A longer training")
    origin = tmp_path / "origin"
    project.git("init", "--quiet", "--bare", "--initial-branch", "main", str(origin))
    project.git("remote", "add", "origin", str(origin))
    shell = guide.Shell(project.path, guide.surroundings(tmp_path))
    for page in guide.PAGES:
        for command in guide.commands(page.read_text(encoding="utf-8")):
            printed = shell.run(command)  # fails if the guide describes it differently
            assert bool(printed) == bool(command.printed), command.text
