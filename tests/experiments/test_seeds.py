"""Means over seeds, as quoted in docs/results.md."""

import re
import sys

import pytest

from experiments.seeds import METRICS, table
from tests.conftest import Project

LOSSES = ["train_loss", "val_loss", "test_loss"]


def test_the_table_gives_mean_and_standard_error_over_the_seeds() -> None:
    runs = [
        {"fcn": dict.fromkeys(LOSSES, loss), "uniform": dict.fromkeys(LOSSES, 3.0)}
        for loss in (2.0, 2.1, 2.5)
    ]
    _, _, fcn, uniform = table(runs).splitlines()
    # The deviation 0.2646 of a sample, divided by the root of the number of seeds.
    assert fcn == "| fcn " + "| 2.2000 ± 0.1528 " * len(LOSSES) + "|"
    assert uniform == "| uniform " + "| 3.0000 ± 0.0000 " * len(LOSSES) + "|"


def test_a_metric_that_only_some_models_have_leaves_empty_cells() -> None:
    runs = [
        {"fcn": {"test_loss": 2.0, "novel": novel}, "uniform": {"test_loss": 3.0}}
        for novel in (0.5, 0.7)
    ]
    header, _, fcn, uniform = table(runs).splitlines()
    assert header == "|  | test_loss | novel |"
    assert fcn == "| fcn | 2.0000 ± 0.0000 | 0.6000 ± 0.1000 |"
    assert uniform == "| uniform | 3.0000 ± 0.0000 |  |"


def test_parameter_counts_are_whole_numbers() -> None:
    runs = [{"kneser_ney": {"test_loss": 2.0, "parameters": n}} for n in (128_000, 129_000)]
    assert table(runs).splitlines()[2] == "| kneser_ney | 2.0000 ± 0.0000 | 128,500 ± 500 |"


def test_a_list_that_does_not_exist_is_refused_in_one_line(template: Project) -> None:
    ran = template.run("python", "-m", "experiments.seeds", "--names", "nope.txt", code=1)
    assert ran.text.splitlines() == [
        "error: --names nope.txt does not exist; give the path of a list"
    ]


def test_a_seed_given_twice_is_refused_in_one_line(template: Project) -> None:
    ran = template.run("python", "-m", "experiments.seeds", "--seeds", "1", "2", "1", code=1)
    assert ran.text == "error: --seeds has a seed more than once; give each once\n"


def test_a_queue_of_the_user_is_neither_run_nor_lost(project: Project) -> None:
    project.dvc("exp", "run", "--queue", "--name", "mine", "-S", "lr=0.1")
    ran = project.run("python", "-m", "experiments.seeds", code=1)
    assert re.fullmatch("error: mine is in the queue and .* dvc exp remove --queue\n", ran.text)
    assert re.search(r"mine .*Queued\n", project.dvc("queue", "status").text)


@pytest.mark.slow
def test_logs_of_failed_runs_are_kept_until_the_next_call(project: Project) -> None:
    command = [sys.executable, "-m", "experiments.seeds", "--seeds", "1", "2"]
    ran = project.run(*command, "-S", "training.optimizer=adam", code=1)
    advice = re.search(r"^error: no result of seeds-1, seeds-2; see: (.*)$", ran.text, re.MULTILINE)
    assert "training.optimizer is 'adam'" in project.run(*advice[1].split()).text
    project.run(*command, "-S", "epochs=1")
    assert project.dvc("queue", "status").text.startswith("No experiment tasks in the queue.")


@pytest.mark.slow
def test_seeds_on_another_list_leave_the_workspace_alone(project: Project) -> None:
    names = (project.path / "data/few.txt").read_text(encoding="utf-8")
    (project.path / "../others.txt").resolve().write_text(names + "ZOÉLINE\n", encoding="utf-8")
    before = project.outputs()
    options = ["--seeds", "1", "2", "--names", "../others.txt", "-S", "wavenet.epochs=1"]
    ran = project.run("python", "-m", "experiments.seeds", *options)
    assert f"{len(names.split()) + 1} names" in ran.text
    (row,) = re.findall(r"^\| fcn \|.*", ran.text, flags=re.MULTILINE)
    losses = re.findall(r"(\d\.\d{4}) ± (\d\.\d{4})", row)
    assert re.search(r"\| \d+,\d{3} ± 0 \|", row), "parameters, which are whole"
    assert len(losses) + 1 == len(METRICS)
    assert all(float(deviation) > 0 for _, deviation in losses[:3])
    assert project.outputs() == before
    assert project.dvc("exp", "list", "--name-only").text.strip() in ("", "main")
