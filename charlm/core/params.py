"""The parameters of the pipeline: read from YAML, checked in type and range.

A field's description is what its error message tells the user to give.
"""

import difflib
import math
import reprlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    create_model,
    model_validator,
)
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError

from charlm.core.errors import InputError
from charlm.core.recipe import InitName, Keep, NormName, OptimizerName, Recipe, SchedulerName

PARAMS_FILE = Path("params.yaml")


def _power_of_two(value: int) -> int:
    if value & (value - 1):
        raise ValueError("not a power of two")
    return value


def _number_or_text(value: Any) -> int | float | str:
    if isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    raise ValueError("neither a number nor a text")


def _none_if_blank(value: Any) -> Any:
    return None if value == "" else value


OrEmpty = BeforeValidator(_none_if_blank)
"""For a parameter that may be empty: `-S fcn.lr=` makes it an empty text, not YAML's nothing."""

PositiveInt = Annotated[int, Field(ge=1, lt=2**31, description="a whole number of at least 1")]
Width = Annotated[int, Field(ge=1, le=2**20, description="a whole number from 1 to 1,048,576")]
LearningRate = Annotated[
    float, Field(gt=0, le=1e38, description="a number above 0 and up to 1e38, such as 0.2")
]
Fraction = Annotated[
    float, Field(gt=0, lt=1, description="a fraction between 0 and 1, such as 0.8")
]


Share = Annotated[float, Field(ge=0, lt=1, description="a fraction from 0 to below 1, such as 0.9")]


def _one_of(names: Any) -> str:
    """The values of a Literal, as an error message names them."""
    *first, last = get_args(names)
    return f"{', '.join(first)} or {last}"


class Section(BaseModel):
    """A mapping with known keys and no others, whose values are taken as they are typed."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Names(Section):
    """Which list of names to learn from."""

    path: str = Field(min_length=1, description="the path of a list of names")
    column: Annotated[str | None, OrEmpty] = Field(
        min_length=1,
        description="the name of a column (in quotes if it looks like a number) or empty",
    )


class Split(Section):
    """How the windows are dealt out; what training and validation leave is the test set."""

    by: Literal["window", "name"] = Field(description="window or name")
    train: Fraction
    val: Fraction

    @model_validator(mode="after")
    def _leave_a_test_set(self) -> "Split":
        if self.train + self.val > 1 - 1e-9:
            raise ValueError("no test set")
        return self


class Training(Section):
    """How a model is trained: what `charlm.core.recipe.Recipe` takes."""

    lr: LearningRate
    batch_size: PositiveInt
    epochs: PositiveInt
    init: InitName = Field(description=_one_of(InitName))
    optimizer: OptimizerName = Field(description=_one_of(OptimizerName))
    momentum: Share
    beta1: Share
    beta2: Share
    weight_decay: float = Field(ge=0, le=1e6, description="a number from 0 to 1e6, such as 0.01")
    clip_norm: Annotated[float | None, OrEmpty] = Field(
        gt=0, le=1e38, description="a number above 0 and up to 1e38, such as 1.0, or empty"
    )
    scheduler: SchedulerName = Field(description=_one_of(SchedulerName))
    lr_factor: float = Field(gt=0, le=1, description="a number above 0 and up to 1, such as 0.1")
    lr_every: PositiveInt
    warmup: Fraction
    keep: Keep = Field(description=_one_of(Keep))
    patience: Annotated[PositiveInt | None, OrEmpty] = Field(
        description="a whole number of at least 1, or empty"
    )
    average: Share


class OwnTraining(Section):
    """What a model's section has of its training: what is empty is shared."""

    lr: Annotated[LearningRate | None, OrEmpty] = Field(
        description="a number above 0 and up to 1e38, or empty for the shared lr"
    )
    epochs: Annotated[PositiveInt | None, OrEmpty] = Field(
        description="a whole number of at least 1, or empty for the shared epochs"
    )


class ModelParams(OwnTraining):
    """The section of one of the course's models."""

    embed_dim: Width
    hidden_dim: Width
    norm: NormName = Field(description=_one_of(NormName))
    dropout: Share


class CompactSize(Section):
    """What the compact WaveNet's constructor takes."""

    channels: Width
    dropout: Share


class CompactParams(Training, CompactSize):
    """The section of the compact WaveNet, which shares nothing with the others."""


class Sample(Section):
    """How names are drawn from the trained models."""

    count: int = Field(ge=1, le=10**8, description="a whole number from 1 to 100,000,000")
    temperature: float = Field(
        gt=0, le=100, description="a number above 0 and up to 100, such as 1.0"
    )
    prefix: str | None = Field(description="text (in quotes if it looks like a number) or empty")
    max_length: int = Field(ge=1, le=10**4, description="a whole number from 1 to 10,000")


class Source(Section):
    """What is learnt from."""

    seed: int = Field(ge=0, lt=2**63, description="a whole number from 0 to 2**63 - 1")
    names: Names
    block_size: Annotated[int, AfterValidator(_power_of_two)] = Field(
        ge=1,
        le=1024,
        description="a power of two (1, 2, 4, 8, ... 1024), "
        "since the WaveNet joins neighbours two by two",
    )


class Params(Training, Source):
    """All of `params.yaml`; how models are trained holds for those that say nothing else."""

    device: Literal["auto", "cpu", "cuda", "mps"] = Field(description="auto, cpu, cuda or mps")
    threads: int = Field(ge=1, le=1024, description="a whole number from 1 to 1024")
    processes: int = Field(ge=1, le=1024, description="a whole number from 1 to 1024")
    split: Split
    fcn: ModelParams
    wavenet: ModelParams
    compact: CompactParams
    sample: Sample

    def model(self, name: str) -> "ModelSettings":
        """The settings of one of `MODELS`."""
        section: Section = getattr(self, name)
        own = {key: value for key, value in section.model_dump().items() if key in RECIPE}
        if not isinstance(section, Training):  # what it leaves empty is shared
            shared = self.model_dump(include=RECIPE)
            own = shared | {key: value for key, value in own.items() if value is not None}
        return ModelSettings(Recipe(**own), section.model_dump(exclude=RECIPE))


RECIPE = set(Training.model_fields)


@dataclass(frozen=True)
class ModelSettings:
    """What one model is trained with, nothing left empty.

    Attributes:
        hyperparameters: what its constructor takes besides the sizes that the data dictate.
    """

    recipe: Recipe
    hyperparameters: dict[str, Any]


DECLARED = tuple(
    name
    for name, field in Params.model_fields.items()
    if field.annotation in (ModelParams, CompactParams)
)

MODELS = (
    *DECLARED,
    *sorted(
        path.stem
        for path in (Path(__file__).parent.parent / "models").glob("*.py")
        if path.stem not in ("__init__", "base", *DECLARED)
    ),
)
"""The models that the pipeline trains: the modules of `charlm.models`, each with its section."""

MODEL_KEYS = Training.model_fields | CompactSize.model_fields | ModelParams.model_fields
"""What a model's section may hold, whichever model it is, by its name."""

OTHER = (
    Annotated[Any, AfterValidator(_number_or_text)],
    Field(description="a number or a text"),
)
"""What else it may hold, for the model's constructor to judge."""


def _schema(values: Any) -> type[Params]:
    """`Params`, and the sections of the models that have no class here, as `values` has them.

    Their keys mean what they mean to the other models. One that those have not is not held
    against the model's constructor here: with its module torch would be imported.
    """
    sections = {}
    for name in MODELS[len(DECLARED) :]:
        section = values.get(name) if isinstance(values, dict) else None
        keys = section if isinstance(section, dict) else ()
        sections[name] = tuple(filter(_may_be_a_key, keys))
    return _params_with(tuple(sections.items())) if sections else Params


def _may_be_a_key(key: Any) -> bool:
    """Whether a class for a section can have it, as a constructor's argument can be called."""
    if not isinstance(key, str) or not key.isidentifier() or key.startswith("_"):
        return False
    return key not in OwnTraining.model_fields and not hasattr(OwnTraining, key)


@cache  # one class, whose instances can be equal
def _params_with(sections: tuple[tuple[str, tuple[str, ...]], ...]) -> type[Params]:
    """`Params`, and sections of these names and keys."""
    classes: dict[str, Any] = {}
    for name, keys in sections:
        fields: dict[str, Any] = {
            key: (MODEL_KEYS[key].annotation, MODEL_KEYS[key]) if key in MODEL_KEYS else OTHER
            for key in keys
        }
        classes[name] = (create_model(name, __base__=OwnTraining, **fields), ...)
    return create_model("Params", __base__=Params, **classes)


def load_params(path: Path = PARAMS_FILE) -> Params:
    """Read and check all parameters.

    YAML is read as version 1.2, as DVC reads it: `1e-3` is a number.

    Raises:
        InputError: the first mistake, with its file, line and parameter.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        refuse_a_conflict(text, path)
        values = YAML(typ="safe", pure=True).load(text)
        lines = YAML(typ="rt").load(text)
    except FileNotFoundError:
        raise InputError(
            f"{path} does not exist; run this in the folder that holds it, "
            f"or bring it back with: git checkout {path}"
        ) from None
    except InputError:
        raise
    except MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise InputError(
            f"{path}{line}: not valid YAML ({error.problem}); mend that line"
        ) from None
    except Exception as error:  # ruamel.yaml raises many kinds of error, over a date as 2001-99-99
        raise InputError(
            f"{path} cannot be read ({error}); bring it back: git checkout {path}"
        ) from None
    schema = _schema(values)
    try:
        return schema.model_validate(values)
    except ValidationError as error:
        raise InputError(_explain(error, schema, path, lines)) from None


def refuse_a_conflict(text: str, path: Path) -> None:
    """Raise InputError where a merge by git has left both sides of something in `text`."""
    before, mark, _ = f"\n{text}".partition("\n<<<<<<< ")
    if mark:
        line = before.count("\n") + 1
        raise InputError(
            f"{path}, line {line}: a merge by git has left two versions here; "
            "keep one, and take its marks away (<<<<<<<, =======, >>>>>>>)"
        )


@contextmanager
def blame(parameter: str, path: Path = PARAMS_FILE) -> Iterator[None]:
    """Put the place of a parameter, file and line, in front of an InputError raised inside."""
    try:
        yield
    except InputError as error:
        lines = YAML(typ="rt").load(path)
        line = _line(lines, parameter.split("."))
        raise InputError(f"{path}{line}: {parameter}: {error}") from None


def _explain(error: ValidationError, schema: type[Params], path: Path, lines: Any) -> str:
    """The mistake that most likely caused the others, in one line."""
    causes = ["extra_forbidden", "missing"]  # a misspelt key is also a missing one

    def rank(details: ErrorDetails) -> int:
        return causes.index(details["type"]) if details["type"] in causes else len(causes)

    mistake = min(error.errors(), key=rank)
    location = [str(key) for key in mistake["loc"]]
    name = ".".join(location)
    name = name if len(name) <= 60 else f"{name[:57]}..."
    where = f"{path}{_line(lines, location)}"
    match mistake["type"]:
        case "extra_forbidden":
            return f"{where}: unknown parameter {name}; did you mean {_nearest(name, schema)}?"
        case "missing":
            return f"{where}: {name} is missing; give it {_expected(location, schema)}"
        case "value_error" if location == ["split"]:
            split = mistake["input"]
            return (
                f"{where}: split.train {split['train']} and split.val {split['val']} "
                "leave no test set; lower them to a sum below 1"
            )
    shown = _shown(mistake["input"])
    return f"{where}: {name or 'the file'} is {shown}; it must be {_expected(location, schema)}"


def _shown(value: Any) -> str:
    """A value as an error message quotes it."""
    if value is None:
        return "empty"
    try:
        text = reprlib.repr(value)  # lists that hold themselves, or each other many times over
    except ValueError:  # Python writes out no number of so many digits
        return "a number of thousands of digits"
    return text if len(text) <= 60 else f"{text[:57]}..."


def _known(section: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Every parameter by its full name, and what it must be."""
    for name, field in section.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, Section):
            yield prefix + name, f"a section with the keys {', '.join(kind.model_fields)}"
            yield from _known(kind, f"{prefix}{name}.")
        else:
            yield prefix + name, field.description or ""


def _expected(location: list[str], schema: type[Params]) -> str:
    return dict(_known(schema)).get(
        ".".join(location), "a mapping of parameters: git checkout params.yaml"
    )


def _nearest(name: str, schema: type[Params]) -> str:
    """The known parameter most like `name`, by its full name or by its last part."""
    known = [parameter for parameter, _ in _known(schema)]
    by_likeness = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if by_likeness:
        return by_likeness[0]
    leaf_of = {parameter.rpartition(".")[2]: parameter for parameter in reversed(known)}
    leaf = difflib.get_close_matches(name.rpartition(".")[2], list(leaf_of), n=1, cutoff=0.0)
    return leaf_of[leaf[0]]


def _line(lines: Any, location: list[str]) -> str:
    """ ", line N" of the deepest key of `location` that the file holds, or nothing."""
    found = ""
    for key in location:
        try:
            found = f", line {lines.lc.key(key)[0] + 1}"
            lines = lines[key]
        except (AttributeError, KeyError, TypeError):
            break
    return found
