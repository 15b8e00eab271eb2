"""Setup uses an existing Chromium, installs one if there is none, and never hangs."""

import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
from playwright.sync_api import Browser

from tests.chromium import REMEDY, candidates, ran, ways
from tests.conftest import ROOT


def program(folder: Path, name: str, text: str = "exit 1") -> Path:
    file = folder / name
    file.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    file.chmod(0o755)
    return file


def set_up(path: Path, **env: str) -> "subprocess.CompletedProcess[str]":
    """Run setup with one folder as PATH, no browser from Playwright, and no answering server."""
    environment = {
        "PATH": str(path),
        "HOME": str(path),
        "PLAYWRIGHT_BROWSERS_PATH": str(path / "browsers"),
        "PLAYWRIGHT_DOWNLOAD_HOST": "http://127.0.0.1:9",
        **env,
    }
    return subprocess.run(
        [sys.executable, "-m", "tests.chromium"],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_named_browser_comes_before_path_and_path_before_playwright(
    tmp_path: Path,
) -> None:
    environment = {"PATH": str(tmp_path)}
    assert list(candidates(environment)) == [None]
    chrome = program(tmp_path, "google-chrome")
    chromium = program(tmp_path, "chromium")
    assert list(candidates(environment)) == [str(chromium), str(chrome), None]
    assert list(candidates({**environment, "CHROMIUM": "/opt/mine"})) == ["/opt/mine"]


def test_root_installs_from_debian_and_others_try_without_privileges_first(tmp_path: Path) -> None:
    def tools(root: bool) -> list[str]:
        """Return what each way ends with, without folders and options."""
        last = [way[-1] for way in ways({"PATH": str(tmp_path)}, root)]
        return [
            " ".join(Path(part).name for part in command if part != "-m").split(" -")[0]
            for command in last
        ]

    python = Path(sys.executable).name
    playwright = f"{python} playwright install"
    assert tools(root=True) == tools(root=False) == [playwright]
    program(tmp_path, "apt-get")
    assert tools(root=True) == ["apt-get", playwright]
    assert tools(root=False) == [playwright]
    program(tmp_path, "sudo")
    assert tools(root=False) == [playwright, "sudo"]


def test_a_browser_is_installed_if_there_is_none(browser: Browser, tmp_path: Path) -> None:
    session = browser.new_browser_cdp_session()
    real, _, _ = session.send("SystemInfo.getInfo")["commandLine"].partition(" --")
    chromium = program(tmp_path, "later", f'exec "{real}" "$@"')
    program(tmp_path, "sudo", 'shift; exec "$@"')
    copy = f'case "$*" in *chromium*) /bin/cp {chromium} {tmp_path}/chromium;; esac'
    program(tmp_path, "apt-get", f'echo "$@" >> {tmp_path}/log; {copy}')
    done = set_up(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith(f"Chromium {browser.version}\n")
    update, install = (tmp_path / "log").read_text(encoding="utf-8").splitlines()
    assert update.endswith(" update")
    assert install.endswith(" install --yes --no-install-recommends chromium libatomic1")
    again = set_up(tmp_path)
    assert again.stdout == f"Chromium {browser.version}\n"


def test_if_none_can_be_installed_one_line_says_what_to_do(tmp_path: Path) -> None:
    program(tmp_path, "chromium")
    program(tmp_path, "apt-get")
    for driver in ({}, {"PLAYWRIGHT_NODEJS_PATH": "/bin/false"}):
        done = set_up(tmp_path, **driver)
        assert done.returncode == 1
        assert done.stderr.splitlines()[-1] == REMEDY
        assert "Traceback" not in done.stderr


def test_a_named_browser_that_does_not_start_is_reported(
    tmp_path: Path,
) -> None:
    named = program(tmp_path, "mine")
    done = set_up(tmp_path, CHROMIUM=str(named))
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == f"CHROMIUM={named} is no Chromium that starts and opens a page\n"


def test_a_hanging_installation_is_killed_with_everything_it_started(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    hanging = program(tmp_path, "hanging", f"sleep 600 & echo $! > {file}; wait")
    assert not ran([str(hanging)], seconds=2)
    (started,) = map(int, file.read_text(encoding="utf-8").split())
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(started)
        deadline = time.monotonic() + 30
        while process.status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < deadline
            time.sleep(0.05)
