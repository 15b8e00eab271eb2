"""At its end, a stage compares its dependencies with what they were at its beginning."""

from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.inputs import Inputs
from tests.helpers import refused

DVC_YAML = """
stages:
  train:
    cmd: python -m stages.train
    deps:
      - code
      - ${names.path}
      - options: {hash: md5}
    params: [seed, training, model.lr, {other.yaml: [lr]}]
  split:
    cmd: python -m stages.split
"""

PARAMS = """
seed: 1
names: {path: names.txt, column: }
training: {threads: 1, scheduler: }
model: {lr: 0.1, hidden_dim: 30}
sample: {count: 10}
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, text in {
        "dvc.yaml": DVC_YAML,
        "params.yaml": PARAMS,
        ".dvcignore": "# ignored\n__pycache__\n*.swp\n",
        "names.txt": "ANNA\n",
        "other.yaml": "lr: 1\n",
        "options": "",
        "code/a.py": "",
        "code/more/b.py": "",
        "elsewhere.py": "",
    }.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(text)


def replace(path: str, old: str, new: str) -> Callable[[], object]:
    return lambda: Path(path).write_text(Path(path).read_text().replace(old, new))


def write(path: str, text: str = "x") -> Callable[[], object]:
    def change() -> None:
        Path(path).parent.mkdir(exist_ok=True)
        Path(path).write_text(text)

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (replace("params.yaml", "lr: 0.1", "lr: 0.2"), "model.lr in params.yaml (0.1, now 0.2)"),
        (replace("params.yaml", "seed: 1", "seed: true"), "seed in params.yaml (1, now True)"),
        (
            replace("params.yaml", "scheduler: ", "scheduler: step"),
            "training.scheduler in params.yaml (empty, now step)",
        ),
        (replace("params.yaml", "seed: 1", ""), "seed in params.yaml (1, now missing)"),
        (
            replace("params.yaml", "threads: 1", "threads: 1, more: 2"),
            "training.more in params.yaml (missing, now 2)",
        ),
        (write("names.txt"), "ran: names.txt. "),
        (write("code/a.py"), "ran: code/a.py. "),
        (write("code/more/c.py"), "ran: code/more/c.py. "),
        (Path("code/more/b.py").unlink, "ran: code/more/b.py. "),
        (write("options"), "ran: options. "),
        (write("other.yaml", "lr: 2"), "ran: other.yaml. "),
        (write("params.yaml", "]"), "params.yaml cannot be read"),
    ],
)
def test_a_change_is_refused_and_named(change: Callable[[], object], said: str) -> None:
    inputs = Inputs("train")
    inputs.refuse_if_changed()
    change()
    with refused(said):
        inputs.refuse_if_changed()


@pytest.mark.parametrize(
    "change",
    [
        replace("params.yaml", "count: 10", "count: 20"),
        replace("params.yaml", "hidden_dim: 30", "hidden_dim: 40"),
        replace("params.yaml", "column: ", "column: name"),
        replace("params.yaml", "seed: 1", "seed: 1  # a comment"),
        write("elsewhere.py"),
        write("names.txt", "ANNA\n"),
        write("code/__pycache__/a.pyc"),
        write("code/.a.py.swp"),
    ],
)
def test_any_other_change_is_ignored(change: Callable[[], object]) -> None:
    inputs = Inputs("train")
    change()
    inputs.refuse_if_changed()


def test_a_few_of_many_changes_are_named() -> None:
    inputs = Inputs("train")
    for number in range(5):
        write(f"code/{number}.py")()
    with refused("ran: code/0.py, code/1.py, code/2.py, 2 more. "):
        inputs.refuse_if_changed()


def test_a_stage_without_dependencies_has_no_inputs() -> None:
    assert Inputs("split").values == {}


@pytest.mark.parametrize("several", ["matrix: {lr: [1, 2]}, ", "foreach: [1, 2], do: {"])
def test_a_matrix_or_foreach_stage_has_the_inputs_it_declares(several: str) -> None:
    closed = "}" * several.count("do: {")
    declared = f"{{{several}cmd: x, deps: [code], params: [seed]{closed}}}"
    Path("dvc.yaml").write_text(f"stages: {{train: {declared}}}")
    inputs = Inputs("train@1")
    assert inputs.values == {"seed": 1}
    assert list(inputs.files) == ["code/a.py", "code/more/b.py"]


def test_an_unknown_stage_is_refused() -> None:
    with refused("dvc.yaml has no stage mine"):
        Inputs("mine")
