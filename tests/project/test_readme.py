"""The README says what is so, and its commands work as they are written."""

import doctest
import re
import shlex
from pathlib import Path

import pytest

from charlm import cli
from charlm.core.params import load_params
from charlm.report.results import read_comparison
from pipeline import guide
from pipeline.readme import QUOTED, SOURCED
from tests.conftest import IN_TURN, ROOT, Project, copy_checkout, wait_for_queue

README = (ROOT / "README.md").read_text(encoding="utf-8")
MEASURED = ["benchmarks/RESULTS.md", "benchmarks/LOSS.md", "benchmarks/GROWTH.md"]


def test_the_table_of_results_is_that_of_the_committed_run() -> None:
    evaluation = read_comparison(ROOT / "plots/evaluation/models.csv", [])
    rows = {
        "fcn": "Fully connected net",
        "wavenet": "WaveNet",
        "compact": "Compact WaveNet",
        "hybrid": "Hybrid",
        "mixture": "Mixture",
        "kneser_ney": "Kneser-Ney",
        "bigram": "Bigram counts",
        "unigram": "Unigram counts",
        "uniform": "Uniform",
    }
    for name, title in rows.items():
        m = evaluation[name]
        row = (
            f"| {title} | {m['test_loss']:.4f} ± {m['test_loss_stderr']:.4f} "
            f"| {m['test_bits_per_character']:.3f} | {m['test_accuracy']:.1%} "
            f"| {m['parameters']:,} |"
        )
        assert row in README


def numbers(text: str) -> set[str]:
    return set(re.findall(r"\d+(?:[.,]\d+)*", text))


def parted(readme: str, measured: dict[str, str]) -> list[str]:
    """What the section on speed has otherwise than the files that were measured, by path."""
    (section,) = re.findall(
        r"^## How fast it is\n.*?(?=^## )", readme, flags=re.MULTILINE | re.DOTALL
    )
    quoted = {part[1]: QUOTED.findall(part[0]) for part in SOURCED.finditer(section)}
    faults = []
    for path, text in measured.items():
        expected = QUOTED.findall(text)
        assert any(line.startswith("|") for line in expected), path
        if quoted.get(path) != expected:
            faults.append(f"not the tables of {path}; put them in: python -m pipeline.readme")
    known = numbers("".join(measured.values()))
    return faults + [f"{n} stands in no such file" for n in sorted(numbers(section) - known)]


def test_every_figure_of_speed_is_one_that_was_measured() -> None:
    paths = [path for path in MEASURED if (ROOT / path).exists()]
    if not paths:
        pytest.skip("nothing has been measured yet")
    assert parted(README, {p: (ROOT / p).read_text(encoding="utf-8") for p in paths}) == []


def test_a_figure_of_speed_that_was_not_measured_is_found() -> None:
    table = "| | ms |\n|---|---|\n| net | 1.25 |\n| tree | 2.50 |\n"
    measured = {"benchmarks/RESULTS.md": f"# R\n\nMeasured on: 2 cores\n\nIt.\n\n{table}"}
    section = "## How fast it is\n\nIt is fast.\n\n"
    comment = "<!-- from benchmarks/RESULTS.md, and more -->\n"
    whole = f"{section}{comment}Measured on: 2 cores\nSo:\n\n{table}\n## Next\n\n99\n"
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


def test_the_files_that_it_names_exist() -> None:
    for path in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / path).exists(), path


def test_the_settings_that_it_names_are_the_defaults() -> None:
    params = load_params(ROOT / "params.yaml")
    assert (params.block_size, params.batch_size, params.lr, params.epochs) == (8, 256, 0.2, 50)
    assert (params.split.by, params.split.train, params.split.val) == ("window", 0.8, 0.1)


def commands() -> list[str]:
    """Every line of its shell blocks but `make`, which this test is a part of, and torchrun.

    The guide's are in blocks of their own; see below.
    """
    blocks = re.findall(r"^```bash\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)
    lines = [line.partition("  #")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line and not line.startswith(("make", "source", "torchrun"))]


@pytest.mark.slow
def test_every_command_works_as_it_is_written(project: Project) -> None:
    queued = 0
    for line in commands():
        for part in line.split(" && "):
            ran = project.run(*shlex.split(part))
            assert "Traceback" not in ran.text, part
            queued += ran.text.count("Queued experiment")
    project.dvc("queue", "start", "-j", "2")
    wait_for_queue(project, queued)


@pytest.mark.slow
def test_every_command_of_the_guide_works_as_it_is_written(
    project: Project, tmp_path: Path
) -> None:
    project.set(fcn__epochs="150")  # long enough to be interrupted
    project.dvc("repro")
    project.commit("A longer training")
    origin = tmp_path / "origin"
    project.git("init", "--quiet", "--bare", "--initial-branch", "main", str(origin))
    project.git("remote", "add", "origin", str(origin))
    shell = guide.Shell(project.path, guide.surroundings(tmp_path))
    for command in guide.commands(README):
        printed = shell.run(command)  # which fails where it goes otherwise than the README says
        assert bool(printed) == bool(command.printed), command.text


def by_hand() -> tuple[list[str], str, str]:
    """Of the section on sampling by hand: its commands, what they print, and its Python."""
    (section,) = re.findall(
        r"^## Sampling by hand\n.*?(?=^## )", README, flags=re.MULTILINE | re.DOTALL
    )
    found = re.findall(r"^```(\w+)\n(.*?)^```", section, flags=re.MULTILINE | re.DOTALL)
    blocks = dict(reversed(found))  # the first of each language
    return blocks["bash"].splitlines(), blocks["text"], blocks["python"]


@pytest.mark.slow
def test_what_it_shows_of_sampling_by_hand_is_what_comes_of_the_default_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    project = copy_checkout(tmp_path)
    for stage in IN_TURN[: IN_TURN.index("train_mixture") + 1]:
        project.stage(stage)
    monkeypatch.chdir(project.path)
    commands, printed, python = by_hand()
    for command in commands:
        assert cli.main(shlex.split(command)[3:]) == 0
    assert capsys.readouterr().out == printed
    parsed = doctest.DocTestParser().get_doctest(python, {}, "README.md", None, None)
    assert len(parsed.examples) == 5
    assert doctest.DocTestRunner().run(parsed).failed == 0, capsys.readouterr().out


def test_the_python_of_sampling_by_hand_runs_with_any_model(
    template: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it shows is held to the default model, by a test that takes a training."""
    monkeypatch.chdir(template.path)
    *_, python = by_hand()
    names: dict[str, object] = {}
    exec("\n".join(re.findall(r"^>>> (.*)", python, flags=re.MULTILINE)), names)
    assert "model" in names
