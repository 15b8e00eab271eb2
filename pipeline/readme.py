"""Copy the latest results into the tables of README.md, EXPERIMENTS.md and docs/.

    python -m pipeline.readme

A comment `<!-- from SOURCE; ... -->` above a table names its source. The tables and "Measured on"
lines below it, up to the next such comment or section, are replaced with those in that file, in the
same order. Tables of the committed run are made from its CSV files.
"""

import re
from collections.abc import Callable
from pathlib import Path

from charlm.core.files import write_text
from charlm.models.base import architecture_of
from charlm.report.figures import COUNT_MODELS
from charlm.report.results import read_comparison, read_samples
from pipeline import without_arguments
from stages import COMPARISON, SAMPLES

ROOT = Path(__file__).resolve().parent.parent

QUOTED = re.compile(r"^(?:(?:\|.*\n)+|Measured on: .*\n)", flags=re.MULTILINE)
SOURCED = re.compile(
    r"^<!-- from ([\w./]+)[;,].*-->\n(?:(?!<!--|## ).*\n)*",
    flags=re.MULTILINE,
)
"""A comment that names a source, and the text below it."""

SHOWN = 5
"""Number of names of each model that the README shows."""


def results(root: Path) -> list[str]:
    """Return the table of the models' test results, the best first."""
    measured = read_comparison(root / COMPARISON, [])
    rows = [
        f"| {_title(name)} | {m['test_loss']:.4f} ± {m['test_loss_stderr']:.4f} "
        f"| {m['test_bits_per_character']:.3f} | {m['test_accuracy']:.1%} | {m['parameters']:,} |\n"
        for name, m in sorted(measured.items(), key=lambda item: item[1]["test_loss"])
    ]
    head = "| | test loss (nats per character) | bits per character | accuracy | parameters |\n"
    return [f"{head}|---|---|---|---|---|\n{''.join(rows)}"]


def names(root: Path) -> list[str]:
    """Return the table of each model's first names, in the order of the parameters."""
    columns = {}
    for name in read_comparison(root / COMPARISON, []):
        if name not in COUNT_MODELS:
            first = read_samples(root / SAMPLES / f"{name}.csv").head(SHOWN)
            known = zip(first["name"], first["in_training"], strict=True)
            columns[_title(name)] = [each if old else f"**{each}**" for each, old in known]
    rows = zip(*columns.values(), strict=True)
    lines = [" | ".join(columns), "|".join(["---"] * len(columns)), *map(" | ".join, rows)]
    return ["".join(f"| {line} |\n" if " " in line else f"|{line}|\n" for line in lines)]


def _title(model: str) -> str:
    return COUNT_MODELS.get(model) or architecture_of(model).title


TABLES: dict[str, Callable[[Path], list[str]]] = {
    COMPARISON.as_posix(): results,
    SAMPLES.as_posix(): names,
}


def refreshed(text: str, root: Path) -> str:
    """Return the text with updated tables. Tables without a source file are unchanged."""

    def quote(part: re.Match[str]) -> str:
        source = root / part[1]
        if not source.exists():
            return part[0]
        if part[1] in TABLES:
            found = TABLES[part[1]](root)
        else:
            found = QUOTED.findall(source.read_text(encoding="utf-8"))
        quoted = iter(found)
        return QUOTED.sub(lambda old: next(quoted, ""), part[0])

    return SOURCED.sub(quote, text)


def main() -> None:
    for path in (
        ROOT / "README.md",
        ROOT / "EXPERIMENTS.md",
        *sorted((ROOT / "docs").glob("*.md")),
    ):
        write_text(path, refreshed(path.read_text(encoding="utf-8"), ROOT))


if __name__ == "__main__":
    without_arguments("readme", __doc__)
    main()
