"""The guide: how its commands are run and their output written, and that what it says is true."""

import json
import os
import re
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from pipeline import guide
from pipeline.guide import Command, Shell, UnexpectedError
from tests.conftest import ROOT
from tests.pipeline.test_dvc_yaml import read_yaml

GUIDE = "\n".join(page.read_text(encoding="utf-8") for page in guide.PAGES)

TEXT = """# Guide

```bash
false  # not of the guide
```

```console
$ cd inner
$ echo 12:34 AM; pwd; echo; echo commit 0123abc; echo '── 1234567 [it]' 1234567
old
$ cat <<'END'
> one
>   two
> END
```

<!-- only: ^[ad] -->

```console
$ printf 'x\\na\\nb\\nc\\nd\\n'
...
$ true
old
$ cd -
```
"""

TOLD = """# Guide

```bash
false  # not of the guide
```

```console
$ cd inner
$ echo 12:34 AM; pwd; echo; echo commit 0123abc; echo '── 1234567 [it]' 1234567
10:00 AM
/home/you/inner
commit 1a2b3c4
── 1a2b3c4 [it] 1234567
$ cat <<'END'
> one
>   two
> END
one
  two
```

<!-- only: ^[ad] -->

```console
$ printf 'x\\na\\nb\\nc\\nd\\n'
...
a
...
d
$ true
$ cd -
...
```
"""


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path, os.environ)


def test_blocks_are_run_in_order_and_their_output_is_written(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    assert guide.refreshed(TEXT, shell, tmp_path) == TOLD
    assert shell.folder == tmp_path
    assert guide.refreshed(TOLD, shell, tmp_path) == TOLD


def test_a_command_may_span_several_lines() -> None:
    (_, _, several, *_) = guide.commands(TOLD)
    assert several == Command("cat <<'END'\none\n  two\nEND", ("one", "  two"))


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("3fae798  bad     04:35 PM   Failed", "1a2b3c4  bad     10:00 AM   Failed"),
        ("   9c411cd..8e6a0e9  main -> main", "   1a2b3c4..1a2b3c4  main -> main"),
        ("epoch 1/50: train 2.5273, 216 s left", "epoch 1/50: train 2.5273, ... left"),
        ("1234567 faced 0.0123456 12345678a", "1234567 faced 0.0123456 12345678a"),
    ],
)
def test_parts_that_change_with_every_run_get_placeholders(line: str, shown: str) -> None:
    assert guide.shown(Command("x"), [line], None) == f"$ x\n{shown}\n"


@pytest.mark.parametrize(
    "command", ["exit 3", "python -c '1/0' || true", "exec 2>&1; echo Traceback '(most'"]
)
def test_a_failing_command_is_reported(shell: Shell, command: str) -> None:
    with pytest.raises(UnexpectedError, match=r"error: does not end as in the guide: "):
        shell.run(Command(command))


TRAINING = "for n in 1 2 3; do echo Net, epoch $n/3; done; "


def test_a_command_is_interrupted_where_the_guide_says(shell: Shell) -> None:
    waiting = Command(TRAINING + "sleep 60", ("^C",))
    assert shell.run(waiting)[:3] == ["Net, epoch 1/3", "Net, epoch 2/3", "^C"]
    for ends in ("", "exit 3"):  # success, or failure in the first epoch
        with pytest.raises(UnexpectedError):
            shell.run(Command(TRAINING.replace("1 2 3", "1") + ends, ("^C",)))


def test_the_guide_identifies_the_metrics_it_was_written_with(tmp_path: Path) -> None:
    (tmp_path / "metrics").mkdir()
    for name in guide.METRICS:
        (tmp_path / f"metrics/{name}.json").write_text("{}")
    before = guide.written_with(tmp_path)
    assert re.fullmatch(guide.WRITTEN.format(r"\w+"), before)
    (tmp_path / "metrics/samples.json").write_text('{"fcn": {}}')
    assert guide.written_with(tmp_path) != before


def test_the_guide_was_written_with_the_committed_metrics() -> None:
    for page in guide.PAGES:
        text = page.read_text(encoding="utf-8")
        assert guide.written_with(ROOT) in text, "run: python -m pipeline.guide"


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found = {}
    for key, value in values.items():
        if isinstance(value, dict):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = value
    return found


def committed() -> dict[str, Any]:
    """Return metrics and parameters of the default run, by the names that DVC gives them."""
    found = flat(read_yaml(ROOT / "params.yaml"))
    for name in ("samples", "evaluation"):
        found |= flat(json.loads((ROOT / f"metrics/{name}.json").read_text(encoding="utf-8")))
    return found


def columns(line: str) -> list[str]:
    return re.split(r"\s{2,}", line.strip())


def tables(text: str) -> Iterator[tuple[Command, list[dict[str, str]], bool]]:
    """Yield each table of the guide, and whether HEAD is still the default run at that point."""
    first = True
    for command in guide.commands(text):
        first = first and not command.text.startswith("git commit")
        if command.printed and re.match(r"dvc (params diff|metrics diff|exp show)", command.text):
            lines = [line for line in command.printed if "───" not in line]
            names, *rows = map(columns, lines)
            yield command, [dict(zip(names, row, strict=True)) for row in rows if row[1:]], first


def default_figures(text: str) -> Iterator[tuple[str, str]]:
    """Yield the name and value of each figure of the default run in the guide."""
    for command, rows, first in tables(text):
        default = {"v1", "HEAD", "main"} if first else {"v1"}
        for row in rows:
            if "exp show" in command.text and row["Experiment"] in default:
                yield from ((k, v) for k, v in row.items() if k != "Experiment")
            name = row.get("Metric") or row.get("Param")
            yield from ((name, row[column]) for column in default & row.keys() if name)
    narrow = guide.commands(text)[0]  # leaves the other models as they are
    for line in narrow.printed:
        if match := re.match(r"(wavenet|compact) +test loss ([\d.]+) .* ([\d,]+) param", line):
            yield f"{match[1]}.test_loss", match[2]
            yield f"{match[1]}.parameters", match[3].replace(",", "")


def stale(text: str) -> list[str]:
    values = committed()
    return [
        f"{name} is {values[name]}, not {figure}"
        for name, figure in default_figures(text)
        if float(figure) != pytest.approx(values[name], rel=5e-5, abs=5e-6)
    ]


def test_figures_of_the_default_run_are_the_committed_ones() -> None:
    assert len(list(default_figures(GUIDE))) >= 19
    assert stale(GUIDE) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (r"(?<=fcn\.test_loss  )( +)\d", r"\g<1>9"),  # HEAD in dvc metrics diff
        (r"(?<=fcn\.hidden_dim  )300", "200"),
        (r"(?m)(?<=^  main  )( +)\d", r"\g<1>9"),
        (r"(?<=fcn\.novel  )( +)0\.\d", r"\g<1>0.0"),  # v1
        (r"(?<=wavenet    test loss )\d", "9"),
    ],
)
def test_a_figure_of_another_run_is_found(old: str, new: str) -> None:
    changed = re.sub(old, new, GUIDE, count=1)
    assert changed != GUIDE
    assert len(stale(changed)) == 1


def test_line_numbers_of_params_yaml_are_right() -> None:
    lines = (ROOT / "params.yaml").read_text(encoding="utf-8").splitlines()
    named = re.findall(r"params\.yaml, line (\d+): (\w+)\.(\w+) is", GUIDE)
    assert named
    for number, section, key in named:
        before = lines[: int(number)]
        assert before[-1].startswith(f"  {key}:")
        assert len(list(takewhile(lambda line: line.startswith(" "), reversed(before)))) > 0
        assert [line for line in before if not line.startswith(" ")][-1].startswith(f"{section}:")


def printed_by(start: str) -> list[str]:
    (printed,) = [c.printed for c in guide.commands(GUIDE) if c.text.startswith(start)]
    return list(printed)


def losses(lines: list[str]) -> dict[str, float]:
    found = re.findall(r"^(\w+) +test loss ([\d.]+)", "\n".join(lines), flags=re.MULTILINE)
    return {name: float(loss) for name, loss in found}


def test_statements_about_the_figures_are_true() -> None:
    diffs = {c.text: rows for c, rows, _ in tables(GUIDE) if "metrics diff" in c.text}
    narrow = {row["Metric"]: row for row in next(iter(diffs.values()))}
    share = float(narrow["fcn.parameters"]["workspace"]) / float(narrow["fcn.parameters"]["HEAD"])
    assert 0.3 < share < 0.36, "a third of the parameters"
    table = pd.read_csv(ROOT / "plots/evaluation/models.csv", index_col="model")
    error = float(table.loc["fcn", "test_loss_stderr"])
    change = {m: float(narrow[f"fcn.{m}_loss"]["Change"]) for m in ("train", "val", "test")}
    assert error < change["test"] < 2 * error, "higher by little more than its standard error"
    assert change["train"] > 5 * change["test"], "much worse on the training names"

    tagged = next(rows for text, rows in diffs.items() if "v1 v2" in text)
    assert all(float(r["Change"]) > 0.05 for r in tagged if r["Metric"] == "fcn.novel")

    means = dict(
        re.findall(r"^(\d+) +(.*)", "\n".join(printed_by("python - <<'END'\nimport pandas")), re.M)
    )
    (narrow_mean, narrow_std), (wide_mean, wide_std) = (
        map(float, means[size].split()) for size in ("100", "300")
    )
    assert narrow_mean - wide_mean > 3 * max(narrow_std, wide_std), "several times as large"

    colors = losses(printed_by("dvc exp run --name colors"))
    assert colors["mixture"] < colors["kneser_ney"]
    nets = ("fcn", "wavenet", "compact")
    assert colors["kneser_ney"] < min(colors[net] for net in nets)
    table = [columns(line) for line in printed_by("python -c")[2:]]
    history = pd.DataFrame(table, columns=["epoch", "train", "val", "lr"]).astype(float)
    assert history["epoch"].iloc[history["val"].argmin()] < history["epoch"].iloc[-1]
    assert history["val"].iloc[-1] > history["val"].min() + 0.02, "and then rises"
    assert history["train"].is_monotonic_decreasing


def test_vs_code_knows_the_extensions_and_the_environment() -> None:
    folder = ROOT / ".vscode"
    recommended = json.loads((folder / "extensions.json").read_text())["recommendations"]
    assert "lakefs.lakefs-dvc" in recommended
    assert "lakefs.lakefs-dvc" in GUIDE
    interpreter = json.loads((folder / "settings.json").read_text())[
        "python.defaultInterpreterPath"
    ]
    made = re.search(r'"VENV"\) or "(.*?)"', (ROOT / "run.py").read_text(encoding="utf-8"))
    assert interpreter == "${workspaceFolder}/" + made[1]
