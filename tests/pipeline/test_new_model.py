"""`python -m pipeline.new_model`: what it writes, for one or several new models."""

import inspect
import io
import textwrap
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from pipeline.new_model import with_stage
from tests import models
from tests.conftest import MODELS, ROOT, Project
from tests.pipeline.test_dvc_yaml import read_yaml

TRANSFORMER = f'''"""A causal transformer."""

import torch
from torch import Tensor, nn

from charlm.models.base import LanguageModel


{inspect.getsource(models.CausalTransformer)}'''

LINEAR = '''"""One linear layer."""

from torch import Tensor, nn

from charlm.models.base import LanguageModel


class Linear(LanguageModel):
    """Logits by a linear layer over all embeddings."""

    def __init__(
        self, vocab_size: int, block_size: int, width: int = 4, sort: str = "a b", on: bool = True
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, width)
        self.output = nn.Linear(block_size * width, vocab_size)

    def forward(self, contexts: Tensor) -> Tensor:
        return self.output(self.embedding(contexts).flatten(1))
'''


SHARED = ["batch_size", "epochs", "lr", "names.column", "names.path", "seed", "split", "training"]
"""The parameters of the report that belong to no model."""


def new_model(project: Project, name: str, code: str, exit_code: int = 0) -> str:
    (project.path / f"charlm/models/{name}.py").write_text(code, encoding="utf-8")
    return project.run("python", "-m", "pipeline.new_model", name, code=exit_code).text


# Always random, like dropout for estimating uncertainty (Gal and Ghahramani 2016).
RANDOM = LINEAR.replace("import Tensor", "import Tensor, rand").replace(
    "return self", "return (0.9 + 0.2 * rand(())) * self"
)


@pytest.mark.slow
def test_two_new_models_are_trained_sampled_and_reported(project: Project) -> None:
    new_model(project, "transformer", TRANSFORMER)
    new_model(project, "linear", RANDOM)
    params = read_yaml(project.path / "params.yaml")
    assert params["linear"] == {"lr": None, "epochs": None, "width": 4, "sort": "a b", "on": True}
    assert params["transformer"]["heads"] == 4
    stages = [*read_yaml(project.path / "dvc.yaml")["stages"]]
    names = [*MODELS, "transformer", "linear"]
    assert stages[2 : 2 + len(names)] == [f"train_{name}" for name in names]
    ran = project.dvc("repro")
    assert ran.stages == [
        *("train_linear", "train_transformer", "train_mixture", "evaluate", "sample", "plot")
    ]
    assert "Causal transformer: runs as plain PyTorch, because" in ran.text
    outputs = project.outputs()
    report = outputs["plots/report.html"].decode()
    for name, title in (("transformer", "Causal transformer"), ("linear", "Linear")):
        assert title in report
        assert len(outputs[f"data/samples/{name}.csv"].decode().splitlines()) == 1 + 20
    told = project.dvc("metrics", "show").text
    assert "transformer.test_loss" in told
    checkpoint = project.path / "data/checkpoints/transformer.safetensors"
    checkpoint.unlink()
    for stage in ("train_transformer", "train_mixture", "evaluate", "sample"):
        project.stage(stage)
    assert project.outputs() == outputs, "dropout and rand are seeded"


@pytest.mark.parametrize(
    ("name", "code", "told"),
    [
        ("Mine", None, "'Mine' is not the name of a module"),
        ("mine", None, "charlm/models/mine.py does not exist; write the model there first"),
        ("wavenet", None, "stages/train_wavenet.py exists; the model is already in the pipeline"),
        ("mine", "def broken(:", "charlm/models/mine.py: SyntaxError: "),
        (
            "mine",
            "x = 1",
            "charlm/models/mine.py: ValueError: charlm/models/mine.py defines 0 models",
        ),
        (
            "mine",
            LINEAR.replace("width: int = 4", "width: int"),
            "Linear.__init__ has no default for width; add one",
        ),
    ],
)
def test_a_model_that_cannot_be_added_is_reported_and_nothing_is_written(
    project: Project, name: str, code: str | None, told: str
) -> None:
    if code is not None:
        (project.path / f"charlm/models/{name}.py").write_text(textwrap.dedent(code))
    before = project.git("status", "--short")
    ran = project.run("python", "-m", "pipeline.new_model", name, code=1)
    assert ran.text.startswith("error: ")
    assert told in ran.text
    assert ran.text.count("\n") == 1
    assert project.git("status", "--short") == before


@pytest.mark.parametrize("name", ["attention", "gru", "zoneout", "bidirectional_transformer"])
def test_the_new_stage_is_formatted_as_dvc_formats_it(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models.CausalTransformer, "title", "Attention: all you need")
    text = with_stage((ROOT / "dvc.yaml").read_text("utf-8"), name, models.CausalTransformer)
    yaml, written = YAML(), io.StringIO()
    stages = yaml.load(text)["stages"]
    stage = stages[f"train_{name}"]
    assert stage["desc"] == "Train Attention: all you need"
    for key in ("deps", "params"):
        assert stage[key] == sorted(stage[key])
        assert len(stage[key]) == len(stages["train_wavenet"][key])
    assert name in stage["params"]
    before = YAML().load((ROOT / "dvc.yaml").read_text("utf-8"))["stages"]
    for reader, key, entry in (
        ("plot", "params", name),
        ("train_mixture", "deps", f"data/checkpoints/{name}.safetensors"),
    ):
        assert stages[reader][key] == sorted([*before[reader][key], entry])
    yaml.dump(yaml.load(text), written)
    assert written.getvalue() == text


def test_adding_a_model_twice_is_refused(project: Project) -> None:
    new_model(project, "linear", LINEAR)
    assert "exists; the model is already in the pipeline" in new_model(project, "linear", LINEAR, 1)
    assert Path(ROOT / "stages/train_linear.py").exists() is False
