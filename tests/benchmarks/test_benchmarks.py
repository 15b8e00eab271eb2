"""What the benchmarks compute from their measurements, and what they write."""

import copy
import json
import math
import re
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import (
    batched,
    notebook_loop,
    run,
    sampling,
    steps,
    time_to_loss,
    turns,
    whole,
)
from benchmarks.trainer import windows_of
from charlm.core.params import load_params
from charlm.models.fcn import FCN
from charlm.models.wavenet import WaveNet
from pipeline import readme
from tests.conftest import ROOT, Project
from tests.helpers import run_python

Figures = turns.Figures


def test_a_ratio_is_the_median_of_the_ratios_pair_by_pair() -> None:
    taken = [({"s": 2.0}, {"s": 1.0}), ({"s": 9.0}, {"s": 3.0}), ({"s": 8.0}, {"s": 2.0})]
    assert turns.median_ratio(taken, "s") == 3
    assert turns.median_of(taken, 0, "s") == 8
    assert turns.median_of(taken, 1, "s") == 2


def test_the_two_programs_take_turns() -> None:
    order: list[str] = []
    taken = turns.pairs(2, lambda: order.append("a") or {"s": 1.0}, lambda: order.append("b") or {})
    assert order == ["a", "b", "a", "b"]
    assert taken == [({"s": 1.0}, {})] * 2


def test_a_turn_returns_the_last_line_of_a_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code = "import json; print('hello'); print(json.dumps({'step': 1.5}))"
    (tmp_path / "turn.py").write_text(code)
    (tmp_path / "failing.py").write_text("import sys; sys.exit(3)")
    monkeypatch.setitem(turns.ENVIRONMENT, "PYTHONPATH", str(tmp_path))
    assert turns.in_a_process("turn") == {"step": 1.5}
    assert re.fullmatch(r" *\d+\.\d min  turn\n", capsys.readouterr().err)
    with pytest.raises(SystemExit, match="3"):
        turns.in_a_process("failing")

    before = tmp_path / "before"  # another version
    before.mkdir()
    (before / "turn.py").write_text(code.replace("1.5", "2.5"))
    assert turns.in_a_process("turn", folder=before) == {"step": 2.5}


def test_models_trained_together_take_the_same_steps_as_alone() -> None:
    torch.manual_seed(1)
    models = [notebook_loop.wavenet(9) for _ in range(3)]
    alone = [copy.deepcopy(model) for model in models]
    as_one = batched.Batched(models, lr=0.2)
    contexts, targets = torch.randint(9, (2, 3, 16, 8)), torch.randint(9, (2, 3, 16))
    for its, their in zip(contexts, targets, strict=True):
        as_one.step(its, their)
        for model, mine, wanted in zip(alone, its, their, strict=True):
            optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
            notebook_loop.train_epoch(model, [[mine, wanted]], optimizer)
    for number, model in enumerate(alone):
        for name, weight in model.named_parameters():
            torch.testing.assert_close(as_one.weights[name][number], weight)
    losses = as_one.losses(contexts[0, 0], targets[0, 0])
    expected = [
        notebook_loop.mean_loss(model, [[contexts[0, 0], targets[0, 0]]]) for model in alone
    ]
    assert losses == pytest.approx(expected)


def test_zero_seeds_are_refused_in_one_line() -> None:
    ran = Project(ROOT).run(sys.executable, "-m", "benchmarks.batched", "--seeds", "0", code=1)
    assert ran.text == "error: --seeds is 0; give 1 or more\n"


SHOW = "import json, os; print(json.dumps({name: os.environ.get(name) for name in %s}))"


def test_the_notebook_runs_with_the_kernels_that_torch_chooses(tmp_path: Path) -> None:
    """Even if the process that starts the turns has pinned its own kernels."""
    names = ["ATEN_CPU_CAPABILITY", "MKL_CBWR", "OPENBLAS_NUM_THREADS"]
    (tmp_path / "show.py").write_text(SHOW % names)
    code = "from benchmarks import turns; import stages; print(turns.in_a_process('show'))"
    unset = {**dict.fromkeys(names, "as it was"), "PYTHONPATH": f"{tmp_path}:{ROOT}"}
    ran = Project(tmp_path).run(sys.executable, "-c", code, **unset)
    assert ran.text.splitlines()[-1] == str(dict.fromkeys(names, "as it was"))


@pytest.mark.parametrize("module", ["batched", "sampling", "steps", "time_to_loss", "whole"])
def test_importing_a_benchmark_pins_no_kernels(module: str) -> None:
    """Only the pipeline's turn pins them, when it begins."""
    code = f"import os; before = dict(os.environ); import benchmarks.{module}; "
    assert run_python(code + "print(dict(os.environ) == before)", MKL_CBWR="AUTO") == "True\n"


def test_the_floor_is_three_products_per_linear_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    def multiplications(model: FCN | WaveNet) -> int:
        import numpy as np

        counted: list[int] = []
        dot = np.dot
        with monkeypatch.context() as patched:
            patched.setattr(
                np,
                "dot",
                lambda a, b: counted.append(a.shape[0] * a.shape[1] * b.shape[1]) or dot(a, b),
            )
            steps.products(model, 256)
        return sum(counted) // steps.REPETITIONS

    sizes = {"vocab_size": 46, "block_size": 8}
    assert multiplications(FCN(**sizes)) == 3 * 256 * (80 * 300 + 300 * 46)
    tree = 4 * 20 * 128 + 2 * 256 * 128 + 256 * 128
    assert multiplications(WaveNet(**sizes)) == 3 * 256 * (tree + 128 * 46)


def test_the_gain_of_the_fast_path_is_measured_for_every_model(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def turn(module: str, *arguments: str, folder: Path = turns.HERE) -> Figures:
        *_, who, model = arguments
        assert (who == "plain") <= (folder == turns.HERE)
        slower = who == "plain" or folder != turns.HERE
        return {"step": 2.0 + 10 * slower + len(model)}

    monkeypatch.setattr(steps, "in_a_process", turn)
    for folder, name in ((None, "plain PyTorch"), (Path("/clones/before"), "before")):
        table = steps.gains(2, before=folder)
        assert f"| {name}, ms per step |" in table
        assert "| fcn | 15.000 | 5.000 | 3.00 |" in table
        assert "| compact | 19.000 | 9.000 | 2.11 |" in table
    taken: list[bool] = []
    monkeypatch.setattr(
        steps, "new_trainer", lambda model, setting, fast=True: taken.append(fast) or 1 / 0
    )
    for who in ("pipeline", "plain"):
        with pytest.raises(ZeroDivisionError):
            steps.TURNS[who]("fcn", steps.DEFAULT)
    assert taken == [True, False]


def test_a_folder_without_another_version_is_refused_in_one_line(tmp_path: Path) -> None:
    command = (sys.executable, "-m", "benchmarks.steps", "--against", str(tmp_path))
    ran = Project(ROOT).run(*command, code=1)
    told = f"error: {tmp_path} has no benchmarks/steps.py; clone another version there\n"
    assert ran.text == told


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that `run.main` writes. Nothing is measured here."""

    def turn(module: str, *arguments: str, folder: Path = turns.HERE) -> Figures:
        notebook = "notebook" in arguments
        if module == "benchmarks.steps":
            step = 4.0 if notebook else 1.6
            return {"step": step, "with validation": 1.1 * step, "products": 0.8}
        pace = 1000.0 if notebook else 90_000.0
        return {"names per second": pace, "seconds": 11.0, "megabytes": 400.0}

    for module in (steps, sampling):
        monkeypatch.setattr(module, "in_a_process", turn)
    monkeypatch.setattr(whole, "notebook", lambda epochs: {"seconds": 100.0})
    monkeypatch.setattr(whole, "pipeline", lambda *_, **__: {"seconds": 40.0, "again": 0.9})
    monkeypatch.setattr(whole, "one_stage", lambda: {"seconds": 0.8, "again": 0.5})
    monkeypatch.setattr(sampling, "CHECKPOINTS", tmp_path)
    for model in sampling.MODELS:
        (tmp_path / f"{model}.safetensors").touch()
    monkeypatch.setattr(run, "RESULTS", tmp_path / "RESULTS.md")
    monkeypatch.setattr("sys.argv", ["run", "--pairs", "2"])
    return tmp_path / "RESULTS.md"


def test_the_results_say_what_was_measured(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run.main()
    text = results.read_text(encoding="utf-8")
    assert "| fcn | 4.00 | 1.60 | 2.50 | 2.50 | 0.80 | 50% |" in text
    assert "| wavenet | 1,000 | 90,000 | 90 | 11 | 400 |" in text
    assert "| `dvc repro` | 100 | 40 | 40% | 0.9 |" in text
    assert f"| `dvc repro`, {whole.ONE_EPOCH} | 100 | 40 | 40% | 0.9 |" in text
    assert "| one stage that copies a file |  |  |  | 0.5 |" in text
    said = capsys.readouterr()
    for part in text.split("\n## ")[1:]:
        assert part.strip() in said.out, "printed as soon as it is known"
    assert "The whole pipeline (3 of 3)\n" in said.err
    assert "`make repro`, turn 2 of 2\n" in said.err


def test_the_results_name_the_machine_and_the_command_for_each_table(
    results: Path,
) -> None:
    run.main()
    text = results.read_text(encoding="utf-8")
    (machine,) = re.findall(r"^Measured on: .*", text, flags=re.MULTILINE)
    assert re.search(
        r"\d cores, \d+ GB of memory; .*Python 3\..*torch 2\..*NumPy 2\..*DVC 3\.", machine
    )
    commands = re.findall(r"^Only this table: `python -m (.*)`$", text, flags=re.MULTILINE)
    assert commands == [
        "benchmarks.steps --pairs 2",
        "benchmarks.sampling --pairs 2",
        "benchmarks.whole --pairs 2 --epochs 50",
    ]
    assert not re.search(r"\d{4}-\d\d|\d\d:\d\d", text), "no date and no time"


def test_the_results_are_written_whole_or_not_at_all(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(epochs: int) -> Figures:
        raise KeyboardInterrupt

    run.main()
    before = results.read_bytes()
    monkeypatch.setattr(whole, "notebook", interrupted)
    with pytest.raises(SystemExit, match=r"interrupted; RESULTS\.md is unchanged"):
        run.main()
    assert results.read_bytes() == before


def test_a_missing_checkpoint_is_reported_before_anything_is_measured(results: Path) -> None:
    (results.parent / "wavenet.safetensors").unlink()
    with pytest.raises(SystemExit, match=r"wavenet\.safetensors does not exist; create it with"):
        run.main()


def test_the_readme_gets_the_latest_measurements(results: Path, tmp_path: Path) -> None:
    run.main()
    (tmp_path / "benchmarks").mkdir()
    results.rename(tmp_path / "benchmarks/RESULTS.md")
    table, machine = "| an old |\n|---|\n| table |\n", "Measured on: a slow machine\n"
    text = (
        f"# Title\n\n{table}\n<!-- from benchmarks/RESULTS.md, and so on -->\n\n{machine}\n"
        f"A step:\n\n{table}\nNames:\n\n{table}\nAll:\n\n{table}\n"
        f"<!-- from benchmarks/NONE.md -->\n{table}\n## Next\n\n{table}"
    )
    told = readme.refreshed(text, tmp_path)
    assert told.count(table) == 3, "above, from a file that there is not, and below"
    assert "| fcn | 4.00 |" in told.split("A step:")[1].split("Names:")[0]
    assert "| fcn | 1,000 |" in told.split("Names:")[1].split("All:")[0]
    assert machine not in told
    assert readme.refreshed(told, tmp_path) == told


def test_a_turn_of_sampling_prints_its_figures(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sampling, "pipeline", lambda model, count: {"names": float(count)})
    monkeypatch.setattr("sys.argv", ["sampling", "--turn", "pipeline", "fcn", "7"])
    sampling.main()
    assert json.loads(capsys.readouterr().out) == {"names": 7.0}


def test_the_time_to_a_loss_is_measured_for_both(monkeypatch: pytest.MonkeyPatch) -> None:
    """Train the pipeline for an epoch on the real names; check only the table of the notebook."""
    monkeypatch.chdir(ROOT)
    ours = time_to_loss.pipeline(1)
    assert 1.95 < ours["loss"] < 2.2
    assert ours["seconds"] > 0
    assert ours["first"] == (ours["seconds"] if ours["loss"] <= time_to_loss.GOAL else math.inf)
    turns = {
        "notebook": {"seconds": 90.0, "first": 30.0, "loss": 2.01},
        "pipeline": {"seconds": 2.0, "first": 2.0, "loss": 2.0},
    }
    monkeypatch.setattr(time_to_loss, "in_a_process", lambda module, option, name: turns[name])
    *_, notebook, pipeline, ratios = time_to_loss.table(1).splitlines()
    assert notebook == "| notebook | 40 | 2.0100 | 90.0 | 30.0 |"
    assert pipeline == "| pipeline | 2 | 2.0000 | 2.0 | 2.0 |"
    assert ratios == "| speedup |  |  | 45 | 15 |"


def test_the_time_to_a_loss_is_written_with_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(time_to_loss, "table", lambda count: f"| {count} turns |")
    monkeypatch.setattr(time_to_loss, "RESULT", tmp_path / "LOSS.md")
    monkeypatch.setattr("sys.argv", ["time_to_loss", "--pairs", "2"])
    time_to_loss.main()
    written = (tmp_path / "LOSS.md").read_text(encoding="utf-8")
    assert re.search(r"^Measured on: .* cores", written, flags=re.MULTILINE)
    assert "| 2 turns |" in written
    assert "| 2 turns |" in capsys.readouterr().out


def test_a_name_may_contain_spaces(tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    names.write_text("dark red\nlight blue\n", encoding="utf-8")
    corpus, _ = windows_of(load_params(ROOT / "params.yaml"), names)
    assert " " in corpus.vocabulary.characters
