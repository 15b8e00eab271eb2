"""The parameters of the pipeline, read from YAML and checked.

The description of a field completes the sentence "it must be" in error messages.
"""

import difflib
import inspect
import math
import reprlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    ValidationError,
    WrapValidator,
    create_model,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.nodes import MappingNode, Node

from charlm.core.errors import InputError

PARAMS_FILE = Path("params.yaml")


def _power_of_two(value: int) -> int:
    if value & (value - 1):
        raise ValueError("not a power of two")
    return value


def _plain(value: Any) -> bool | int | float | str | None:
    if value is None or isinstance(value, str | int):  # a bool is an int
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    raise ValueError("neither a number nor a string")


def _none_if_blank(value: Any) -> Any:
    return None if value == "" else value


def _column(value: Any) -> str | int | None:
    if value is None or isinstance(value, str):
        return value or None
    if isinstance(value, int) and not isinstance(value, bool) and value >= 1:
        return value
    raise ValueError("neither a heading nor the number of a column")


OrEmpty = BeforeValidator(_none_if_blank)
"""For a parameter that can be empty: `-S fcn.lr=` sets an empty string instead of null."""

AUTO = "auto"
"""Stands for a value that depends on the number of training windows, see `automatic`."""

OrAuto = WrapValidator(lambda value, validate: value if value == AUTO else validate(value))
"""For a parameter that can be `AUTO`."""

PositiveInt = Annotated[int, Field(ge=1, lt=2**31, description="a positive integer")]
Width = Annotated[int, Field(ge=1, le=2**20, description="an integer from 1 to 1,048,576")]
Processors = Annotated[int, Field(ge=1, le=1024, description="an integer from 1 to 1024")]
Order = Annotated[int, Field(ge=0, le=1024)]
Members = Annotated[int, Field(ge=1, le=100)]
Fraction = Annotated[
    float, Field(gt=0, lt=1, description="a fraction between 0 and 1, such as 0.8")
]
BelowOne = Annotated[
    float, Field(ge=0, lt=1, description="at least 0 and less than 1, such as 0.9")
]
InitName = Literal["torch", "xavier", "kaiming"]


class Section(BaseModel):
    """A mapping that accepts only known keys and does not convert types."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Recipe(Section):
    """The training settings of a model.

    Settings without a default are at the top level of params.yaml, the others in its section
    `training`. A model's section can override each of them. By default, options are off and
    values are those of the course.
    """

    lr: float = Field(gt=0, le=1e38, description="a positive number up to 1e38, such as 0.2")
    """Learning rate; the maximum if a scheduler is used."""
    batch_size: PositiveInt
    """Windows per step."""
    epochs: PositiveInt
    """Maximum number of passes over the training windows."""
    init: InitName = "torch"
    """Initialization, see `charlm.training.initialization`."""
    optimizer: Literal["sgd", "adamw", "muon"] = "sgd"
    """See `charlm.training.optimizers`."""
    momentum: BelowOne = 0.0
    """Momentum of SGD and Muon."""
    beta1: BelowOne = 0.9
    """AdamW's decay rate of the mean gradient."""
    beta2: BelowOne = 0.999
    """AdamW's decay rate of the mean squared gradient."""
    weight_decay: float = Field(
        default=0.0, ge=0, le=1e6, description="a number from 0 to 1e6, such as 0.01"
    )
    """SGD: coefficient of the L2 penalty. AdamW and Muon: decoupled weight decay, so that each step
    multiplies the weights by 1 - lr * weight_decay."""
    clip_norm: Annotated[float | None, OrEmpty] = Field(
        default=None,
        gt=0,
        le=1e38,
        description="a positive number up to 1e38, such as 1.0, or empty",
    )
    """Maximum norm of the gradient of all parameters together; no clipping if empty."""
    scheduler: Literal["none", "lambda", "step", "linear", "plateau", "onecycle"] = "none"
    """See `charlm.training.schedulers`."""
    lr_factor: float = Field(
        default=0.1, gt=0, le=1, description="a positive number up to 1, such as 0.1"
    )
    """Factor by which a scheduler multiplies the learning rate."""
    lr_every: PositiveInt = 10
    """`step_size` of StepLR, and `patience` of ReduceLROnPlateau, in epochs."""
    warmup: Fraction = 0.3
    """Fraction of training during which OneCycleLR raises the learning rate."""
    keep: Literal["last", "best"] = "last"
    """Which weights to keep: those of the last epoch, or of the lowest validation loss."""
    patience: Annotated[PositiveInt | None, OrEmpty] = Field(
        default=None, description="a positive integer, or empty"
    )
    """Stop after this many epochs without a lower validation loss."""
    average: BelowOne = 0.0
    """Decay rate of a moving average of the weights, which is evaluated and saved in their place;
    no average if 0."""
    distill: BelowOne = 0.0
    """Weight of the teacher's predictions in the targets, see `charlm.training.distillation`."""


TOP_LEVEL = [name for name, field in Recipe.model_fields.items() if field.is_required()]

AUTOMATIC = ("batch_size", "epochs", "channels", "shared", "dropout", "members")


def automatic(windows: int) -> dict[str, float]:
    """Return the values of the parameters in `AUTOMATIC` for a number of training windows.

    Fewer windows need more epochs, smaller batches, more dropout and an ensemble. More windows
    need wider layers, and a separate layer for each level. The rules were fitted to lists of 900
    to 95,000 names (EXPERIMENTS.md, 2026-11-27).
    """
    batch_size = 2 ** round(math.log2(max(windows, 1) / 180))
    epochs = round(2_400_000 / max(windows, 1))
    fewest = 88 if windows < 40_000 else 112
    channels = 8 * round(windows / 18_000)
    magnitude = math.log10(max(windows, 1) / 10_000)
    dropout = round((0.3 - 0.23 * magnitude) * 20) / 20
    return {
        "batch_size": min(max(batch_size, 256), 1024),
        "epochs": min(max(epochs, 4), 60),
        "channels": min(max(channels, fewest), 256),
        "shared": windows < 250_000,
        "dropout": min(max(dropout, 0.0), 0.3),
        "members": 3 if windows < 40_000 else 1,
    }


MORE_DROPOUT = 0.2
"""`Params.against_memorizing` suggests this dropout probability to models with less."""

COUNTED, MIXED = "kneser_ney", "mixture"
"""Models that are not trained by gradient descent, and so have no training settings."""

ARGUMENTS: dict[str, Any] = {
    "embed_dim": Width,
    "hidden_dim": Width,
    "channels": Annotated[
        Width, OrAuto, Field(description="an integer from 1 to 1,048,576, or auto")
    ],
    "shared": Annotated[bool, OrAuto, Field(description="true, false or auto")],
    "norm": Literal["none", "layer"],
    "members": Annotated[Members, OrAuto, Field(description="an integer from 1 to 100, or auto")],
    "dropout": Annotated[
        BelowOne, OrAuto, Field(description="at least 0 and less than 1, such as 0.1, or auto")
    ],
    "order": Annotated[
        Order | None, OrEmpty, Field(description="an integer from 0 to 1024, or empty")
    ],
}
"""Constructor arguments with a checked range, for all models that take them."""

Argument = Annotated[Any, AfterValidator(_plain)]
ARGUMENT = "a number, a string, true, false or empty"
"""The type of all other constructor arguments; the constructor can check more."""


class Names(Section):
    """The list of names to train on."""

    path: str = Field(min_length=1, description="the path of a list of names")
    column: Annotated[str | int | None, PlainValidator(_column)] = Field(
        description="the heading of a column (in quotes if it is a number), "
        "a positive integer, or empty",
    )
    header: bool = Field(description="true or false")


class Split(Section):
    """How the data are split. What is left after training and validation is the test set."""

    by: Literal["window", "name"]
    train: Fraction
    val: Fraction

    @model_validator(mode="after")
    def _leave_a_test_set(self) -> "Split":
        if self.train + self.val > 1 - 1e-9:
            raise ValueError("no test set")
        return self


class Training(Section):
    """Settings shared by all models. Its other keys come from `Recipe`, see `_Params`."""

    threads: Processors
    processes: Processors


class Sample(Section):
    """How names are sampled from the trained models."""

    count: int = Field(ge=1, le=10**8, description="an integer from 1 to 100,000,000")
    temperature: float = Field(gt=0, le=100, description="a positive number up to 100, such as 1.0")
    prefix: str | None = Field(description="text (in quotes if it looks like a number) or empty")
    max_length: int = Field(ge=1, le=10**4, description="an integer from 1 to 10,000")


class ModelSection(Section):
    """The section of a model: training settings, and arguments of its constructor.

    The keys come from `Recipe` and `ARGUMENTS`, see `_Params`. Other keys are arguments, too.
    """

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Argument]


class Params(Section):
    """All of params.yaml: the fields below and one section for each model."""

    model_config = ConfigDict(extra="allow")

    seed: int = Field(ge=0, lt=2**63, description="an integer from 0 to 2**63 - 1")
    block_size: Annotated[int, AfterValidator(_power_of_two)] = Field(
        ge=1,
        le=1024,
        description="a power of two (1, 2, 4, 8, ... 1024), "
        "because the WaveNet merges neighbors in pairs",
    )
    device: Literal["auto", "cpu", "cuda", "mps"]
    fast: bool = Field(description="true or false")
    names: Names
    split: Split
    training: Training
    sample: Sample

    @property
    def models(self) -> list[str]:
        """The names of the models, in the order of their sections."""
        return list(self.model_extra or {})

    @property
    def trained_models(self) -> list[str]:
        """The names of the models that are trained by gradient descent."""
        return [model for model in self.models if model not in (COUNTED, MIXED)]

    def section(self, model: str) -> ModelSection:
        """Return the section of one of `models`."""
        found: ModelSection = (self.model_extra or {})[model]
        return found

    def recipe(self, model: str) -> Recipe:
        """Return the training settings of a model: its own, or else the shared ones.

        `AUTO` must have been replaced, see `sized`.
        """
        return Recipe(**{name: self.setting(model, name) for name in Recipe.model_fields})

    def setting(self, model: str, name: str) -> Any:
        """Return a model's value of a field of `Recipe`: its own, or else the shared one."""
        own = getattr(self.section(model), name)
        shared = getattr(self if name in TOP_LEVEL else self.training, name)
        return shared if own is None else own

    def sized(self, windows: int, *models: str) -> "Params":
        """Return these parameters with `AUTO` replaced in the sections of the given models.

        Args:
            windows: the number of training windows.
            models: the names of the models.
        """
        numbers, sections = automatic(windows), {}
        for model in models:
            own = self.section(model)
            chosen = {name: numbers[name] for name in AUTOMATIC if getattr(own, name) == AUTO}
            sections[model] = own.model_copy(update=chosen)
        return self.model_copy(update=sections)

    def arguments(self, model: str) -> dict[str, Any]:
        """Return the constructor arguments in a model's section."""
        section = self.section(model)
        given = sorted(section.model_fields_set & ARGUMENTS.keys())
        return {name: getattr(section, name) for name in given} | (section.model_extra or {})

    def against_memorizing(self, model: str) -> str:
        """Return advice for a model that has memorized its training names."""
        options = []
        if self.setting(model, "keep") != "best":
            plus = "" if "keep" in self.section(model).model_fields_set else "++"
            options.append(f"-S {plus}{model}.keep=best")
        dropout = self.arguments(model).get("dropout", AUTO)
        if dropout != AUTO and dropout < MORE_DROPOUT:
            options.append(f"-S {model}.dropout={MORE_DROPOUT}")
        return f"try dvc exp run {' '.join(options)}" if options else "more names would help"

    def origin(self, model: str, setting: str) -> str:
        """Return the full name of the parameter that determines a setting of a model."""
        if getattr(self.section(model), setting) is not None:
            return f"{model}.{setting}"
        return setting if setting in TOP_LEVEL else f"training.{setting}"


SHARED = {"seed", "block_size", "device", "fast", *Training.model_fields}
"""Parameters that apply to all models and so cannot be in a model's section."""


def _must_be(field: FieldInfo) -> str:
    """Return what a parameter must be, for error messages."""
    if field.description:
        return field.description
    *first, last = get_args(field.annotation)
    return f"{', '.join(first)} or {last}"


def _required(field: FieldInfo) -> Any:
    """Return the type of a field of `Recipe` in a section that must contain it."""
    return Annotated[(field.annotation, *field.metadata, Field(description=_must_be(field)))]


def _or_shared(name: str, field: FieldInfo) -> Any:
    """Return the type of a field of `Recipe` in a model's section, where it can be empty."""
    must_be, kind = _must_be(field).removesuffix(", or empty"), _required(field)
    if name in AUTOMATIC:
        must_be, kind = f"{must_be}, auto", Annotated[kind, OrAuto]
    description = f"{must_be}, or empty for the shared {name}"
    return Annotated[kind | None, OrEmpty, Field(description=description)]


def _empty_if_none(value: Any) -> Any:
    return {} if value is None else value


S = TypeVar("S", bound=Section)


def _with(base: type[S], **fields: Any) -> type[S]:
    """Return a subclass of `base` with additional fields."""
    made: type[S] = create_model(base.__name__, __base__=base, **fields)
    return made


_SETTINGS = Recipe.model_fields.items()

_ModelSection: Any = _with(
    ModelSection,
    **{name: (_or_shared(name, field), None) for name, field in _SETTINGS},
    **{name: (kind, None) for name, kind in ARGUMENTS.items()},
)

_Params = _with(
    Params,
    **{name: _required(field) for name, field in _SETTINGS if name in TOP_LEVEL},
    training=_with(
        Training,
        **{name: _required(field) for name, field in _SETTINGS if name not in TOP_LEVEL},
    ),
    __pydantic_extra__=dict[str, Annotated[_ModelSection, BeforeValidator(_empty_if_none)]],
)


def model_modules() -> list[str]:
    """Return the names of the modules that define a model, without importing them."""
    files = (Path(__file__).parent.parent / "models").glob("[!_]*.py")
    return sorted(file.stem for file in files if file.stem != "base")


def load_params(path: Path = PARAMS_FILE) -> Params:
    """Read and check all parameters.

    The file is parsed as YAML 1.2, as DVC does, so that `1e-3` is a number.

    Raises:
        InputError: a parameter is wrong; the message has its name, file and line.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        refuse_merge_conflict(text, path)
        yaml = YAML(typ="safe", pure=True)
        root = yaml.compose(text)
        values = yaml.constructor.construct_document(root) if root else None
    except FileNotFoundError:
        raise InputError(
            f"{path} does not exist; run this command in the folder of the project, "
            f"or restore the file: git checkout {path}"
        ) from None
    except InputError:
        raise
    except MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise InputError(f"{path}{line}: not valid YAML ({error.problem}); fix that line") from None
    except Exception as error:  # ruamel.yaml raises many kinds of errors, for example on 2001-99-99
        raise InputError(
            f"{path} cannot be read ({error}); restore it: git checkout {path}"
        ) from None
    if isinstance(values, dict):
        _check_models(values, path, root)
    try:
        return _Params.model_validate(values)
    except ValidationError as error:
        raise InputError(_explain(error, values, path, root)) from None


def _check_models(values: dict[Any, Any], path: Path, root: Node) -> None:
    """Raise InputError unless each model has a section, and each section a model.

    A section must not contain parameters that apply to all models.
    """
    modules = model_modules()
    parameters = _Params.model_fields
    for key, value in values.items():
        where, name = f"{path}{_line(root, [key])}", _short(str(key))
        if key not in parameters and key not in modules:
            alike = difflib.get_close_matches(str(key), [*parameters, *modules], n=1)
            if isinstance(value, dict) and not alike:
                raise InputError(
                    f"{where}: there is no model {name}; write charlm/models/{name}.py, "
                    "or remove the section"
                )
            raise InputError(_unknown(where, str(key), values))
        if key in modules and isinstance(value, dict):
            if key in (COUNTED, MIXED) and (settings := Recipe.model_fields.keys() & value.keys()):
                setting = min(settings)
                raise InputError(
                    f"{path}{_line(root, [key, setting])}: {key}.{setting} has no effect, because "
                    "this model is not trained by gradient descent; remove it"
                )
            for shared in SHARED & value.keys():
                full = f"training.{shared}" if shared in Training.model_fields else shared
                raise InputError(
                    f"{path}{_line(root, [key, shared])}: {key}.{shared} cannot be set for a "
                    f"single model; set {full}, which applies to all"
                )
    for module in modules:
        if module in parameters:
            raise InputError(
                f"charlm/models/{module}.py has the name of a parameter in {path}; rename it"
            )
        if module not in values:
            raise InputError(
                f"{path} has no section for charlm/models/{module}.py; "
                f"add one (the line {module}: is enough), or rename the file to _{module}.py if "
                "it is not a model"
            )


FROM_THE_DATA = ("vocab_size", "block_size")
"""Constructor arguments that come from the data, not from the model's section."""


def check_arguments(
    model: str, constructor: Callable[..., object], given: Iterable[str], path: Path = PARAMS_FILE
) -> None:
    """Raise InputError if a model's section does not match its constructor.

    Args:
        model: the name of the section.
        constructor: the model's class.
        given: the keys of `Params.arguments(model)`.
        path: the parameter file.
    """
    parameters = inspect.signature(constructor).parameters
    kinds = [parameter.kind for parameter in parameters.values()]
    takes = {
        name: parameter
        for name, parameter in parameters.items()
        if name not in FROM_THE_DATA
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    }
    who = constructor.__name__
    for name in takes.keys() & (Recipe.model_fields.keys() | SHARED):
        with blame(model, path):
            raise InputError(
                f"{who} has an argument {name}, but a parameter has the same name; "
                "rename the argument"
            )
    for name in given:
        if name not in takes and inspect.Parameter.VAR_KEYWORD not in kinds:
            with blame(f"{model}.{name}", path):
                if name in FROM_THE_DATA:
                    raise InputError(f"{name} comes from the data; remove it")
                raise InputError(f"{who} has no argument {name}; {_instead(name, list(takes))}")
    lacks = [name for name in FROM_THE_DATA if name not in parameters]
    if lacks and inspect.Parameter.VAR_KEYWORD not in kinds:
        with blame(model, path):
            raise InputError(
                f"{who} must take vocab_size and block_size; add the argument {lacks[0]}"
            )
    needed = [name for name, parameter in takes.items() if parameter.default is parameter.empty]
    if missing := [name for name in needed if name not in given]:
        with blame(model, path):
            it = "it" if len(missing) == 1 else "them"
            raise InputError(f"{who} requires {', '.join(missing)}; add {it} to the section")


def _instead(name: str, takes: list[str]) -> str:
    """Return advice for an argument that a model does not take."""
    if alike := difflib.get_close_matches(name, [*takes, *Recipe.model_fields], n=1):
        return f"did you mean {alike[0]}?"
    return f"its arguments are {', '.join(takes)}" if takes else "remove it"


def refuse_merge_conflict(text: str, path: Path) -> None:
    """Raise InputError if `text` contains git's conflict markers."""
    before, mark, _ = f"\n{text}".partition("\n<<<<<<< ")
    if mark:
        line = before.count("\n") + 1
        raise InputError(
            f"{path}, line {line}: unresolved merge conflict; "
            "keep one version and remove the markers (<<<<<<<, =======, >>>>>>>)"
        )


@contextmanager
def blame(parameter: str, path: Path = PARAMS_FILE) -> Iterator[None]:
    """Prefix an InputError raised in the block with the file, line and name of a parameter."""
    try:
        yield
    except InputError as error:
        root = YAML(typ="safe", pure=True).compose(path.read_text(encoding="utf-8-sig"))
        line = _line(root, parameter.split("."))
        raise InputError(f"{path}{line}: {parameter}: {error}") from None


def _explain(error: ValidationError, values: Any, path: Path, root: Node | None) -> str:
    """Return a message for the mistake that most likely caused the others."""
    causes = ["extra_forbidden", "missing"]  # a misspelled key is reported as missing, too

    def rank(details: ErrorDetails) -> int:
        return causes.index(details["type"]) if details["type"] in causes else len(causes)

    mistake = min(error.errors(), key=rank)
    location = [str(key) for key in mistake["loc"]]
    name = ".".join(location)
    where = f"{path}{_line(root, location)}"
    match mistake["type"]:
        case "extra_forbidden" | "invalid_key":
            return _unknown(where, name, values)
        case "missing":
            return f"{where}: {_short(name)} is missing; it must be {_expected(location)}"
        case "value_error" if location == ["split"]:
            split = mistake["input"]
            return (
                f"{where}: split.train {split['train']} and split.val {split['val']} "
                "leave no test set; lower them so that their sum is less than 1"
            )
    shown = _shown(mistake["input"])
    subject = _short(name) or "the file"
    return f"{where}: {subject} is {shown}; it must be {_expected(location)}"


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."


def _shown(value: Any) -> str:
    """Format a value for an error message."""
    if value is None:
        return "empty"
    try:
        return _short(reprlib.repr(value))  # handles recursive and deeply nested lists
    except ValueError:  # more digits than Python converts to a string
        return "a number with thousands of digits"


def _known(section: type[BaseModel] = _Params, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield the full name of every parameter outside the models' sections, and what it must be."""
    for name, field in section.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, Section):
            yield prefix + name, f"a section with the keys {', '.join(kind.model_fields)}"
            yield from _known(kind, f"{prefix}{name}.")
        else:
            yield prefix + name, _must_be(field)


def _expected(location: list[str]) -> str:
    """Return what the parameter at `location` must be."""
    match location:
        case []:
            return "a mapping of parameters; restore it: git checkout params.yaml"
        case [model] if model not in _Params.model_fields:
            return "a section with constructor arguments and training settings"
        case [model, name] if model not in _Params.model_fields:
            field = _ModelSection.model_fields.get(name)
            return _must_be(field) if field else ARGUMENT
    return dict(_known())[".".join(location)]


def _unknown(where: str, name: str, values: Any) -> str:
    """Return the message for an unknown parameter, with the most similar known one."""
    known = [full for full, _ in _known()]
    for model in model_modules():
        section = values.get(model)
        keys = section if isinstance(section, dict) else ()
        known += [model, *(f"{model}.{key}" for key in keys if isinstance(key, str))]
    leaf = name.rpartition(".")[2]
    leaves = {full.rpartition(".")[2]: full for full in reversed(known)}
    alike = difflib.get_close_matches(name, known, n=1)
    nearest = leaves.get(leaf) or (
        alike[0] if alike else leaves[difflib.get_close_matches(leaf, leaves, n=1, cutoff=0.0)[0]]
    )
    return f"{where}: unknown parameter {_short(name)}; did you mean {nearest}?"


def _line(node: Node | None, location: Iterable[Any]) -> str:
    """Return ", line N" for the deepest key of `location` in the file, or "" if there is none."""
    found = ""
    for key in location:
        pairs = reversed(node.value) if isinstance(node, MappingNode) else ()
        name, node = next((pair for pair in pairs if pair[0].value == str(key)), (None, None))
        if name is None:
            break
        found = f", line {name.start_mark.line + 1}"
    return found
