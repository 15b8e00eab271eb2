"""Put what the benchmarks measured last into the README and EXPERIMENTS.md.

    python -m pipeline.readme

Below `<!-- from benchmarks/NAME.md, ... -->` these have the tables of that file and the line
that says on what they were measured, one for one and in the same order.
"""

import re
from pathlib import Path

from charlm.core.files import write_text

ROOT = Path(__file__).resolve().parent.parent

QUOTED = re.compile(r"^(?:(?:\|.*\n)+|Measured on: .*\n)", flags=re.MULTILINE)
SOURCED = re.compile(
    r"^<!-- from (benchmarks/\w+\.md)\b.*-->\n(?:(?!<!--|## ).*\n)*", flags=re.MULTILINE
)
"""What stands below such a comment, up to the next one or the next section."""


def refreshed(text: str, root: Path) -> str:
    """The text of such a file with what the files say now; where one is missing, it stays."""

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
