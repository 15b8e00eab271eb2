"""Put what the benchmarks measured last into the README.

    python -m benchmarks.readme

Below `<!-- from benchmarks/NAME.md, ... -->` the README has the tables of that file and the line
that says on what they were measured, one for one and in the same order.
"""

import re
from pathlib import Path

from charlm.files import write_text

ROOT = Path(__file__).resolve().parent.parent

QUOTED = re.compile(r"^(?:(?:\|.*\n)+|Measured on: .*\n)", flags=re.MULTILINE)
SOURCED = re.compile(
    r"^<!-- from (benchmarks/\w+\.md)\b.*-->\n(?:(?!<!--|## ).*\n)*", flags=re.MULTILINE
)
"""What stands below such a comment, up to the next one or the next section."""


def refreshed(readme: str, root: Path) -> str:
    """The README's text with what the files say now; where one is missing, it stays."""

    def quote(part: re.Match[str]) -> str:
        source = root / part[1]
        if not source.exists():
            return part[0]
        quoted = iter(QUOTED.findall(source.read_text(encoding="utf-8")))
        return QUOTED.sub(lambda old: next(quoted, ""), part[0])

    return SOURCED.sub(quote, readme)


def main() -> None:
    readme = ROOT / "README.md"
    write_text(readme, refreshed(readme.read_text(encoding="utf-8"), ROOT))


if __name__ == "__main__":
    main()
