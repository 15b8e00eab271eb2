"""Pages with errors, network requests or accessibility problems are found; a good page passes."""

from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.browser import Pages, opened_pages, violations

GOOD = """<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>Good</title>
<style>body { background: white } @media (prefers-color-scheme: dark) { body { background: black } }
</style></head>
<body><main><h1>Good</h1><img src="data:image/gif;base64,R0lGODlhAQABAAAAACw=" alt="nothing">
</main></body>
</html>
"""
COMPLAINTS = {
    "it was written": "<script>console.error('it was written')</script>",
    "it was thrown": "<script>throw new Error('it was thrown')</script>",
    "later": "<script>setTimeout(() => { throw new Error('later') }, 100)</script>",
    "ERR_FILE_NOT_FOUND": "<img src='missing.png' alt='missing'>",
}
REQUESTS = {
    "https://example.com/a.png": "<img src='https://example.com/a.png' alt='a'>",
    "http://127.0.0.1:9/a.js": "<script src='http://127.0.0.1:9/a.js'></script>",
    "https://example.com/a.css": "<style>@import 'https://example.com/a.css';</style>",
    "https://example.com/a": "<script>fetch('https://example.com/a').catch(() => 0)</script>",
    "https://example.com/b": "<script>navigator.sendBeacon('https://example.com/b')</script>",
    "wss://example.com/s": "<script>new WebSocket('wss://example.com/s')</script>",
    "https://example.com/f": "<iframe src='https://example.com/f' title='f'></iframe>",
}


def write(folder: Path, text: str) -> Path:
    file = folder / "page.html"
    file.write_text(text, encoding="utf-8")
    return file


def test_a_good_page_has_no_faults_and_the_requested_size_and_colors(
    pages: Pages, tmp_path: Path
) -> None:
    for size, dark, expected in (
        ((1280, 800), False, "rgb(255, 255, 255)"),
        ((320, 480), True, "rgb(0, 0, 0)"),
    ):
        page = pages.open(write(tmp_path, GOOD), *size, dark=dark)
        assert page.title() == "Good"
        assert violations(page) == []
        assert page.evaluate("[innerWidth, innerHeight]") == list(size)
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == expected


def test_a_page_that_logs_errors_is_found(browser: Browser, tmp_path: Path) -> None:
    with (
        pytest.raises(AssertionError, match="a page complains"),
        opened_pages(browser) as pages,
    ):
        pages.open(write(tmp_path, GOOD + "".join(COMPLAINTS.values())))
    assert len(pages.errors) == len(COMPLAINTS)
    for complaint in COMPLAINTS:
        assert complaint in "\n".join(pages.errors)


def test_a_page_that_makes_network_requests_is_found(browser: Browser, tmp_path: Path) -> None:
    with (
        pytest.raises(AssertionError, match="a page asks the network"),
        opened_pages(browser) as pages,
    ):
        pages.open(write(tmp_path, GOOD + "".join(REQUESTS.values())))
    assert sorted(pages.requests) == sorted(REQUESTS)


def test_an_accessibility_problem_is_found(pages: Pages, tmp_path: Path) -> None:
    page = pages.open(write(tmp_path, GOOD.replace(' alt="nothing"', "")))
    (violation,) = violations(page)
    assert violation.startswith("image-alt: ")
    assert "<img src=" in violation
