"""Find a headless Chromium for the tests, or install one.

The setup of the tests runs this once: python -m tests.chromium
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from playwright.sync_api import Browser, Error, Playwright, sync_playwright

COMMANDS = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"]
REMEDY = (
    "the tests need Chromium, and none starts here; install it (on Debian "
    "'apt-get install chromium libatomic1', elsewhere 'python -m playwright install "
    "--with-deps chromium'), or set CHROMIUM=/path/to/chrome"
)

# Playwright itself switches first-run pages, updates, background requests and the sandbox off.
FLAGS = ["--disable-gpu", "--disable-sync"]

START_SECONDS = 60
INSTALL_SECONDS = 900
"""Time limit for an installation. Each command gives up earlier if no server answers."""

APT = ["-oAcquire::Retries=1", "-oAcquire::http::Timeout=20", "-oDPkg::Lock::Timeout=60"]
DEBIAN = ["chromium", "libatomic1"]  # Playwright's driver needs libatomic1
PLAYWRIGHT = [sys.executable, "-m", "playwright", "install", "--only-shell"]


class NoChromiumError(Exception):
    """No Chromium starts; the message is one line that says how to get one."""


def candidates(environment: Mapping[str, str]) -> Iterator[str | None]:
    """Yield the paths of browsers that seem installed, best first; None means Playwright's own."""
    if named := environment.get("CHROMIUM"):
        yield named
        return
    for command in COMMANDS:
        if path := shutil.which(command, path=environment.get("PATH", os.defpath)):
            yield path
    yield None


def open_from_disk(browser: Browser) -> bool:
    """Return whether the browser opens a page in the temporary folder; one from a snap does not."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "page.html"
        file.write_text("<title>open</title>", encoding="utf-8")
        page = browser.new_page()
        try:
            page.goto(file.as_uri())
            return page.title() == "open"
        finally:
            page.close()


def launch(playwright: Playwright, environment: Mapping[str, str]) -> Browser:
    """Start the first browser that opens a page. Raises NoChromiumError if none does."""
    for path in candidates(environment):
        try:
            browser = playwright.chromium.launch(
                executable_path=path, args=FLAGS, timeout=START_SECONDS * 1000
            )
        except Error:
            continue
        try:
            if open_from_disk(browser):
                return browser
        except Error:
            pass
        browser.close()
    if named := environment.get("CHROMIUM"):
        raise NoChromiumError(f"CHROMIUM={named} is no Chromium that starts and opens a page")
    raise NoChromiumError(REMEDY)


@contextmanager
def running() -> Iterator[Browser]:
    """Yield a running browser. Raises NoChromiumError if none starts."""
    try:
        playwright = sync_playwright().start()
    except Exception as error:  # Playwright's driver exited at once, without a narrower exception
        raise NoChromiumError(REMEDY) from error
    try:
        browser = launch(playwright, os.environ)
        yield browser
        browser.close()
    finally:
        playwright.stop()


def ways(environment: Mapping[str, str], root: bool) -> list[list[list[str]]]:
    """Return ways to install a browser, likeliest to work first, each as a list of commands.

    Installing from Debian needs root, and brings the libraries that a bare machine lacks.
    Playwright's download needs no privileges, but it needs those libraries and its own server.
    """
    path = environment.get("PATH", os.defpath)
    apt, sudo = shutil.which("apt-get", path=path), shutil.which("sudo", path=path)
    if root and apt:
        return [from_debian([apt]), [[*PLAYWRIGHT, "--with-deps", "chromium"]]]
    download = [[*PLAYWRIGHT, "chromium"]]
    return [download, from_debian([sudo, "-n", apt])] if sudo and apt else [download]


def from_debian(apt: list[str]) -> list[list[str]]:
    return [
        [*apt, *APT, "update"],
        [*apt, *APT, "install", "--yes", "--no-install-recommends", *DEBIAN],
    ]


def ran(command: list[str], seconds: float = INSTALL_SECONDS) -> bool:
    """Return whether a command succeeded within that time. Whatever it started ends with it."""
    print("+", *command, flush=True)
    environment = {
        "DEBIAN_FRONTEND": "noninteractive",
        "PLAYWRIGHT_DOWNLOAD_CONNECTION_TIMEOUT": "10000",
        **os.environ,
    }
    process = subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL, start_new_session=True
    )
    try:
        return process.wait(seconds) == 0
    except subprocess.TimeoutExpired:
        return False
    finally:
        if process.poll() is None:
            if sys.platform == "win32":
                process.kill()
            else:
                with suppress(PermissionError):  # a process of sudo belongs to root
                    os.killpg(process.pid, signal.SIGTERM)


def version() -> str:
    """Return the version of the browser that starts. Raises NoChromiumError if none does."""
    with running() as browser:
        return browser.version


def find_or_install() -> str:
    """Return the version as `version` does, after installing a browser if necessary."""
    try:
        return version()
    except NoChromiumError:
        if os.environ.get("CHROMIUM"):
            raise
    root = sys.platform != "win32" and os.geteuid() == 0
    for way in ways(os.environ, root=root):
        if all(ran(command) for command in way):
            with suppress(NoChromiumError):
                return version()
    raise NoChromiumError(REMEDY)


def main() -> None:
    try:
        print(f"Chromium {find_or_install()}")
    except NoChromiumError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
