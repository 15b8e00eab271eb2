"""Reading and checking params.yaml."""

import json
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from charlm.core import params as params_module
from charlm.core.errors import InputError
from charlm.core.params import MODELS, Params, Section, Training, blame, load_params
from charlm.core.recipe import Recipe
from tests.helpers import ROOT, few, refused, taken_or_refused

TEXT = (ROOT / "params.yaml").read_text(encoding="utf-8")
DEFAULTS = YAML(typ="safe", pure=True).load(TEXT)
LEAVES = [
    f"{name}.{leaf}" if leaf else name
    for name, value in DEFAULTS.items()
    for leaf in (value if isinstance(value, dict) else [""])
]


def put(folder: Path, text: str) -> Path:
    path = folder / "params.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def line_of(parameter: str) -> int:
    """The line of `params.yaml` that a parameter stands in, from 1."""
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
    """`params.yaml` with another value, as YAML, for one parameter."""
    lines = TEXT.splitlines(keepends=True)
    number = line_of(parameter) - 1
    key, comment = re.fullmatch(r"( *\w+:)[^#]*(#.*)?\n", lines[number]).groups()
    lines[number] = f"{key} {value} {comment or ''}\n"
    return "".join(lines)


def load_with(folder: Path, parameter: str, value: str) -> Params:
    return load_params(put(folder, with_value(parameter, value)))


def test_the_defaults_are_the_courses() -> None:
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
    recipe = Recipe(lr=0.2, batch_size=256, epochs=50)  # and nothing else
    assert params.model("fcn").recipe == params.model("wavenet").recipe == recipe
    plain = {"norm": "none", "dropout": 0.0}
    assert params.fcn.model_dump(include=set(plain)) == plain
    assert params.wavenet.model_dump(include=set(plain)) == plain
    assert (params.sample.count, params.sample.temperature) == (1000, 1.0)
    assert (params.sample.prefix, params.sample.max_length) == ("", 30)


def test_the_file_holds_every_parameter_and_no_other() -> None:
    known = [
        f"{name}.{leaf}" if leaf else name
        for name, field in type(load_params(ROOT / "params.yaml")).model_fields.items()
        for leaf in getattr(field.annotation, "model_fields", [""])
    ]
    assert sorted(known) == sorted(LEAVES)


@pytest.mark.parametrize("parameter", LEAVES)
def test_every_parameter_has_a_comment_that_says_what_it_is(parameter: str) -> None:
    line = TEXT.splitlines()[line_of(parameter) - 1]
    _, mark, comment = line.partition("#")
    assert mark
    assert len(comment.split()) >= 2


def test_what_a_model_leaves_empty_is_shared(tmp_path: Path) -> None:
    params = load_params(ROOT / "params.yaml")
    for model in ("fcn", "wavenet"):
        assert params.model(model).recipe == Recipe(lr=0.2, batch_size=256, epochs=50)
    compact = params.model("compact")
    text = with_value("lr", "0.5").replace("\nepochs: 50", "\nepochs: 7")
    params = load_params(put(tmp_path, text))
    for model in ("fcn", "wavenet"):
        recipe = params.model(model).recipe
        assert (recipe.lr, recipe.epochs) == (0.5, 7)
    assert params.model("compact") == compact, "it has values of its own"


def test_a_models_own_values_hold_for_it_alone(tmp_path: Path) -> None:
    own = load_with(tmp_path, "wavenet.epochs", "40")
    assert own.model("wavenet").recipe.epochs == 40
    assert own.model("fcn").recipe.epochs == 50
    own = load_with(tmp_path, "fcn.lr", "0.05")
    assert own.model("fcn").recipe.lr == 0.05
    assert own.model("wavenet").recipe.lr == 0.2


def test_a_models_settings_are_what_its_constructor_takes() -> None:
    params = load_params(ROOT / "params.yaml")
    plain = {"embed_dim": 10, "norm": "none", "dropout": 0.0}
    assert params.model("fcn").hyperparameters == {"hidden_dim": 300, **plain}
    assert params.model("wavenet").hyperparameters == {"hidden_dim": 128, **plain}
    assert set(params.model("compact").hyperparameters) == {"channels", "dropout"}
    assert MODELS[:3] == ("fcn", "wavenet", "compact")


def test_a_recipe_is_what_params_yaml_says_of_training() -> None:
    assert [field.name for field in fields(Recipe)] == list(Training.model_fields)


@pytest.mark.parametrize(
    ("value", "number"), [("1e-3", 0.001), ("1E-3", 0.001), ("1", 1.0), (".5", 0.5), ("2.5e2", 250)]
)
def test_numbers_are_those_of_yaml_1_2(tmp_path: Path, value: str, number: float) -> None:
    assert load_with(tmp_path, "lr", value).lr == number


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("seed", "0"),
        ("seed", str(2**63 - 1)),
        ("names.column", "prénom"),
        ("names.column", '"1"'),
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
def test_values_at_the_edge_of_the_range_are_taken(
    tmp_path: Path, parameter: str, value: str
) -> None:
    load_with(tmp_path, parameter, value)


MAY_BE_EMPTY = [
    "names.column", "clip_norm", "patience", "compact.clip_norm", "compact.patience",
    *(f"{model}.{key}" for model in MODELS if model != "compact" for key in ("lr", "epochs")),
]  # fmt: skip


@pytest.mark.parametrize("parameter", MAY_BE_EMPTY)
@pytest.mark.parametrize("value", ["", "null", "''"])
def test_empty_is_empty_however_dvc_writes_it(tmp_path: Path, parameter: str, value: str) -> None:
    """`-S fcn.lr=` writes an empty text."""
    assert load_with(tmp_path, parameter, value) == load_params(ROOT / "params.yaml")


MAY_BE_0 = {"seed", "momentum", "beta1", "beta2", "weight_decay", "average", "dropout"}
MAY_BE_ABOVE_1 = {"lr", "temperature", "weight_decay", "clip_norm"}


def leaf(parameter: str) -> str:
    return parameter.rpartition(".")[2]


WRONG_TYPES = [
    (parameter, value)
    for parameter in LEAVES
    for value in ["[1]", "{a: 1}", "true", "2001-01-01", "'text'", "''", "1.5", "-1", "0", ".nan"]
    if not (parameter in {"names.path", "names.column"} and value == "'text'")
    and not (parameter == "sample.prefix" and value == "'text'")
    and not (parameter in {"sample.prefix", *MAY_BE_EMPTY} and value == "''")
    and not (leaf(parameter) in MAY_BE_ABOVE_1 and value == "1.5")
    and not (leaf(parameter) in MAY_BE_0 and value == "0")
]


@pytest.mark.parametrize("parameter", LEAVES)
def test_an_error_names_file_line_and_parameter_whatever_is_wrong(
    tmp_path: Path, parameter: str
) -> None:
    path = tmp_path / "params.yaml"
    for value in (value for name, value in WRONG_TYPES if name == parameter):
        with refused(f"{path}, line {line_of(parameter)}: {parameter} is ", "it must be "):
            load_with(tmp_path, parameter, value)


@pytest.mark.parametrize(
    ("parameter", "value", "expected"),
    [
        ("seed", str(2**63), "from 0 to 2**63 - 1"),
        ("seed", "1.0", "whole number"),
        ("seed", "", "seed is empty"),
        ("seed", "'1'", "seed is '1'"),
        ("block_size", "6", "a power of two"),
        ("block_size", "2048", "1024"),
        ("batch_size", "0", "at least 1"),
        ("batch_size", "256.0", "whole number"),
        ("lr", "0", "above 0"),
        ("lr", ".inf", "such as 0.2"),
        ("lr", "1e39", "up to 1e38"),
        ("lr", "0,2", "such as 0.2"),
        ("epochs", "2147483648", "whole number"),
        ("device", "gpu", "auto, cpu, cuda or mps"),
        ("threads", "0", "from 1 to 1024"),
        ("split.by", "names", "window or name"),
        ("split.train", "80", "between 0 and 1"),
        ("split.val", "1", "between 0 and 1"),
        ("fcn.lr", "0", "empty for the shared lr"),
        ("fcn.epochs", "0", "empty for the shared epochs"),
        ("wavenet.hidden_dim", "", "whole number"),
        ("names.path", "", "the path of a list of names"),
        ("names.column", "3", "in quotes"),
        ("sample.temperature", "0", "above 0"),
        ("sample.prefix", "007", "in quotes"),
        ("sample.max_length", "no", "whole number"),
    ],
)
def test_an_error_says_what_to_give_instead(
    tmp_path: Path, parameter: str, value: str, expected: str
) -> None:
    path = tmp_path / "params.yaml"
    with refused(f"{path}, line {line_of(parameter)}: {parameter} is ", expected):
        load_with(tmp_path, parameter, value)


def test_a_long_value_is_cut_in_the_error(tmp_path: Path) -> None:
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
    ],
)
def test_an_unknown_parameter_is_refused_with_the_nearest(
    tmp_path: Path, written: str, nearest: str
) -> None:
    path = put(tmp_path, f"{TEXT}{written}: 1\n")
    last = len(TEXT.splitlines()) + 1
    with refused(f"{path}, line {last}: unknown parameter {written}; did you mean {nearest}?"):
        load_params(path)


def test_an_unknown_parameter_in_a_section_is_refused_with_the_nearest(tmp_path: Path) -> None:
    path = put(tmp_path, TEXT.replace("  hidden_dim: 300", "  hiden_dim: 300"))
    line = line_of("fcn.hidden_dim")
    with refused(f"{path}, line {line}: unknown parameter fcn.hiden_dim", "fcn.hidden_dim?"):
        load_params(path)


DECLARED = [name for name in LEAVES if name.partition(".")[0] in Params.model_fields]
"""Those that have a class in `charlm.core.params`: of other models it knows `lr`, `epochs`."""


@pytest.mark.parametrize("parameter", DECLARED)
def test_a_missing_parameter_is_named(tmp_path: Path, parameter: str) -> None:
    lines = TEXT.splitlines(keepends=True)
    del lines[line_of(parameter) - 1]
    with refused(tmp_path / "params.yaml", f"{parameter} is missing; give it "):
        load_params(put(tmp_path, "".join(lines)))


@pytest.mark.parametrize(
    "section", [name for name in Params.model_fields if isinstance(DEFAULTS[name], dict)]
)
@pytest.mark.parametrize("value", ["", "3", "[1, 2]", "text"])
def test_a_section_that_is_no_mapping_is_refused(tmp_path: Path, section: str, value: str) -> None:
    path = put(tmp_path, in_one_line({**DEFAULTS, section: "@"}).replace('"@"', value))
    keys = ", ".join(DEFAULTS[section])
    with refused(path, f"{section} is ", f"a section with the keys {keys}"):
        load_params(path)


def in_one_line(values: dict[str, Any]) -> str:
    """The parameters as YAML, each section in a line."""
    return "".join(f"{name}: {json.dumps(value)}\n" for name, value in values.items())


@pytest.mark.parametrize("text", ["", "# nothing\n", "- 1\n- 2\n", "text", "3", "null"])
def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path, text: str) -> None:
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
def test_yaml_that_is_not_valid_is_refused(tmp_path: Path, text: str, line: int | None) -> None:
    place = f", line {line}: not valid YAML" if line else ", line "
    with refused(f"{tmp_path / 'params.yaml'}{place}"):
        load_params(put(tmp_path, text))


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with refused(tmp_path / "none.yaml", "does not exist", "git checkout"):
        load_params(tmp_path / "none.yaml")


@pytest.mark.parametrize("content", [b"seed: \xff\n", b"seed: \0\n"])
def test_a_file_that_is_no_text_is_refused(tmp_path: Path, content: bytes) -> None:
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
def test_the_same_values_written_otherwise_are_read_alike(tmp_path: Path, text: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(text.encode())
    assert load_params(path) == load_params(ROOT / "params.yaml")


def test_parameters_cannot_be_changed_once_they_are_read() -> None:
    params = load_params(ROOT / "params.yaml")
    with pytest.raises(ValueError, match="frozen"):
        params.seed = 2


@pytest.mark.parametrize("value", ["2001-99-99", "2001-12-14t99:59:43.10-05:00"])
def test_a_date_that_is_none_is_refused(tmp_path: Path, value: str) -> None:
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


def test_lists_nested_beyond_measure_are_refused(tmp_path: Path) -> None:
    with refused(tmp_path / "params.yaml"):
        load_with(tmp_path, "seed", "[" * 900 + "]" * 900)


def test_an_unknown_parameter_with_a_line_end_leaves_the_error_in_one_line(tmp_path: Path) -> None:
    with refused(tmp_path / "params.yaml", "unknown parameter"):
        load_params(put(tmp_path, TEXT + '"a\\nb": 1\n'))


def test_a_repeated_parameter_with_line_ends_leaves_the_error_in_one_line(tmp_path: Path) -> None:
    with refused(tmp_path / "params.yaml", "seed"):
        load_params(put(tmp_path, TEXT + 'seed: "a\\nb"\n'))


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
).map(json.dumps)
PLAIN = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), max_size=12)


@settings(few, max_examples=150)
@given(st.sampled_from([*LEAVES, *DEFAULTS]), VALUES | PLAIN)
@example("fcn", '{"lr": null, "epochs": null, "embed_dim": 10, "hidden_dim": 300, "é": 1}')
@example("sample", "{1: 2, null: 3, [a, b]: 4}")
@example("names", "&x {path: *x, column: *x}")
@example("seed", "{? [1] : 2, <<: {a: 1}}")
@example("split", '{by: window, train: "0.8", val: 0.1}')
@example("names.path", '"\\ud800"')
@example("seed", "!!binary aGk=")
@example("seed", "!!set {a, b}")
def test_any_value_is_taken_or_refused_in_one_line(
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


def test_a_parameter_is_blamed_with_its_file_and_line() -> None:
    path = ROOT / "params.yaml"
    lines = path.read_text(encoding="utf-8").splitlines()
    for parameter in ("device", "names", "split", "sample.prefix", "wavenet.hidden_dim"):
        message = blamed(parameter, path)
        number = int(message.removeprefix(f"{path}, line ").partition(":")[0])
        assert lines[number - 1].strip().startswith(parameter.rpartition(".")[2] + ":")
        assert message.endswith(f": {parameter}: there is none; take another")


def test_nobody_is_blamed_where_nothing_is_wrong(tmp_path: Path) -> None:
    with blame("device", tmp_path / "never read"):
        pass
    with pytest.raises(ZeroDivisionError), blame("device", tmp_path / "never read"):
        _ = 1 / 0


def test_every_parameter_says_what_it_must_be() -> None:
    def check(section: type[Section]) -> None:
        for name, field in section.model_fields.items():
            kind = field.annotation
            if isinstance(kind, type) and issubclass(kind, Section):
                check(kind)
            else:
                assert field.description, name

    check(Params)


@pytest.fixture
def _one_model_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if `charlm.models` had a module `more`."""
    monkeypatch.setattr(params_module, "MODELS", (*MODELS, "more"))


MORE = f"{TEXT}\nmore:\n  lr: 0.1\n  epochs:\n  embed_dim: 7\n  rank: 3\n  kind: low\n"


@pytest.mark.usefixtures("_one_model_more")
def test_a_model_without_a_class_here_has_the_settings_of_its_section(tmp_path: Path) -> None:
    params = load_params(put(tmp_path, MORE))
    settings = params.model("more")
    assert (settings.recipe.lr, settings.recipe.epochs, settings.recipe.batch_size) == (
        0.1,
        50,
        256,
    )
    assert settings.hyperparameters == {"embed_dim": 7, "rank": 3, "kind": "low"}
    assert params == load_params(put(tmp_path, MORE))
    assert params.model("fcn").recipe == Recipe(lr=0.2, batch_size=256, epochs=50)


@pytest.mark.usefixtures("_one_model_more")
@pytest.mark.parametrize(
    ("written", "instead", "expected"),
    [
        ("  lr: 0.1", "  lr: -1", "more.lr is -1; it must be a number above 0"),
        ("  lr: 0.1\n", "", "more.lr is missing; give it a number"),
        ("  embed_dim: 7", "  embed_dim: 0", "more.embed_dim is 0; it must be a whole number"),
        ("  embed_dim: 7", "  batch_size: 0", "more.batch_size is 0; it must be a whole number"),
        ("  embed_dim: 7", "  scheduler: no", "more.scheduler is 'no'; it must be none, lambda"),
        ("  rank: 3", "  rank: [3]", "more.rank is [3]; it must be a number or a text"),
        ("  rank: 3", "  rank: .nan", "more.rank is nan; it must be a number or a text"),
        ("\nmore:", "\nmoer:", "unknown parameter moer; did you mean more?"),
        (MORE[len(TEXT) :], "", "more is missing; give it a section with the keys lr, epochs"),
        (MORE[len(TEXT) :], "more: 3\n", "more is 3; it must be a section with the keys lr"),
    ],
)  # fmt: skip
def test_a_mistake_in_such_a_section_is_told(
    tmp_path: Path, written: str, instead: str, expected: str
) -> None:
    assert MORE.count(written) >= 1
    text = TEXT + MORE[len(TEXT) :].replace(written, instead)
    with refused(tmp_path / "params.yaml", expected):
        load_params(put(tmp_path, text))


def test_every_model_is_a_module_and_has_its_section() -> None:
    modules = {path.stem for path in (ROOT / "charlm/models").glob("*.py")}
    assert set(MODELS) == modules - {"__init__", "base"}
    assert set(MODELS) <= set(DEFAULTS)


@pytest.mark.usefixtures("_one_model_more")
@settings(few, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(section={"_rank": 1})
@example(section={"model_dump": 1})
@example(section={"rank": 10**400})
@example(section={"": 1})
@given(
    section=st.dictionaries(st.text(max_size=8), st.integers() | st.text(max_size=3), max_size=3)
)
def test_any_such_section_is_taken_or_refused_in_one_line(
    tmp_path: Path, section: dict[str, int | str]
) -> None:
    text = f"{TEXT}\nmore: {json.dumps({'lr': 1.0, 'epochs': 2, **section})}\n"
    params = taken_or_refused(lambda: load_params(put(tmp_path, text)), tmp_path)
    if params is not None and not section.keys() & Training.model_fields.keys():
        assert params.model("more").hyperparameters == section


def test_what_a_merge_has_left_is_told_as_that(tmp_path: Path) -> None:
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    ours, theirs = "lr: 0.2", "lr: 0.1"
    conflict = f"<<<<<<< HEAD\n{ours}\n=======\n{theirs}\n>>>>>>> other\n"
    file = tmp_path / "params.yaml"
    file.write_text(text.replace("lr: 0.2", f"{conflict}# ", 1), encoding="utf-8")
    line = text[: text.index("lr: 0.2")].count("\n") + 1
    with refused(f"{file}, line {line}: a merge by git", "keep one", "<<<<<<<"):
        load_params(file)
