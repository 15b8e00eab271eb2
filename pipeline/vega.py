"""Make `.dvc/vega.js`, with which the pages of `dvc plots` draw without a network.

No stage: set-up runs it. `.dvc/plots.html` loads what it makes.
"""

from pathlib import Path

import vl_convert

from charlm.core.files import write_text
from stages import run

SCRIPTS = Path(".dvc/vega.js")
VEGA_LITE = "5.21"
"""DVC writes its plots in version 5 of the language."""


def main() -> None:
    bundle = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed", VEGA_LITE)
    # Its thousands of names would else be the page's, next to those that DVC gives.
    write_text(SCRIPTS, f"(() => {{\n{bundle}\n}})();\n")


if __name__ == "__main__":
    run(main)
