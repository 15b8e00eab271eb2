"""Take the screenshot of the report for the README.

    python -m pipeline.picture

Run `make test` first, which installs a browser.
"""

from pathlib import Path

from tests.chromium import running

REPORT, PICTURE = Path("plots/report.html"), Path("benchmarks/report.png")

# A seeded generator, so that the picture always shows the same names.
SEEDED = "let n = 7; Math.random = () => (n = (n * 16807) % 2147483647) / 2147483647;"


def main() -> None:
    with running() as browser:
        page = browser.new_page(viewport={"width": 1180, "height": 800})
        page.add_init_script(SEEDED)
        page.goto(REPORT.resolve().as_uri())
        page.get_by_label("Beginning").fill("MAR")
        page.get_by_role("button", name="Invent ten names").click()
        page.locator("#generator").screenshot(path=PICTURE)
    print(f"{PICTURE}: {PICTURE.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
