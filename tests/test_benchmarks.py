"""What the benchmarks compute from what they measure, and what they call the floor."""

import json
from pathlib import Path

import pytest

from benchmarks import run, sampling, steps, turns, whole
from charlm.models.fcn import FCN
from charlm.models.wavenet import WaveNet

Figures = turns.Figures


def test_a_ratio_is_the_median_of_the_ratios_pair_by_pair() -> None:
    taken = [({"s": 2.0}, {"s": 1.0}), ({"s": 9.0}, {"s": 3.0}), ({"s": 8.0}, {"s": 2.0})]
    assert turns.median_ratio(taken, "s") == 3
    assert turns.median_of(taken, 0, "s") == 8
    assert turns.median_of(taken, 1, "s") == 2


def test_the_two_take_turns() -> None:
    order: list[str] = []
    taken = turns.pairs(2, lambda: order.append("a") or {"s": 1.0}, lambda: order.append("b") or {})
    assert order == ["a", "b", "a", "b"]
    assert taken == [({"s": 1.0}, {})] * 2


def test_a_turn_is_what_a_process_prints_last(tmp_path: Path) -> None:
    code = "import json; print('hello'); print(json.dumps({'step': 1.5}))"
    (tmp_path / "turn.py").write_text(code)
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("PYTHONPATH", str(tmp_path))
        assert turns.in_a_process("turn") == {"step": 1.5}


def test_the_floor_is_three_products_for_each_linear_layer(monkeypatch: pytest.MonkeyPatch) -> None:
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
            steps.products(model, 256, 8)
        return sum(counted) // steps.REPETITIONS

    sizes = {"vocab_size": 46, "block_size": 8}
    assert multiplications(FCN(**sizes)) == 3 * 256 * (80 * 300 + 300 * 46)
    tree = 4 * 20 * 128 + 2 * 256 * 128 + 256 * 128
    assert multiplications(WaveNet(**sizes)) == 3 * 256 * (tree + 128 * 46)


def test_the_results_say_what_was_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def turn(module: str, *arguments: str) -> Figures:
        notebook = "notebook" in arguments
        if module == "benchmarks.steps":
            step = 4.0 if notebook else 1.6
            return {"step": step, "with validation": 1.1 * step, "products": 0.8}
        pace = 1000.0 if notebook else 90_000.0
        return {"names per second": pace, "seconds": 11.0, "megabytes": 400.0}

    for module in (steps, sampling):
        monkeypatch.setattr(module, "in_a_process", turn)
    monkeypatch.setattr(whole, "notebook", lambda epochs: {"seconds": 100.0})
    monkeypatch.setattr(whole, "pipeline", lambda command, epochs: {"seconds": 40.0})
    monkeypatch.setattr(run, "RESULTS", tmp_path / "RESULTS.md")
    monkeypatch.setattr("sys.argv", ["run", "--pairs", "2"])
    run.main()
    text = (tmp_path / "RESULTS.md").read_text(encoding="utf-8")
    assert "| fcn | 4.00 | 1.60 | 2.50 | 2.50 | 0.80 | 50% |" in text
    assert "| wavenet | 1,000 | 90,000 | 90 | 11 | 400 |" in text
    assert "| `dvc repro` | 100 | 40 | 40% |" in text
    assert "torch" in text.split("##")[0]
    assert capsys.readouterr().out.count("## ") == 3


def test_a_turn_of_sampling_prints_its_figures(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sampling, "pipeline", lambda model, count: {"names": float(count)})
    monkeypatch.setattr("sys.argv", ["sampling", "--turn", "pipeline", "fcn", "7"])
    sampling.main()
    assert json.loads(capsys.readouterr().out) == {"names": 7.0}
