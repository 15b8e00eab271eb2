"""Reading and checking params.yaml."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from charlm.core import params as params_module
from charlm.core.errors import InputError
from charlm.core.params import (
    TOP_LEVEL,
    Params,
    Recipe,
    blame,
    check_arguments,
    load_params,
)
from tests.conftest import MODELS, TRAINED
from tests.helpers import ROOT, few, refused, run_python, taken_or_refused

TEXT = (ROOT / "params.yaml").read_text(encoding="utf-8")
DEFAULTS = YAML(typ="safe", pure=True).load(TEXT)
LEAVES = [
    f"{name}.{leaf}" if leaf else name
    for name, value in DEFAULTS.items()
    for leaf in (value if isinstance(value, dict) else [""])
    if leaf or name not in MODELS  # a model's section may be empty
]
OURS = ("fcn", "wavenet", "compact", "hybrid", "kneser_ney", "mixture")
ADDED = {*MODELS} - {*OURS}
"""Models that a user has added."""


def put(folder: Path, text: str) -> Path:
    path = folder / "params.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def line_of(parameter: str) -> int:
    """Return the line number of a parameter in `params.yaml`, from 1."""
    section, _, key = parameter.rpartition(".")
    inside = ""
    for number, line in enumerate(TEXT.splitlines(), start=1):
        found = re.match(r"( *)(\w+):", line)
        if found and not found[1]:
            inside = found[2]
        if found and found[2] == key and (inside == section if section else not found[1]):
            return number
    raise AssertionError(parameter)


def with_value(parameter: str, value: str) -> str:
    """Write `params.yaml` with a new value, as YAML, for one parameter."""
    lines = TEXT.splitlines(keepends=True)
    number = line_of(parameter) - 1
    key, comment = re.fullmatch(r"( *\w+:)[^#]*(#.*)?\n", lines[number]).groups()
    lines[number] = f"{key} {value} {comment or ''}\n"
    return "".join(lines)


def load_with(folder: Path, parameter: str, value: str) -> Params:
    return load_params(put(folder, with_value(parameter, value)))


def test_the_defaults_are_those_of_the_course() -> None:
    params = load_params(ROOT / "params.yaml")
    assert params.seed == 1
    assert params.names.path == "data/prenoms.txt"
    assert params.names.column is None
    assert params.block_size == 8
    assert params.batch_size == 256
    assert params.lr == 0.2
    assert params.epochs == 50
    assert params.device == "auto"
    assert (params.split.by, params.split.train, params.split.val) == ("window", 0.8, 0.1)
    assert (params.fcn.lr, params.fcn.epochs) == (None, None)
    assert (params.fcn.embed_dim, params.fcn.hidden_dim) == (10, 300)
    assert (params.wavenet.lr, params.wavenet.epochs) == (None, None)
    assert (params.wavenet.embed_dim, params.wavenet.hidden_dim) == (10, 128)
    recipe = Recipe(lr=0.2, batch_size=256, epochs=50)  # every other setting is the default
    assert params.recipe("fcn") == params.recipe("wavenet") == recipe
    assert (params.training.threads, params.training.processes) == (1, 1)
    for model in (params.fcn, params.wavenet):
        assert (model.norm, model.dropout) == ("none", 0.0)
    assert (params.sample.count, params.sample.temperature) == (1000, 1.0)
    assert (params.sample.prefix, params.sample.max_length) == ("", 30)


SCHEMA = type(load_params(ROOT / "params.yaml"))
OF_ALL = [
    f"{name}.{leaf}" if leaf else name
    for name, field in SCHEMA.model_fields.items()
    for leaf in getattr(field.annotation, "model_fields", [""])
]
"""The parameters that apply to all models. All of them are required."""


def test_the_file_has_exactly_the_parameters_of_the_schema() -> None:
    assert sorted(OF_ALL) == sorted(name for name in LEAVES if name.partition(".")[0] not in MODELS)


def test_parameters_for_all_models_are_at_the_top() -> None:
    top = ["seed", "block_size", *TOP_LEVEL, "device", "fast"]
    assert list(DEFAULTS)[:7] == top == [*top[:2], "lr", "batch_size", "epochs", "device", "fast"]
    sections = [key for key in DEFAULTS if key in MODELS or isinstance(DEFAULTS[key], dict)]
    assert [key for key in DEFAULTS if key not in sections] == top


@pytest.mark.parametrize(
    "parameter", [each for each in LEAVES if each.partition(".")[0] not in ADDED]
)
def test_every_parameter_has_a_comment_that_says_what_it_is(parameter: str) -> None:
    line = TEXT.splitlines()[line_of(parameter) - 1]
    _, mark, comment = line.partition("#")
    assert mark
    assert len(comment.split()) >= 2


def test_settings_missing_from_a_section_are_shared(tmp_path: Path) -> None:
    text = with_value("training.keep", "best").replace("\nepochs: 50", "\nepochs: 7")
    text = text.replace("\nlr: 0.2", "\nlr: 0.5")
    params = load_params(put(tmp_path, text))
    for model in ("fcn", "wavenet"):
        recipe = params.recipe(model)
        assert recipe == Recipe(lr=0.5, batch_size=256, epochs=7, keep="best")
    text = with_value("training.init", "xavier")
    before = load_params(ROOT / "params.yaml").sized(1, "compact").recipe("compact")
    after = load_params(put(tmp_path, text)).sized(1, "compact").recipe("compact")
    assert after == before.model_copy(update={"init": "xavier"}), "of its own"


def test_the_recipes_of_the_compact_model_and_the_hybrid() -> None:
    params = load_params(ROOT / "params.yaml").sized(192_663, *TRAINED)
    recipe = Recipe(
        lr=0.02,
        batch_size=1024,
        epochs=12,
        optimizer="muon",
        momentum=0.95,
        beta2=0.99,
        weight_decay=0.1,
        scheduler="linear",
        keep="best",
        patience=8,
        average=0.998,
        distill=0.7,
    )
    assert params.recipe("compact") == recipe
    own = {"epochs": 8, "lr_factor": 0.2, "patience": 4, "distill": 0.0}
    assert params.recipe("hybrid") == recipe.model_copy(update=own)
    assert params.arguments("compact") == {"channels": 112, "shared": True}


def test_automatic_values_depend_on_the_number_of_windows() -> None:
    params = load_params(ROOT / "params.yaml")
    sizes = [1, 1000, 10_000, 30_000, 100_000, 200_000, 10**6, 10**9]
    sized = [params.sized(windows, *TRAINED) for windows in sizes]
    epochs = [its.recipe("compact").epochs for its in sized]
    batches = [its.recipe("compact").batch_size for its in sized]
    channels = [its.arguments("compact")["channels"] for its in sized]
    shared = [its.arguments("compact")["shared"] for its in sized]
    dropouts = [its.arguments("hybrid")["dropout"] for its in sized]
    assert epochs == sorted(epochs, reverse=True)
    assert (epochs[0], epochs[-1]) == (60, 4)
    assert batches == sorted(batches)
    assert (batches[0], batches[-1]) == (256, 1024)
    assert channels == sorted(channels)
    assert (channels[0], channels[-1]) == (88, 256)
    assert shared == sorted(shared, reverse=True)
    assert (shared[0], shared[-1]) == (True, False)
    assert dropouts == sorted(dropouts, reverse=True)
    assert (dropouts[0], dropouts[-1]) == (0.3, 0.0)
    assert [its.arguments("hybrid")["members"] for its in sized] == [3, 3, 3, 3, 1, 1, 1, 1]
    assert {its.recipe("fcn").epochs for its in sized} == {50}, "the course's models"
    assert {its.recipe("hybrid").epochs for its in sized} == {8}, "what is given is kept"


@pytest.mark.parametrize("model", ["kneser_ney", "mixture"])
def test_a_training_setting_is_refused_for_a_model_without_training(
    tmp_path: Path, model: str
) -> None:
    text = TEXT.replace(f"\n{model}: ", f"\n{model}:\n  epochs: 3 #")
    with refused("params.yaml, line", f"{model}.epochs has no effect"):
        load_params(put(tmp_path, text))


def test_values_of_one_model_apply_only_to_it(tmp_path: Path) -> None:
    own = load_with(tmp_path, "wavenet.epochs", "40")
    assert own.recipe("wavenet").epochs == 40
    assert own.recipe("fcn").epochs == 50
    own = load_with(tmp_path, "fcn.lr", "0.05")
    assert own.recipe("fcn").lr == 0.05
    assert own.recipe("wavenet").lr == 0.2


OTHERWISE = {
    **{"lr": 0.3, "batch_size": 3, "epochs": 3, "init": "xavier", "optimizer": "adamw"},
    **{"momentum": 0.3, "beta1": 0.3, "beta2": 0.3, "weight_decay": 0.3, "clip_norm": 0.3},
    **{"scheduler": "step", "lr_factor": 0.3, "lr_every": 3, "warmup": 0.2, "keep": "best"},
    **{"patience": 3, "average": 0.3, "distill": 0.3},
}


@pytest.mark.parametrize("setting", Recipe.model_fields)
def test_every_setting_can_be_shared_or_set_for_one_model(tmp_path: Path, setting: str) -> None:
    default = load_params(ROOT / "params.yaml").sized(1, *TRAINED)
    value, full = OTHERWISE[setting], setting if setting in TOP_LEVEL else f"training.{setting}"
    shared = load_with(tmp_path, full, str(value)).sized(1, *TRAINED)
    for model in TRAINED:
        is_shared = DEFAULTS[model].get(setting) is None
        assert shared.origin(model, setting) == (full if is_shared else f"{model}.{setting}")
        expected = value if is_shared else getattr(default.recipe(model), setting)
        recipe = default.recipe(model).model_copy(update={setting: expected})
        assert shared.recipe(model) == recipe

    lines = re.sub(rf"(?m)^  {setting}:.*\n", "", TEXT[TEXT.index("\nfcn:") :])
    for empty, own in ((value, ""), ("", value)):  # in the section of the net, or of the WaveNet
        sections = lines.replace("\nfcn:", f"\nfcn:\n  {setting}: {empty} #", 1)
        sections = sections.replace("\nwavenet:", f"\nwavenet:\n  {setting}: {own} #", 1)
        params = load_params(put(tmp_path, TEXT[: TEXT.index("\nfcn:")] + sections)).sized(
            1, *TRAINED
        )
        changed = default.recipe("fcn").model_copy(update={setting: value})
        assert params.recipe("wavenet" if own else "fcn") == changed
        assert params.recipe("fcn" if own else "wavenet") == default.recipe("fcn")
        assert params.arguments("fcn") == default.arguments("fcn")


def test_the_arguments_of_a_model_are_those_of_its_constructor() -> None:
    params = load_params(ROOT / "params.yaml")
    plain = {"embed_dim": 10, "norm": "none", "dropout": 0.0}
    assert params.arguments("fcn") == {"hidden_dim": 300, **plain}
    assert params.arguments("wavenet") == {"hidden_dim": 128, **plain}
    assert params.arguments("compact") == {"channels": "auto", "shared": "auto"}
    assert params.arguments("kneser_ney") == {"order": None}
    assert params.arguments("mixture") == {}


def test_the_models_are_in_the_order_of_their_sections(tmp_path: Path) -> None:
    assert load_params(ROOT / "params.yaml").models[:3] == ["fcn", "wavenet", "compact"]
    backwards = in_one_line(dict(reversed(DEFAULTS.items())))
    assert load_params(put(tmp_path, backwards)).models == MODELS[::-1]


def test_a_recipe_can_be_created_directly() -> None:
    recipe = Recipe(lr=1, batch_size=2, epochs=3)
    assert recipe == Recipe(lr=1.0, batch_size=2, epochs=3, clip_norm=None, optimizer="sgd")
    assert recipe != Recipe(lr=1.0, batch_size=2, epochs=3, optimizer="adamw")
    assert len({recipe, Recipe(lr=1, batch_size=2, epochs=3)}) == 1
    with pytest.raises(ValueError, match="frozen"):
        recipe.lr = 2.0
    for wrong in ({"lr": -1.0}, {"optimizer": "adam"}, {"epochs": 1.5}, {"momntum": 0.9}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Recipe(**{"lr": 1.0, "batch_size": 2, "epochs": 3, **wrong})


def test_reading_parameters_does_not_import_torch() -> None:
    code = "import sys, charlm.core.params; print({'torch', 'numpy'} & sys.modules.keys())"
    assert run_python(code) == "set()\n"


@pytest.mark.parametrize(
    ("value", "number"), [("1e-3", 0.001), ("1E-3", 0.001), ("1", 1.0), (".5", 0.5), ("2.5e2", 250)]
)
def test_numbers_follow_yaml_1_2(tmp_path: Path, value: str, number: float) -> None:
    assert load_with(tmp_path, "lr", value).lr == number


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("seed", "0"),
        ("seed", str(2**63 - 1)),
        ("names.column", "prénom"),
        ("names.column", '"1"'),
        ("names.column", "1"),
        ("block_size", "1"),
        ("block_size", "1024"),
        ("lr", "1e38"),
        ("device", "cuda"),
        ("split.by", "name"),
        ("sample.prefix", ""),
        ("sample.prefix", "null"),
        ("sample.prefix", "MARIE"),
        ("sample.prefix", '" "'),
        ("sample.temperature", "100"),
    ],
)
def test_values_at_the_edge_of_the_range_are_accepted(
    tmp_path: Path, parameter: str, value: str
) -> None:
    load_with(tmp_path, parameter, value)


MAY_BE_EMPTY = [
    "names.column", "training.clip_norm", "training.patience",
    "kneser_ney.order",
    *(f"{model}.{key}" for model in ("fcn", "wavenet") for key in ("lr", "epochs")),
]  # fmt: skip
SHARED_IF_EMPTY = [
    name
    for name in LEAVES
    if name.partition(".")[0] in MODELS and name.partition(".")[2] in Recipe.model_fields
]


@pytest.mark.parametrize("parameter", MAY_BE_EMPTY)
@pytest.mark.parametrize("value", ["", "null", "''"])
def test_every_form_of_an_empty_value_means_empty(
    tmp_path: Path, parameter: str, value: str
) -> None:
    """`-S fcn.lr=` writes an empty string."""
    assert load_with(tmp_path, parameter, value) == load_params(ROOT / "params.yaml")


MAY_BE_0 = {"seed", "order", "momentum", "beta1", "beta2", "weight_decay", "average", "dropout"}
MAY_BE_0 |= {"distill"}
MAY_BE_ABOVE_1 = {"lr", "temperature", "weight_decay", "clip_norm"}


def leaf(parameter: str) -> str:
    return parameter.rpartition(".")[2]


WRONG_TYPES = [
    (parameter, value)
    for parameter in LEAVES
    for value in ["[1]", "{a: 1}", "true", "2001-01-01", "'text'", "''", "1.5", "-1", "0", ".nan"]
    if not (parameter in {"names.path", "names.column"} and value == "'text'")
    and not (parameter in {"fast", "names.header", "compact.shared"} and value == "true")
    and not (parameter == "sample.prefix" and value == "'text'")
    and not (parameter in {"sample.prefix", *MAY_BE_EMPTY, *SHARED_IF_EMPTY} and value == "''")
    and not (leaf(parameter) in MAY_BE_ABOVE_1 and value == "1.5")
    and not (leaf(parameter) in MAY_BE_0 and value == "0")
]


@pytest.mark.parametrize("parameter", LEAVES)
def test_every_error_names_file_line_and_parameter(tmp_path: Path, parameter: str) -> None:
    path = tmp_path / "params.yaml"
    for value in (value for name, value in WRONG_TYPES if name == parameter):
        with refused(f"{path}, line {line_of(parameter)}: {parameter} is ", "it must be "):
            load_with(tmp_path, parameter, value)


@pytest.mark.parametrize(
    ("parameter", "value", "expected"),
    [
        ("seed", str(2**63), "from 0 to 2**63 - 1"),
        ("seed", "1.0", "integer"),
        ("seed", "", "seed is empty"),
        ("seed", "'1'", "seed is '1'"),
        ("block_size", "6", "a power of two"),
        ("block_size", "2048", "1024"),
        ("batch_size", "0", "a positive integer"),
        ("batch_size", "256.0", "a positive integer"),
        ("lr", "0", "a positive number"),
        ("lr", ".inf", "such as 0.2"),
        ("lr", "1e39", "up to 1e38"),
        ("lr", "0,2", "such as 0.2"),
        ("epochs", "2147483648", "a positive integer"),
        ("device", "gpu", "auto, cpu, cuda or mps"),
        ("training.threads", "0", "from 1 to 1024"),
        ("training.init", "zeros", "it must be torch, xavier or kaiming"),
        ("training.clip_norm", "0", "such as 1.0, or empty"),
        ("compact.optimizer", "adam", "sgd, adamw or muon, or empty for the shared optimizer"),
        ("split.by", "names", "window or name"),
        ("split.train", "80", "between 0 and 1"),
        ("split.val", "1", "between 0 and 1"),
        ("fcn.lr", "0", "empty for the shared lr"),
        ("fcn.epochs", "0", "empty for the shared epochs"),
        ("fcn.norm", "batch", "it must be none or layer"),
        ("wavenet.hidden_dim", "", "an integer from 1 to 1,048,576"),
        ("names.path", "", "the path of a list of names"),
        ("names.column", "0", "in quotes"),
        ("names.column", "1.0", "a positive integer"),
        ("sample.temperature", "0", "a positive number"),
        ("sample.prefix", "007", "in quotes"),
        ("sample.max_length", "no", "an integer from 1"),
    ],
)
def test_an_error_says_what_to_give_instead(
    tmp_path: Path, parameter: str, value: str, expected: str
) -> None:
    path = tmp_path / "params.yaml"
    with refused(f"{path}, line {line_of(parameter)}: {parameter} is ", expected):
        load_with(tmp_path, parameter, value)


def test_a_long_value_is_shortened_in_the_error(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        load_with(tmp_path, "lr", '"' + 10_000 * "x" + '"')
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(("train", "val"), [("0.9", "0.1"), ("0.7", "0.3"), ("0.9", "0.9")])
def test_a_split_that_leaves_no_test_set_is_refused(tmp_path: Path, train: str, val: str) -> None:
    text = TEXT.replace("train: 0.8", f"train: {train}").replace("val: 0.1", f"val: {val}")
    line = line_of("split.by") - 1
    with refused(f"line {line}:", f"split.train {train}", f"split.val {val}", "no test set"):
        load_params(put(tmp_path, text))


@pytest.mark.parametrize(
    ("written", "nearest"),
    [
        ("batchsize", "batch_size"),
        ("epoch", "epochs"),
        ("hidden_dim", "fcn.hidden_dim"),
        ("temperature", "sample.temperature"),
        ("Seed", "seed"),
        ("wavenet_hidden_dim", "wavenet.hidden_dim"),
        ("optimizer", "training.optimizer"),
        ("traning", "training"),
        ("fnc", "fcn"),
    ],
)
def test_an_unknown_parameter_is_refused_with_the_nearest(
    tmp_path: Path, written: str, nearest: str
) -> None:
    path = put(tmp_path, f"{TEXT}{written}: 1\n")
    last = len(TEXT.splitlines()) + 1
    with refused(f"{path}, line {last}: unknown parameter {written}; did you mean {nearest}?"):
        load_params(path)


@pytest.mark.parametrize(
    ("parameter", "written", "nearest"),
    [
        ("names.path", "pth", "names.path"),
        ("training.optimizer", "optimiser", "training.optimizer"),
        ("training.init", "lr", "lr"),
        ("sample.prefix", "split", "split"),
    ],
)
def test_an_unknown_parameter_in_a_section_is_refused_with_the_nearest(
    tmp_path: Path, parameter: str, written: str, nearest: str
) -> None:
    section, _, key = parameter.rpartition(".")
    start = TEXT.index(f"\n{section}:")
    path = put(tmp_path, TEXT[:start] + TEXT[start:].replace(f"  {key}:", f"  {written}:", 1))
    where = f"{path}, line {line_of(parameter)}: unknown parameter {section}.{written}"
    with refused(f"{where}; did you mean {nearest}?"):
        load_params(path)


@pytest.mark.parametrize("parameter", OF_ALL)
def test_a_missing_parameter_is_named(tmp_path: Path, parameter: str) -> None:
    lines = TEXT.splitlines(keepends=True)
    del lines[line_of(parameter) - 1]
    with refused(tmp_path / "params.yaml", f"{parameter} is missing; it must be "):
        load_params(put(tmp_path, "".join(lines)))


@pytest.mark.parametrize("section", [name for name in DEFAULTS if isinstance(DEFAULTS[name], dict)])
@pytest.mark.parametrize("value", ["", "3", "[1, 2]", "text"])
def test_a_section_that_is_not_a_mapping_is_refused(
    tmp_path: Path, section: str, value: str
) -> None:
    path = put(tmp_path, in_one_line({**DEFAULTS, section: "@"}).replace('"@"', value))
    if section in MODELS and value == "":
        params = load_params(path)  # no settings of its own, and the constructor's defaults
        assert params.recipe(section) == Recipe(lr=0.2, batch_size=256, epochs=50)
        assert params.arguments(section) == {}
        return
    keys = SCHEMA.model_fields[section].annotation.model_fields if section not in MODELS else ()
    expected = f"a section with the keys {', '.join(keys)}" if keys else "training settings"
    with refused(path, f"{section} is ", expected):
        load_params(path)


def in_one_line(values: dict[str, Any]) -> str:
    """Return the parameters as YAML, with one section per line."""
    return "".join(f"{name}: {json.dumps(value)}\n" for name, value in values.items())


@pytest.mark.parametrize("text", ["", "# nothing\n", "- 1\n- 2\n", "text", "3", "null"])
def test_a_file_that_is_not_a_mapping_is_refused(tmp_path: Path, text: str) -> None:
    with refused(tmp_path / "params.yaml", "a mapping of parameters"):
        load_params(put(tmp_path, text))


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (TEXT + "seed: 2\n", len(TEXT.splitlines()) + 1),
        (TEXT.replace("  embed_dim: 10", "  lr: 1", 1), line_of("fcn.embed_dim")),
        (TEXT + "a: b: c\n", len(TEXT.splitlines()) + 1),
        (TEXT.replace("seed: 1 ", "seed: [1 "), None),
        (TEXT.replace("seed: 1 ", "seed: 'x "), None),
        (TEXT.replace("seed: 1 ", "seed: *x "), line_of("seed")),
        (TEXT.replace("seed: 1 ", "seed: !x 1 "), line_of("seed")),
        (TEXT + "\t\n", None),
        (TEXT + "---\nseed: 1\n", len(TEXT.splitlines()) + 1),
    ],
    ids=[
        "repeated parameter",
        "repeated in a section",
        "two colons",
        "open list",
        "open quote",
        "unknown alias",
        "unknown tag",
        "tab",
        "second document",
    ],
)
def test_invalid_yaml_is_refused(tmp_path: Path, text: str, line: int | None) -> None:
    place = f", line {line}: not valid YAML" if line else ", line "
    with refused(f"{tmp_path / 'params.yaml'}{place}"):
        load_params(put(tmp_path, text))


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with refused(tmp_path / "none.yaml", "does not exist", "git checkout"):
        load_params(tmp_path / "none.yaml")


@pytest.mark.parametrize("content", [b"seed: \xff\n", b"seed: \0\n"])
def test_a_file_that_is_not_text_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(content)
    with refused(path, "cannot be read"):
        load_params(path)


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with refused(tmp_path, "cannot be read"):
        load_params(tmp_path)


@pytest.mark.parametrize(
    "text",
    [TEXT.replace("\n", "\r\n"), "\ufeff" + TEXT, in_one_line(DEFAULTS)],
    ids=["CRLF", "byte order mark", "sections in a line"],
)
def test_equivalent_yaml_gives_the_same_values(tmp_path: Path, text: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(text.encode())
    assert load_params(path) == load_params(ROOT / "params.yaml")


def test_parameters_are_immutable() -> None:
    params = load_params(ROOT / "params.yaml")
    with pytest.raises(ValueError, match="frozen"):
        params.seed = 2


@pytest.mark.parametrize("value", ["2001-99-99", "2001-12-14t99:59:43.10-05:00"])
def test_an_invalid_date_is_refused(tmp_path: Path, value: str) -> None:
    with refused(tmp_path / "params.yaml"):
        load_with(tmp_path, "names.column", value)


@pytest.mark.parametrize("value", ["1" * 5000, "0x" + "f" * 5000], ids=["decimal", "hexadecimal"])
def test_a_number_of_thousands_of_digits_is_refused(tmp_path: Path, value: str) -> None:
    with refused(tmp_path / "params.yaml"):
        load_with(tmp_path, "seed", value)


@pytest.mark.parametrize("value", ["!!int x", "!!float x", "!!bool x"])
def test_a_tag_that_does_not_fit_its_value_is_refused(tmp_path: Path, value: str) -> None:
    with refused(tmp_path / "params.yaml"):
        load_with(tmp_path, "seed", value)


def test_lists_nested_too_deeply_are_refused(tmp_path: Path) -> None:
    with refused(tmp_path / "params.yaml"):
        load_with(tmp_path, "seed", "[" * 900 + "]" * 900)


def test_the_error_for_an_unknown_parameter_with_a_newline_is_one_line(tmp_path: Path) -> None:
    with refused(tmp_path / "params.yaml", "unknown parameter"):
        load_params(put(tmp_path, TEXT + '"a\\nb": 1\n'))


def test_the_error_for_a_repeated_parameter_with_a_newline_is_one_line(tmp_path: Path) -> None:
    with refused(tmp_path / "params.yaml", "seed"):
        load_params(put(tmp_path, TEXT + 'seed: "a\\nb"\n'))


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
).map(json.dumps)
PLANE_0 = st.characters(max_codepoint=0xD7FF)
"""Characters that JSON writes as one escape."""
PLAIN = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), max_size=12)


@settings(few, max_examples=150)
@given(st.sampled_from([*LEAVES, *DEFAULTS]), VALUES | PLAIN)
@example("fcn", '{"lr": null, "epochs": null, "embed_dim": 10, "hidden_dim": 300, "é": 1}')
@example("fcn", "{1: 2, null: 3, [a, b]: 4}")
@example("sample", "{1: 2, null: 3, [a, b]: 4}")
@example("names", "&x {path: *x, column: *x}")
@example("seed", "{? [1] : 2, <<: {a: 1}}")
@example("split", '{by: window, train: "0.8", val: 0.1}')
@example("names.path", '"\\ud800"')
@example("seed", "!!binary aGk=")
@example("seed", "!!set {a, b}")
def test_any_value_is_accepted_or_refused_in_one_line(
    tmp_path_factory: pytest.TempPathFactory, parameter: str, value: str
) -> None:
    name, _, leaf = parameter.partition(".")
    replaced = {**DEFAULTS, name: {**DEFAULTS[name], leaf: "@"} if leaf else "@"}
    path = put(tmp_path_factory.mktemp("params"), in_one_line(replaced).replace('"@"', value))
    params = taken_or_refused(lambda: load_params(path), path)
    assert params is None or isinstance(params, Params)


def blamed(parameter: str, path: Path) -> str:
    with pytest.raises(InputError) as caught, blame(parameter, path):
        raise InputError("there is none; take another")
    return str(caught.value)


def test_blame_names_the_file_and_line_of_the_parameter() -> None:
    path = ROOT / "params.yaml"
    lines = path.read_text(encoding="utf-8").splitlines()
    for parameter in ("device", "names", "split", "sample.prefix", "wavenet.hidden_dim"):
        message = blamed(parameter, path)
        number = int(message.removeprefix(f"{path}, line ").partition(":")[0])
        assert lines[number - 1].strip().startswith(parameter.rpartition(".")[2] + ":")
        assert message.endswith(f": {parameter}: there is none; take another")


def test_blame_raises_no_error_of_its_own(tmp_path: Path) -> None:
    with blame("device", tmp_path / "never read"):
        pass
    with pytest.raises(ZeroDivisionError), blame("device", tmp_path / "never read"):
        _ = 1 / 0


@pytest.fixture
def _one_more_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretend that `charlm.models` has a module `more`."""
    monkeypatch.setattr(params_module, "model_modules", lambda: [*MODELS, "more"])


MORE = f"{TEXT}\nmore:\n  lr: 0.1\n  embed_dim: 7\n  rank: 3\n  kind: low\n  keep: best\n"


@pytest.mark.usefixtures("_one_more_model")
def test_an_added_model_has_the_settings_of_its_section(tmp_path: Path) -> None:
    params = load_params(put(tmp_path, MORE))
    assert params.models == [*MODELS, "more"]
    assert params.recipe("more") == Recipe(lr=0.1, batch_size=256, epochs=50, keep="best")
    assert params.arguments("more") == {"embed_dim": 7, "rank": 3, "kind": "low"}
    assert params == load_params(put(tmp_path, MORE))
    assert params.recipe("fcn") == Recipe(lr=0.2, batch_size=256, epochs=50)


@pytest.mark.usefixtures("_one_more_model")
@pytest.mark.parametrize("value", ["0.5", "-3", "low", "true", "null", "''", "1e3"])
def test_an_argument_may_be_any_number_string_or_boolean(tmp_path: Path, value: str) -> None:
    params = load_params(put(tmp_path, MORE.replace("rank: 3", f"rank: {value}")))
    assert params.arguments("more")["rank"] == YAML(typ="safe", pure=True).load(value)


@pytest.mark.usefixtures("_one_more_model")
@pytest.mark.parametrize(
    ("written", "instead", "expected"),
    [
        ("  lr: 0.1", "  lr: -1", "more.lr is -1; it must be a positive number"),
        ("  embed_dim: 7", "  embed_dim: 0", "more.embed_dim is 0; it must be an integer"),
        ("  embed_dim: 7", "  embed_dim:", "more.embed_dim is empty; it must be an integer"),
        ("  embed_dim: 7", "  batch_size: 0", "more.batch_size is 0; it must be a positive"),
        ("  embed_dim: 7", "  scheduler: no", "more.scheduler is 'no'; it must be none, lambda"),
        ("  rank: 3", "  rank: [3]", "more.rank is [3]; it must be a number, a string, true"),
        ("  rank: 3", "  rank: .nan", "more.rank is nan; it must be a number, a string, true"),
        (
            "  rank: 3",
            "  threads: 3",
            "more.threads cannot be set for a single model; set training.threads",
        ),
        ("  rank: 3", "  seed: 3", "more.seed cannot be set for a single model; set seed"),
        ("\nmore:", "\nmoer:", "unknown parameter moer; did you mean more?"),
        (
            "\nmore:",
            "\nxyz:",
            "there is no model xyz; write charlm/models/xyz.py, or remove the section",
        ),
        (MORE[len(TEXT) :], "", "no section for charlm/models/more.py; add one"),
        (MORE[len(TEXT) :], "more: 3\n", "more is 3; it must be a section with constructor arg"),
    ],
)  # fmt: skip
def test_a_mistake_in_the_section_of_an_added_model_is_reported(
    tmp_path: Path, written: str, instead: str, expected: str
) -> None:
    assert MORE.count(written) >= 1
    text = TEXT + MORE[len(TEXT) :].replace(written, instead)
    with refused(tmp_path / "params.yaml", expected):
        load_params(put(tmp_path, text))


def test_a_model_with_the_name_of_a_parameter_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(params_module, "model_modules", lambda: [*MODELS, "sample"])
    with refused("charlm/models/sample.py has the name of a parameter", "rename it"):
        load_params(put(tmp_path, TEXT))


def test_every_model_has_a_module_and_a_section() -> None:
    modules = {path.stem for path in (ROOT / "charlm/models").glob("*.py")}
    assert set(MODELS) == modules - {"__init__", "base"}
    assert set(MODELS) <= set(DEFAULTS)


def model(*, vocab_size: int, block_size: int, embed_dim: int, heads: int = 2) -> None:
    """A constructor like those of models."""


def model_of_anything(*, embed_dim: int, **others: int) -> None:
    """A constructor with **kwargs."""


def model_of_no_data(*, vocab: int, block_size: int, embed_dim: int) -> None:
    """A constructor with another name for an argument that comes from the data."""


def model_of_a_setting(*, vocab_size: int, block_size: int, momentum: float) -> None:
    """A constructor with the name of a training setting as an argument."""


def model_of_the_seed(*, vocab_size: int, block_size: int, seed: int = 1) -> None:
    """A constructor with the name of a parameter for all models as an argument."""


@pytest.mark.parametrize(
    ("constructor", "written", "expected"),
    [
        (model, "embd_dim: 7", "line 12: m.embd_dim: model has no argument embd_dim; did you"),
        (model, "epoch: 7", "line 12: m.epoch: model has no argument epoch; did you mean epochs?"),
        (model, "wat: 7", "line 12: m.wat: model has no argument wat; its arguments are embed_"),
        (model, "vocab_size: 7", "line 12: m.vocab_size: vocab_size comes from the data; remove"),
        (model, "heads: 7", "line 11: m: model requires embed_dim; add it to the section"),
        (model_of_no_data, "embed_dim: 1", "line 11: m: model_of_no_data must take vocab_size and"),
        (model_of_a_setting, "rank: 1", "line 11: m: model_of_a_setting has an argument momentum,"),
        (model_of_the_seed, "rank: 1", "line 11: m: model_of_the_seed has an argument seed, but"),
    ],
)  # fmt: skip
def test_a_section_that_does_not_fit_the_constructor_is_reported(
    tmp_path: Path, constructor: Any, written: str, expected: str
) -> None:
    path = put(tmp_path, "\n" * 10 + f"m:\n  {written}\n")
    with refused(f"{path}, {expected}"):
        check_arguments("m", constructor, [written.partition(":")[0]], path)


@pytest.mark.parametrize("given", [["embed_dim"], ["embed_dim", "heads"]])
def test_a_section_that_fits_the_constructor_is_accepted(tmp_path: Path, given: list[str]) -> None:
    check_arguments("m", model, given, tmp_path / "never read")
    check_arguments("m", model_of_anything, [*given, "more"], tmp_path / "never read")


@pytest.mark.usefixtures("_one_more_model")
@settings(few, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(section={"_rank": 1})
@example(section={"model_dump": 1})
@example(section={"model_extra": 1})
@example(section={"rank": 10**400})
@example(section={"": 1})
@example(section={"__class__": 1})
@given(
    section=st.dictionaries(
        st.text(PLANE_0, max_size=8), st.integers() | st.text(PLANE_0), max_size=3
    )
)
def test_any_section_of_an_added_model_is_accepted_or_refused_in_one_line(
    tmp_path: Path, section: dict[str, int | str]
) -> None:
    text = f"{TEXT}\nmore: {json.dumps({'lr': 1.0, 'epochs': 2, **section})}\n"
    params = taken_or_refused(lambda: load_params(put(tmp_path, text)), tmp_path)
    if params is not None and not section.keys() & Recipe.model_fields.keys():
        assert params.arguments("more") == section


def test_a_merge_conflict_is_reported(tmp_path: Path) -> None:
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    ours, theirs = "lr: 0.2", "lr: 0.1"
    conflict = f"<<<<<<< HEAD\n{ours}\n=======\n{theirs}\n>>>>>>> other\n"
    file = tmp_path / "params.yaml"
    file.write_text(text.replace("lr: 0.2", f"{conflict}# ", 1), encoding="utf-8")
    line = text[: text.index("lr: 0.2")].count("\n") + 1
    with refused(f"{file}, line {line}: unresolved merge conflict", "keep one", "<<<<<<<"):
        load_params(file)
