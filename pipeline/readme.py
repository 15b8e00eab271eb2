"""Copy the latest benchmark results into README.md and EXPERIMENTS.md.

    python -m pipeline.readme

The tables and "Measured on" lines below `<!-- from FOLDER/NAME.md, ... -->` are replaced by those
of that file, in the same order.
"""

import re
from pathlib import Path

from charlm.core.files import write_text

ROOT = Path(__file__).resolve().parent.parent

QUOTED = re.compile(r"^(?:(?:\|.*\n)+|Measured on: .*\n)", flags=re.MULTILINE)
SOURCED = re.compile(
    r"^<!-- from ((?:benchmarks|experiments)/\w+\.md)\b.*-->\n(?:(?!<!--|## ).*\n)*",
    flags=re.MULTILINE,
)
"""Such a comment and the text up to the next one or the next section."""


def refreshed(text: str, root: Path) -> str:
    """Return the text with updated results; if a source file is missing, they are unchanged."""

    def quote(part: re.Match[str]) -> str:
        source = root / part[1]
        if not source.exists():
            return part[0]
        quoted = iter(QUOTED.findall(source.read_text(encoding="utf-8")))
        return QUOTED.sub(lambda old: next(quoted, ""), part[0])

    return SOURCED.sub(quote, text)


def main() -> None:
    for path in (ROOT / "README.md", ROOT / "EXPERIMENTS.md"):
        write_text(path, refreshed(path.read_text(encoding="utf-8"), ROOT))


if __name__ == "__main__":
    main()
