"""Write `.dvc/vega.js`, so that the pages of `dvc plots` work offline.

The setup in the Makefile runs this. `.dvc/plots.html` loads the script.
"""

from pathlib import Path

import vl_convert

from charlm.core.files import write_text
from stages import run

SCRIPTS = Path(".dvc/vega.js")
VEGA_LITE = "5.21"
"""DVC writes its plots for Vega-Lite 5."""


def main() -> None:
    bundle = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed", VEGA_LITE)
    # The function keeps the bundle's names out of the global scope.
    write_text(SCRIPTS, f"(() => {{\n{bundle}\n}})();\n")


if __name__ == "__main__":
    run(main)
