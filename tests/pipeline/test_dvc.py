"""The pipeline under a real `dvc`, as users run it."""

import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from ruamel.yaml import YAML

from charlm.report.figures import COUNT_MODELS
from tests.conftest import FEW, IN_TURN, MODELS, ROOT, TRAINED, Project, Ran, run_queue
from tests.helpers import refused_here

NAMES, PROBLEMS = (
    " ".join((ROOT / path).read_text(encoding="utf-8").split())
    for path in ("docs/names.md", "docs/troubleshooting.md")
)

DOWNSTREAM = ["train_mixture", "evaluate", "sample", "plot"]

TRAININGS = [stage for stage in IN_TURN if stage.removeprefix("train_") in TRAINED]

CHECKPOINT = "data/checkpoints/{}.safetensors"

TABLES = ("models", "calibration", "loss_by_position", "loss_by_length")
PICTURES = ("losses", "loss_by_parameters", "embeddings")


def first_run(template: Project) -> Ran:
    return Ran(0, (template.path / ".git/first-repro.txt").read_text(encoding="utf-8"))


def metrics(project: Project, name: str) -> dict[str, dict[str, float]]:
    text = (project.path / f"metrics/{name}.json").read_text(encoding="utf-8")
    return json.loads(text)


def test_repro_runs_all_stages_in_order(template: Project) -> None:
    assert first_run(template).stages == IN_TURN


def test_repro_writes_every_output(template: Project) -> None:
    written = template.outputs()
    for path in [
        "data/dataset.safetensors",
        "data/split.safetensors",
        *(f"data/checkpoints/{model}.safetensors" for model in MODELS),
        *(f"data/samples/{model}.csv" for model in MODELS),
        *(f"metrics/{name}.json" for name in ("dataset", "evaluation", "samples")),
        *(f"plots/history/{model}.csv" for model in TRAINED),
        "plots/orders.csv",
        *(f"plots/evaluation/{name}.csv" for name in TABLES),
        *(f"plots/figures/{name}.png" for name in PICTURES),
    ]:
        assert written.get(path), path


def test_the_metrics_are_those_in_the_readme(template: Project) -> None:
    evaluation = metrics(template, "evaluation")
    assert list(evaluation) == MODELS
    compared = ["train_loss", "val_loss", "test_loss", "test_accuracy", "parameters"]
    for model in MODELS:
        assert list(evaluation[model]) == compared
    assert list(metrics(template, "dataset")) == ["names", "characters", "windows"]
    assert metrics(template, "dataset")["names"] == FEW
    samples = metrics(template, "samples")
    assert list(samples) == list(MODELS)
    assert set(samples["fcn"]) == {"unique", "novel"}


def test_the_table_of_models_has_every_metric(template: Project) -> None:
    table = pd.read_csv(template.path / "plots/evaluation/models.csv", index_col="model")
    assert list(table.index) == [*MODELS, *COUNT_MODELS]
    assert list(table.columns) == [
        *("train_loss", "val_loss", "test_loss", "test_loss_stderr", "test_perplexity"),
        *("test_bits_per_character", "test_accuracy", "parameters", "memorized"),
    ]
    for model, values in metrics(template, "evaluation").items():
        assert table.loc[model, list(values)].to_dict() == values


def test_every_row_of_metrics_has_a_number(template: Project) -> None:
    _, _, *rows = template.dvc("metrics", "show", "--md").text.strip().splitlines()
    assert len(rows) == 3
    for row in rows:
        assert re.search(r"\| *\d", row), row


def test_dvc_exp_show_has_a_manageable_number_of_columns(template: Project) -> None:
    """To print the number: python -m pytest -s -n 0 tests/pipeline/test_dvc.py -k columns"""
    header, *_ = csv.reader(template.dvc("exp", "show", "--csv").text.splitlines())
    data = json.loads(template.dvc("exp", "show", "--json").text)[0]["data"]
    deps = set(data["deps"])
    known = {
        kind: {name for file in data[kind].values() for name in leaves(file["data"])}
        for kind in ("metrics", "params")
    }
    columns = {name.rpartition(":")[2] for name in header} - deps
    count = {kind: len(columns & names) for kind, names in known.items()} | {"deps": len(deps)}
    print(f"\n{len(header)} columns: {count}, DVC's own {len(header) - sum(count.values())}")
    assert len(header) <= 122 + 16 * (len(MODELS) - 3)


def leaves(section: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in section.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key


def test_the_history_has_a_row_for_each_epoch(template: Project) -> None:
    with (template.path / "plots/history/fcn.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert all(float(row["train_loss"]) > 0 and float(row["val_loss"]) > 0 for row in rows)
    assert [row["lr"] for row in rows] == ["0.2", "0.2"]


def test_the_samples_have_name_likelihood_and_novelty(template: Project) -> None:
    with (template.path / "data/samples/wavenet.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    names = (template.path / "data/few.txt").read_text(encoding="utf-8").split()
    assert len(rows) == 20
    for row in rows:
        assert row["name"]
        assert float(row["log_likelihood"]) < 0
        assert row["in_training"] == str(row["name"] in names)


def test_repro_again_does_nothing(project: Project) -> None:
    ran = project.dvc("repro")
    assert ran.stages == ran.cached == []
    assert ran.unchanged == IN_TURN
    assert project.git("status", "--short") == ""


def test_changing_lr_and_epochs_trains_again_and_going_back_runs_nothing(
    project: Project, tmp_path: Path
) -> None:
    before = project.outputs()
    ran = project.dvc(
        *("exp", "run", "--name", "slower", "-S", "lr=0.1", "-S", "epochs=1"),
        *("-S", "wavenet.epochs=3", "-S", "training.optimizer=adamw"),
    )
    assert ran.stages == [*TRAININGS, *DOWNSTREAM]
    after = project.outputs()
    assert after != before
    for path in map(CHECKPOINT.format, ("compact", "hybrid")):
        assert after[path] == before[path], "it has an lr, epochs and optimizer of its own"
    lengths = [
        len((project.path / f"plots/history/{model}.csv").read_text().splitlines()) - 1
        for model in ("fcn", "wavenet")
    ]
    assert lengths == [1, 3]

    diff = project.dvc("params", "diff", "--md").text
    assert re.search(r"lr\s*\|\s*0.2\s*\|\s*0.1", diff)
    assert "wavenet.test_loss" in project.dvc("metrics", "diff").text
    shown = project.dvc("exp", "show", "--csv").text
    assert "slower" in shown
    assert "wavenet.test_loss" in shown
    project.commit("Another rate")
    assert_commits_are_compared(project.clone(tmp_path / "clone"))

    project.set(lr="0.2", epochs="2", wavenet__epochs="", training__optimizer="sgd")
    back = project.dvc("repro")
    assert back.stages == []
    assert back.cached == [*TRAININGS, *DOWNSTREAM]
    assert project.outputs() == before


def assert_commits_are_compared(clone: Project) -> None:
    """Check that commits can be compared even in a clone that has pulled nothing."""
    assert list(clone.path.rglob("*.safetensors")) == []
    difference = json.loads(clone.dvc("metrics", "diff", "HEAD~1", "HEAD", "--json").text)
    assert "fcn.test_loss" in difference["metrics/evaluation.json"]
    assert "compact.test_loss" not in difference["metrics/evaluation.json"]
    params = clone.dvc("params", "diff", "HEAD~1", "HEAD").text
    assert "wavenet.epochs" in params
    assert "training.optimizer" in params
    assert float(next(csv.DictReader((clone.path / "plots/history/fcn.csv").open()))["lr"]) == 0.1
    page = clone.dvc("plots", "diff", "HEAD~1", "HEAD", "--out", "page").text.strip()
    html = Path(page.removeprefix("file://")).read_text(encoding="utf-8")
    for title in ("Fully connected net", "Test loss by position in the name"):
        assert title in html
    assert "embeddings.png" in html


@pytest.mark.parametrize(
    ("setting", "trained"),
    [
        pytest.param("fcn.lr=0.05", ["fcn"], marks=pytest.mark.slow),
        pytest.param("compact.lr=0.01", ["compact"], marks=pytest.mark.slow),
        pytest.param("++wavenet.optimizer=adamw", ["wavenet"], marks=pytest.mark.slow),
        pytest.param("training.optimizer=adamw", ["fcn", "wavenet"], marks=pytest.mark.slow),
        pytest.param("epochs=3", ["fcn", "wavenet"], marks=pytest.mark.slow),
    ],
)
def test_a_setting_of_one_model_trains_it_and_a_shared_setting_trains_all(
    project: Project, setting: str, trained: list[str]
) -> None:
    before = project.outputs()
    ran = project.dvc("exp", "run", "-S", setting)
    key, _, value = setting.lstrip("+").partition("=")
    ran_for = TRAINED if key.partition(".")[0] not in MODELS else trained
    wanted = [stage for stage in TRAININGS if stage.removeprefix("train_") in ran_for]
    assert ran.stages == [*wanted, *DOWNSTREAM]
    after = project.outputs()
    changed = [m for m in TRAINED if after[CHECKPOINT.format(m)] != before[CHECKPOINT.format(m)]]
    assert changed == trained, "the others have their own value"
    history = after[f"plots/history/{trained[0]}.csv"].decode()
    epochs = list(csv.DictReader(history.splitlines()))
    if key.endswith("lr"):
        assert epochs[0]["lr"] == value
    assert len(epochs) == (3 if key == "epochs" else 2)


def test_changing_the_sampling_trains_nothing(project: Project) -> None:
    ran = project.dvc("exp", "run", "-S", "sample.temperature=0.5", "-S", "sample.prefix=MA")
    assert ran.stages == ["sample", "plot"]
    samples = (project.path / "data/samples/fcn.csv").read_text(encoding="utf-8").splitlines()
    assert all(line.startswith("MA") for line in samples[1:])


def test_a_changed_list_of_names_is_noticed(project: Project) -> None:
    names = project.path / "data/few.txt"
    names.write_text(names.read_text(encoding="utf-8") + "ZOÉLINE\n", encoding="utf-8")
    assert project.dvc("repro", "split").stages == ["build_dataset", "split"]
    assert metrics(project, "dataset")["names"] == FEW + 1


@pytest.mark.slow
def test_another_list_in_another_script_runs_everything(project: Project) -> None:
    roots = ["ΓΕΩΡΓΙΟΣ", "ΜΑΡΙΑ", "ΝΙΚΟΣ", "ΕΛΕΝΗ", "ΙΩΑΝΝΗΣ"]
    names = [root + ending for root in roots for ending in "ΑΒΓΔΕΖ"]
    table = "rank,name\n" + "".join(f"{rank},{name}\n" for rank, name in enumerate(names))
    (project.path / "greek.csv").write_text(table, encoding="utf-8")
    ran = project.dvc("exp", "run", "-S", "names.path=greek.csv", "-S", "names.column=name")
    assert ran.stages == IN_TURN
    assert metrics(project, "dataset")["names"] == len(names)
    sampled = (project.path / "data/samples/fcn.csv").read_text(encoding="utf-8").splitlines()[1:]
    assert set("".join(line.split(",")[0] for line in sampled)) <= set("".join(names))


COSTLY = [f"train_{model}" for model in MODELS]


@pytest.mark.parametrize(
    ("path", "outdated"),
    [
        ("charlm/names/reading.py", ["build_dataset"]),
        ("charlm/evaluation/metrics.py", ["evaluate"]),
        ("charlm/sampling/sampler.py", ["sample"]),
        ("charlm/report/charts.py", ["plot"]),
        ("charlm/models/fcn.py", ["train_fcn", "train_mixture", "evaluate", "sample"]),
        (
            "charlm/models/compact.py",
            ["train_compact", "train_hybrid", "train_mixture", "evaluate", "sample"],
        ),
        ("charlm/training/trainer.py", COSTLY),
        ("charlm/fast/devices.py", [*COSTLY, "evaluate", "sample"]),
        ("pipeline/put_back.py", []),
        ("stages/train_wavenet.py", ["train_wavenet"]),
    ],
)
def test_an_edit_outdates_the_stages_that_it_may_change(
    project: Project, path: str, outdated: list[str]
) -> None:
    file = project.path / path
    file.write_text(file.read_text(encoding="utf-8") + "\n# edited\n", encoding="utf-8")
    status = json.loads(project.dvc("status", "--json").text)
    assert sorted(status) == sorted(outdated)


def test_edits_outside_the_dependencies_of_trainings_train_nothing(project: Project) -> None:
    """Only the cheap stages run. Their outputs keep the same bytes, so nothing after them runs."""
    before = project.outputs()
    for path in ("names/reading", "evaluation/metrics", "sampling/sampler", "report/charts"):
        with (project.path / f"charlm/{path}.py").open("a", encoding="utf-8") as file:
            file.write("\n# edited\n")
    assert project.dvc("repro").stages == ["build_dataset", "evaluate", "sample", "plot"]
    assert project.outputs() == before
    changed = project.git("status", "--short").split()[1::2]
    assert [path for path in changed if not path.startswith("charlm/")] == ["dvc.lock"]


@pytest.mark.parametrize("stage", ["evaluate", "sample", "plot"])
def test_a_checkpoint_of_an_unknown_model_is_refused(
    project: Project, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = project.outputs()
    file = project.path / "data/checkpoints/gone.safetensors"
    file.write_bytes(b"of a model that was removed")
    line = refused_here(project, stage, monkeypatch)
    name = "data/checkpoints/gone.safetensors"
    assert line == f"error: {name} belongs to no model in params.yaml; delete it"
    file.unlink()
    assert project.outputs() == before


def test_a_removed_model_leaves_no_file_behind(project: Project) -> None:
    more = [project.path / f"{path}/gone.csv" for path in ("data/samples", "plots/figures")]
    for file in more:
        file.write_text("of a model that was removed\n")
    project.dvc("repro", "--force", "--single-item", "sample")
    project.dvc("repro", "--force", "--single-item", "plot")
    assert not any(file.exists() for file in more)


def lock_of(project: Project, revision: str) -> dict[str, str]:
    """Return the MD5 of every output in a revision's dvc.lock, except those with sampled names."""
    if revision != "HEAD":  # the name of an experiment, unknown to git
        shown = json.loads(project.dvc("exp", "show", "--json").text)
        every = [run for row in shown for run in row.get("experiments") or []]
        revision = next(run["revs"][0]["rev"] for run in every if revision == run["name"])
    lock = YAML(typ="safe").load(project.git("show", f"{revision}:dvc.lock"))
    outs = [out for stage in lock["stages"].values() for out in stage["outs"]]
    show_names = ("samples", "report")
    return {o["path"]: o["md5"] for o in outs if not any(word in o["path"] for word in show_names)}


def test_a_key_that_was_added_can_be_added_again(project: Project) -> None:
    """An interrupted experiment leaves it in params.yaml, and the same command must resume."""
    for _ in range(2):
        project.dvc("exp", "run", "--force", "-S", "++fcn.keep=best", "build_dataset")
        assert project.dvc("params", "diff").text.count("fcn.keep") == 1


@pytest.mark.slow
def test_a_queued_grid_runs_two_at_a_time_with_the_same_bytes(project: Project) -> None:
    grid = ["-S", "sample.temperature=0.5,1.5"]
    project.dvc("exp", "run", "--queue", "--force", *grid)
    assert project.dvc("queue", "status").text.count("Queued") == 2
    before = project.outputs()
    run_queue(project, 2)
    shown = json.loads(project.dvc("exp", "show", "--json").text)
    head = next(row for row in shown if row["rev"] != "workspace")
    runs = [experiment["revs"][0] for experiment in head["experiments"]]
    params = [run["data"]["params"]["params.yaml"]["data"] for run in runs]
    assert sorted(p["sample"]["temperature"] for p in params) == [0.5, 1.5]
    for experiment in head["experiments"]:
        assert lock_of(project, experiment["name"]) == lock_of(project, "HEAD")
    assert project.outputs() == before, "the workspace stays as it was"


@pytest.mark.slow
def test_an_experiment_in_a_temporary_folder_leaves_the_workspace_alone(project: Project) -> None:
    before = project.outputs()
    options = ["--temp", "--force", "--name", "aside", "-S", "sample.temperature=0.5"]
    assert project.dvc("exp", "run", *options).stages == IN_TURN
    assert lock_of(project, "aside") == lock_of(project, "HEAD")
    assert project.git("status", "--short") == ""
    assert project.outputs() == before
    project.dvc("exp", "apply", "aside")
    aside = project.outputs()
    assert aside != before
    assert project.dvc("repro", "--force", "--single-item", "sample").stages == ["sample"]
    assert project.outputs() == aside


def test_push_then_pull_and_repro_in_a_fresh_clone_trains_nothing(
    project: Project, tmp_path: Path
) -> None:
    project.dvc("remote", "add", "--default", "storage", str(tmp_path / "storage"))
    project.commit("A remote")
    project.dvc("push")
    clone = project.clone(tmp_path / "clone")
    clone.dvc("pull")
    ran = clone.dvc("repro")
    assert ran.stages == []
    assert clone.outputs() == project.outputs()


def test_the_models_are_artifacts_for_the_registry(project: Project, tmp_path: Path) -> None:
    declared = YAML(typ="safe").load(project.path / "dvc.yaml")["artifacts"]
    its_own = {"fcn", "wavenet", "compact", "hybrid", "kneser_ney", "mixture"}
    assert its_own <= set(declared) <= set(MODELS)
    for model in declared:
        project.git("tag", "--annotate", f"{model}@v1.0.0", "--message", "First version")
        target = tmp_path / f"{model}.safetensors"
        project.dvc("artifacts", "get", ".", model, "--out", str(target))
        checkpoint = project.path / f"data/checkpoints/{model}.safetensors"
        assert target.read_bytes() == checkpoint.read_bytes()
    assert all(artifact["type"] == "model" and artifact["desc"] for artifact in declared.values())


def test_the_graph_has_all_stages(project: Project) -> None:
    drawn = project.dvc("dag", "--dot").text
    for before, after in [
        ("build_dataset", "split"),
        ("split", "train_fcn"),
        ("split", "train_wavenet"),
        ("train_fcn", "evaluate"),
        ("train_wavenet", "evaluate"),
        ("train_wavenet", "sample"),
        ("split", "train_compact"),
        ("train_compact", "evaluate"),
        ("train_compact", "sample"),
        ("train_compact", "train_mixture"),
        ("train_mixture", "evaluate"),
        ("evaluate", "plot"),
    ]:
        assert f'"{before}" -> "{after}"' in drawn
    assert '"train_fcn" -> "train_wavenet"' not in drawn


def test_analytics_are_off(project: Project) -> None:
    assert project.dvc("config", "core.analytics").text.strip() == "false"


@pytest.mark.slow
def test_the_page_quotes_the_messages_of_dvc(
    project: Project,
) -> None:
    for setting, words in {
        "learning_rate=0.1": "To append to your config",
        "sample.lr=0.1": "Could not override",
        "lr=0,1": "Sweep overrides",
        "names.column=Prénom": "LexerNoViableAlt",
        "names.path=data/names (1).txt": "mismatched input",
    }.items():
        assert words in project.dvc("exp", "run", "-S", setting, code=255).text
        assert words in PROBLEMS
    quoted = project.dvc("exp", "run", "-S", "names.column='Prénom'", code=255)
    assert "no column 'Prénom'" in quoted.text
    project.git("checkout", "params.yaml")
    path = "names.path='data/names (1).txt'"
    assert f'-S "{path}"' in NAMES
    assert f'-S "{path}"' in PROBLEMS
    (project.path / "data/few.txt").rename(project.path / "data/names (1).txt")
    project.dvc("exp", "run", "--single-item", "build_dataset", "-S", path)


@pytest.mark.slow
def test_merging_two_experiments_works_as_the_page_says(
    project: Project,
) -> None:
    project.git("switch", "--quiet", "--create", "other")
    for branch, length in (("other", "1"), ("main", "2")):  # so that few names are unique
        project.git("switch", "--quiet", branch)
        project.set(sample__max_length=length)
        project.dvc("repro")
        project.commit(f"Length {length}")
    merged = project.run("git", "merge", "other", code=1)
    for file in ("params.yaml", "dvc.lock", "metrics/samples.json"):
        assert f"Merge conflict in {file}" in merged.text
    assert "unresolved merge conflict" in project.stage("sample", code=1).text
    project.git("checkout", "--theirs", "params.yaml")
    command = "git checkout --theirs dvc.lock metrics plots"
    assert command in PROBLEMS
    project.run(*command.split())
    project.dvc("repro")
    project.commit("Merged")
    assert "up to date" in project.dvc("status").text
    assert project.git("status", "--short") == ""
