"""Take the README's screenshot of the report: `python -m pipeline.picture`, after `make test`."""

from pathlib import Path

from tests.chromium import running

REPORT, PICTURE = Path("plots/report.html"), Path("benchmarks/report.png")

# A seeded generator, so that the names in the picture are always the same.
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
