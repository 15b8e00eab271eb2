"""Run the commands of the guide and update the output shown there.

    python -m pipeline.guide

The guide consists of the ```console blocks of three pages: commands after `$ `, continued after
`> `, each followed by its output. The commands of a page run in order, at full size, in a temporary
clone of HEAD that uses the cache of this checkout. A command with `^C` below it is interrupted
during training. All others must succeed; otherwise, the page is left unchanged. A comment records
the hash of the metrics, so that a test detects outdated pages.

A block below `<!-- only: REGEX -->` shows only matching lines, and `...` in place of the others.
Output that changes in every run (hashes, times, the folder) is replaced with placeholders.
"""

import hashlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from dvc.repo import Repo

from benchmarks import ENVIRONMENT
from benchmarks.turns import say
from charlm.core.files import write_text
from pipeline import without_arguments

ROOT = Path(__file__).resolve().parent.parent
PAGES = (ROOT / "docs/experiments.md", ROOT / "docs/names.md")
COURSE = ROOT / "docs/course.md"

BLOCK = re.compile(
    r"(?P<head>^(?:<!-- only: (?P<only>[^\n]*) -->\n\n?)?```console\n)(?P<body>.*?)^```$",
    flags=re.MULTILINE | re.DOTALL,
)
COMMAND = re.compile(
    r"^\$ (?P<first>.*\n)(?P<rest>(?:> .*\n)*)(?P<printed>(?:(?!\$ ).*\n)*)", flags=re.MULTILINE
)

WRITTEN = "<!-- printed by python -m pipeline.guide, with metrics {} -->"
METRICS = ("dataset", "evaluation", "samples")

LEFT_OUT = "..."
CTRL_C = "^C"
TRAINING = re.compile(r", epoch (?!1/)\d+/")
"""A line of a training after its first epoch."""

HOME = "/home/you"
STAND_INS = [
    (re.compile(r"\b(?=[0-9a-f]*[0-9])(?=[0-9a-f]*[a-f])[0-9a-f]{7}\b"), "1a2b3c4"),
    # One in thirty is all digits, and is recognized by its context.
    (re.compile(r"(?m)(^ *|── |\[main |\.\.)\d{7}(?=  \w| \[|\]|\.\.)"), r"\g<1>1a2b3c4"),
    (re.compile(r"\b\d\d:\d\d [AP]M\b"), "10:00 AM"),
    (re.compile(r", \d+ (?:s|min|h) left"), f", {LEFT_OUT} left"),
    (re.compile(r"(0 active, )\d+ idle"), r"\g<1>0 idle"),  # workers end soon after the last task
]
WIDTH = 92
POLL_SECONDS = 1.0


class UnexpectedError(Exception):
    """A command did not end as in the guide."""


@dataclass(frozen=True)
class Command:
    """A command of the guide and its output there."""

    text: str
    printed: tuple[str, ...] = ()

    @property
    def interrupted(self) -> bool:
        return CTRL_C in self.printed


def written_with(folder: Path) -> str:
    """Return the comment with the hash of the metrics in a checkout."""
    digest = hashlib.md5(usedforsecurity=False)
    for name in METRICS:
        digest.update((folder / f"metrics/{name}.json").read_bytes())
    return WRITTEN.format(digest.hexdigest())


def commands(text: str) -> list[Command]:
    """Return all commands of the guide, in order."""
    return [command for block in BLOCK.finditer(text) for command in _of_block(block)]


def _of_block(block: re.Match[str]) -> Iterator[Command]:
    for found in COMMAND.finditer(block["body"]):
        more = re.sub(r"^> ", "", found["rest"], flags=re.MULTILINE)
        yield Command((found["first"] + more).rstrip("\n"), tuple(found["printed"].splitlines()))


def shown(command: Command, printed: list[str], only: str | None) -> str:
    """Format a command and its output for the guide."""
    lines = command.text.splitlines()
    output = ["$ " + lines[0], *("> " + line for line in lines[1:])]
    for line in filter(str.strip, printed):
        text = line.rstrip()
        for pattern, stand_in in STAND_INS:
            text = pattern.sub(stand_in, text)
        if only is None or text == CTRL_C or re.search(only, text):
            output.append(text)
        elif output[-1] != LEFT_OUT:
            output.append(LEFT_OUT)
    return "".join(f"{line}\n" for line in output)


@dataclass
class Shell:
    """The folder and the environment in which commands run."""

    folder: Path
    environment: Mapping[str, str]
    before: Path | None = None

    def run(self, command: Command) -> list[str]:
        """Run a command and return its output. `cd` changes the folder of later commands.

        If the command starts DVC's queue, wait until the queue is empty.

        Raises UnexpectedError if the command does not end as in the guide.
        """
        if sys.platform == "win32":  # `main` has refused already
            raise NotImplementedError
        if command.text.startswith("cd "):
            return self._cd(command.text.removeprefix("cd "))
        lines: list[str] = []
        with subprocess.Popen(
            ["bash", "-c", command.text],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            start_new_session=True,  # so that Ctrl-C reaches only this process group
            # Background jobs of a shell ignore SIGINT, and the command would inherit that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
        ) as process:
            try:
                for line in process.stdout or ():
                    lines.append(line.rstrip("\n"))
                    if "new experiments task queue worker" in line:
                        break  # the workers keep the pipe open
                    if command.interrupted and CTRL_C not in lines and TRAINING.search(line):
                        os.killpg(process.pid, signal.SIGINT)
                        lines.append(CTRL_C)
            except BaseException:
                os.killpg(process.pid, signal.SIGKILL)
                raise
        ended_well = process.returncode == 0
        as_expected = ended_well != command.interrupted == (CTRL_C in lines)
        if not as_expected or _has_traceback(lines):
            output = "\n".join(lines)
            raise UnexpectedError(f"{output}\nerror: does not end as in the guide: {command.text}")
        if "dvc queue start" in command.text:
            self._wait_for_queue()
        return lines

    def _cd(self, folder: str) -> list[str]:
        back = self.before if folder == "-" else None
        to = back or (self.folder / folder).resolve(strict=True)
        self.folder, self.before = to, self.folder
        return [str(to)] if back else []

    def _wait_for_queue(self) -> None:
        try:
            while re.search("Queued|Running", self._dvc("queue", "status")):
                time.sleep(POLL_SECONDS)
        except BaseException:
            self._dvc("queue", "stop", "--kill")
            raise

    def _dvc(self, *arguments: str) -> str:
        return subprocess.run(
            ["dvc", *arguments],
            cwd=self.folder,
            env=self.environment,
            check=True,
            capture_output=True,
            encoding="utf-8",
        ).stdout


def _has_traceback(lines: list[str]) -> bool:
    return any(line.startswith("Traceback ") for line in lines)


def refreshed(text: str, shell: Shell, root: Path) -> str:
    """Run all commands; return the page with their output, with `root` replaced by `HOME`."""

    def run_block(block: re.Match[str]) -> str:
        output = ""
        for command in _of_block(block):
            say(command.text.partition("\n")[0])
            printed = [line.replace(str(root), HOME) for line in shell.run(command)]
            output += shown(command, printed, block["only"])
        return f"{block['head']}{output}```"

    return BLOCK.sub(run_block, text)


def surroundings(root: Path) -> dict[str, str]:
    """Return the environment of the commands, independent of the user's settings."""
    return {
        **ENVIRONMENT,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), ENVIRONMENT["PATH"]]),
        "COLUMNS": str(WIDTH),
        "DVC_GLOBAL_CONFIG_DIR": str(root / "no"),
        "DVC_SYSTEM_CONFIG_DIR": str(root / "no"),
        "DVC_SITE_CACHE_DIR": str(root / "notes"),
        "DVC_NO_ANALYTICS": "1",
    }


def clone(root: Path) -> Shell:
    """Clone HEAD with its results, and with an origin to push to.

    Results that are not in the cache of this checkout are recreated in the clone.
    """
    origin, folder = root / "origin", root / "names"
    environment = surroundings(root)
    with Repo(str(ROOT)) as repo:
        cache = Path(repo.cache.local.path).parent.parent
    for command, where in (
        (["git", "init", "--quiet", "--bare", "--initial-branch", "main", str(origin)], root),
        (["git", "push", "--quiet", str(origin), "HEAD:refs/heads/main"], ROOT),
        (["git", "clone", "--quiet", str(origin), str(folder)], root),
        (["git", "config", "user.name", "You"], folder),
        (["git", "config", "user.email", "you@example.com"], folder),
        (["dvc", "remote", "add", "--quiet", "--local", "here", str(cache)], folder),
        (["dvc", "pull", "--quiet", "--allow-missing", "--remote", "here"], folder),
        (["dvc", "remote", "remove", "--quiet", "--local", "here"], folder),
        (["dvc", "repro"], folder),
        (["git", "diff", "--stat", "--exit-code"], folder),
    ):
        say(" ".join(command))
        done = subprocess.run(
            command,
            cwd=where,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            check=False,
        )
        if done.returncode and "pull" not in command:
            raise UnexpectedError(f"{done.stdout}error: {' '.join(command)} failed (see above)")
    return Shell(folder, environment)


def main() -> None:
    if sys.platform == "win32":
        sys.exit("error: the guide's commands are for bash; run this on Linux or macOS")
    try:
        for page in (*PAGES, COURSE):
            update(page)
    except UnexpectedError as error:
        sys.exit(str(error))


def update(page: Path) -> None:
    """Run the commands of a page in a clone, and write their output to the page.

    Raises UnexpectedError if a command does not end as the page says.
    """
    before = page.read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory(prefix="guide-", ignore_cleanup_errors=True) as folder:
        root = Path(folder).resolve()
        shell = clone(root)
        comment = written_with(shell.folder)
        after = re.sub(WRITTEN.format(r"\w+"), comment, refreshed(before, shell, root))
    if page.read_text(encoding="utf-8") != before:
        sys.exit(f"error: {page.name} changed in the meantime, so it was not updated; try again")
    write_text(page, after)


if __name__ == "__main__":
    without_arguments("guide", __doc__)
    main()
