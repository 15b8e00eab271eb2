"""Open pages from disk in a headless Chromium without network access.

    def test_a_page(pages: Pages) -> None:
        page = pages.open(file, width=400, dark=True)
        assert page.locator("svg").count() == 3
        assert violations(page) == []

A test that uses `pages` fails if a page logs an error or requests anything that is not on disk.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Page,
    Route,
    WebError,
    WebSocketRoute,
)

LOCAL = ("file:", "data:", "blob:", "about:")


class Pages:
    """Opens pages, each in a new profile, and records their errors and network requests."""

    def __init__(self, browser: Browser) -> None:
        self.browser = browser
        self.contexts: list[BrowserContext] = []
        self.errors: list[str] = []
        """Errors that the pages wrote to the console, and exceptions that they did not catch."""
        self.requests: list[str] = []
        """Addresses that the pages requested and that are not on disk; all were blocked."""

    def open(
        self,
        file: Path,
        width: int = 1280,
        height: int = 800,
        dark: bool = False,
        **context: Any,
    ) -> Page:
        """Open a file and return its loaded page. Sizes are in CSS pixels.

        `context` goes to `Browser.new_context` of Playwright: `java_script_enabled=False`, say.
        """
        opened = self.browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme="dark" if dark else "light",
            offline=True,
            service_workers="block",
            **context,
        )
        self.contexts.append(opened)
        opened.on("console", self._on_console)
        opened.on("weberror", self._on_error)
        opened.route("**/*", self._on_request)
        opened.route_web_socket("**/*", self._on_web_socket)
        page = opened.new_page()
        page.goto(file.resolve().as_uri())
        return page

    def settle(self) -> None:
        """Wait until no page has requested anything for half a second."""
        for context in self.contexts:
            for page in context.pages:
                page.wait_for_load_state("networkidle")

    def close(self) -> None:
        for context in self.contexts:
            context.close()

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.errors.append(message.text)

    def _on_error(self, error: WebError) -> None:
        self.errors.append(str(error.error))

    def _on_request(self, route: Route) -> None:
        if route.request.url.startswith(LOCAL):
            route.continue_()
        else:
            self.requests.append(route.request.url)
            route.abort()

    def _on_web_socket(self, socket: WebSocketRoute) -> None:
        self.requests.append(socket.url)
        socket.close()


@contextmanager
def opened_pages(browser: Browser) -> Iterator[Pages]:
    """Yield pages, then check that none logged an error or made a network request."""
    pages = Pages(browser)
    try:
        yield pages
        pages.settle()
    finally:
        pages.close()
    assert pages.requests == [], f"a page asks the network: {pages.requests}"
    assert pages.errors == [], f"a page complains: {pages.errors}"


def violations(page: Page) -> list[str]:
    """Return the accessibility problems that axe finds on a page, one line per element."""
    found = Axe().run(page).response["violations"]
    return [f"{v['id']}: {v['help']}: {node['html']}" for v in found for node in v["nodes"]]
