"""Add a model to the pipeline: `python -m pipeline.new_model gru`.

For the model in `charlm/models/gru.py`, this writes the script `stages/train_gru.py`, the stage
`train_gru` in `dvc.yaml`, and the section `gru` in `params.yaml`, with the defaults of the model's
constructor. The script and the stage are adapted copies of the WaveNet's. The stage `train_mixture`
gets the checkpoint as a dependency, and the stage `plot` gets the section. `evaluate`, `sample` and
the command line find the model automatically.
"""

import argparse
import inspect
import io
import re
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from charlm.core.errors import InputError
from charlm.core.files import write_text
from charlm.core.params import MIXED
from charlm.models.base import LanguageModel, architecture_of
from stages import run

TEMPLATE, TEMPLATE_CLASS, TEMPLATE_TITLE = "wavenet", "WaveNet", "WaveNet"
"""The model whose script and stage to copy."""

OWN = ("vocab_size", "block_size")
"""Constructor arguments that do not come from the model's section."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m pipeline.new_model", description=__doc__)
    parser.add_argument("name", help="name of the module in charlm/models, for example gru")
    name = parser.parse_args().name
    architecture = architecture_in(name)
    written = {
        Path(f"stages/train_{name}.py"): script(name, architecture),
        Path("dvc.yaml"): with_stage(Path("dvc.yaml").read_text("utf-8"), name, architecture),
        Path("params.yaml"): with_section(
            Path("params.yaml").read_text("utf-8"), name, architecture
        ),
    }
    for path, text in written.items():
        verb = "changed" if path.exists() else "wrote"
        write_text(path, text)
        print(f"{verb} {path}")
    print(f"train it with: dvc repro; its settings are in params.yaml, section {name}")


def architecture_in(name: str) -> type[LanguageModel]:
    """Return the model in `charlm/models/NAME.py`.

    Raises InputError if there is none, or if it is already in the pipeline.
    """
    if not name.isidentifier() or name != name.lower():
        raise InputError(f"{name!r} is not the name of a module; give a name such as gru")
    if not Path(f"charlm/models/{name}.py").is_file():
        raise InputError(f"charlm/models/{name}.py does not exist; write the model there first")
    if Path(f"stages/train_{name}.py").exists():
        raise InputError(f"stages/train_{name}.py exists; the model is already in the pipeline")
    try:
        return architecture_of(name)
    except Exception as error:  # importing the user's module can raise anything
        raise InputError(
            f"charlm/models/{name}.py: {type(error).__name__}: {error}; fix it first"
        ) from None


def script(name: str, architecture: type[LanguageModel]) -> str:
    """Return the training script, adapted from the template."""
    text = Path(f"stages/train_{TEMPLATE}.py").read_text("utf-8")
    text = text.replace(f"the {TEMPLATE_TITLE}.", f"{architecture.title}.")
    return text.replace(TEMPLATE_CLASS, architecture.__name__).replace(TEMPLATE, name)


def with_stage(text: str, name: str, architecture: type[LanguageModel]) -> str:
    """Return dvc.yaml with a renamed copy of the template's stage, in DVC's style."""
    if f"\n  train_{name}:" in text:
        raise InputError(f"dvc.yaml already has a stage train_{name}; remove it first")
    template = re.search(rf"^  train_{TEMPLATE}:\n(?:(?:    .*)?\n)*", text, flags=re.MULTILINE)
    assert template
    copied = re.sub(rf"\b{TEMPLATE}\b|(?<=_){TEMPLATE}\b", name, template[0])
    yaml = YAML()
    file, (fields,) = yaml.load(text), yaml.load(copied).values()
    fields["desc"] = fields["desc"].replace(f"the {TEMPLATE_TITLE}", architecture.title)
    for (options,) in (plot.values() for plot in fields["plots"]):
        options["title"] = architecture.title
    stages = file["stages"]
    last = max(place for place, stage in enumerate(stages) if stage.startswith("train_"))
    stages.insert(last + 1, f"train_{name}", fields)
    if f"train_{MIXED}" in stages:
        stages[f"train_{MIXED}"]["deps"].append(f"data/checkpoints/{name}.safetensors")
    if "plot" in stages:
        stages["plot"]["params"].append(name)  # the report shows how each model was trained
    for stage in {f"train_{name}", f"train_{MIXED}", "plot"} & stages.keys():
        for key in ("deps", "params"):
            stages[stage][key].sort()
    written = io.StringIO()
    yaml.dump(file, written)
    return written.getvalue()


def with_section(text: str, name: str, architecture: type[LanguageModel]) -> str:
    """Return params.yaml with a section of the constructor's defaults, before `sample`."""
    if re.search(rf"^{name}:", text, flags=re.MULTILINE):
        raise InputError(f"params.yaml already has a section {name}; remove it first")
    lines = [
        f"{name}:".ljust(28) + f"# {architecture.title}",
        "  lr:".ljust(28) + "# empty: the shared value",
        "  epochs:".ljust(28) + "# empty: the shared value",
    ]
    for parameter in inspect.signature(architecture).parameters.values():
        if parameter.name in OWN:
            continue
        if parameter.default is inspect.Parameter.empty:
            raise InputError(
                f"{architecture.__name__}.__init__ has no default for {parameter.name}; "
                "add one, which is then written to params.yaml"
            )
        lines.append(f"  {parameter.name}: {as_yaml(parameter.default)}")
    section = "\n".join(lines)
    return re.sub(r"^sample:", f"{section}\n\nsample:", text, count=1, flags=re.MULTILINE)


def as_yaml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if value is None:
        return ""
    return f'"{value}"' if isinstance(value, str) and not value.isalpha() else str(value)


if __name__ == "__main__":
    run(main)
