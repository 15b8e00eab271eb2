"""Take the README's picture of the report's first screen: `python -m pipeline.picture`.

It needs the Chromium that the setup of the tests finds or installs.
"""

from pathlib import Path

from charlm.core.errors import require
from pipeline import without_arguments

REPORT, PICTURE = Path("plots/report.html"), Path("benchmarks/report.png")

# A seeded generator, so that the names in the picture are always the same.
SEEDED = "let n = 7; Math.random = () => (n = (n * 16807) % 2147483647) / 2147483647;"

WIDTH = 1180


def main() -> None:
    require("playwright")
    from tests.chromium import running

    with running() as browser:
        page = browser.new_page(viewport={"width": WIDTH, "height": 800})
        page.add_init_script(SEEDED)
        page.goto(REPORT.resolve().as_uri())
        page.get_by_label("Beginning").fill("MAR")
        page.get_by_role("button", name="Generate ten names").click()
        height = page.evaluate("document.getElementById('comparison').offsetTop")
        page.screenshot(
            path=PICTURE, clip={"x": 0, "y": 0, "width": WIDTH, "height": height}, full_page=True
        )
    print(f"{PICTURE}: {PICTURE.stat().st_size:,} bytes")


if __name__ == "__main__":
    without_arguments("picture", __doc__)
    main()
