"""Show what a change does to the results, as Markdown with pictures: `make report BASE=main`.

HEAD is compared with BASE in two ways, because each shows what the other cannot:

- the committed results at full size. This needs no run, and shows nothing if the author forgot to
  run the stages again;
- a small run of each, on one machine, with the same settings and packages. This shows what the code
  does, whatever is committed, but only whether anything changed: a model that is better after one
  epoch need not be better after fifty.

Everything happens in a temporary clone that uses the cache of this one; uncommitted changes are
ignored. `report.md`, `summary.md` (the same without pictures), the pictures and the pages of `dvc
plots diff` are written to the folder `--out`.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from ruamel.yaml import YAML

CLONE_CONFIG = """\
[cache]
    dir = {cache}
[core]
    autostage = true
"""
"""A clone's .dvc/config.local; with autostage, DVC gives no advice about git."""

RESULTS = ("dvc.lock", "params.yaml", "metrics", "plots")
"""The results of a run that git tracks."""


class CommandError(Exception):
    """A command failed. `said` is its output."""

    def __init__(self, command: tuple[str, ...], said: str) -> None:
        self.said = said
        self.last_line = said.strip().rpartition("\n")[2]
        super().__init__(f"{' '.join(command)}: {self.last_line}")


@dataclass(frozen=True)
class Comparison:
    """The differences between two revisions.

    Attributes:
        metrics: the table of `dvc metrics diff`; empty if nothing differs.
        pictures: the pictures that differ, by path, with the sides that have each.
        unchanged: the number of pictures that do not differ.
    """

    metrics: str
    pictures: dict[str, list[str]]
    unchanged: int


def main() -> None:
    options = parse_options()
    shutil.rmtree(options.out, ignore_errors=True)
    options.out.mkdir(parents=True)
    settings = options.set_param
    commits = {"base": commit_of(options.base), "head": commit_of("HEAD")}
    with tempfile.TemporaryDirectory(prefix="report-") as folder:
        clone = Clone(Path(folder) / "clone")
        clone.make(commits)
        committed = clone.compare("base", "head", options.out / "committed")
        # The base may lack a parameter, or may not run here at all.
        failure = clone.run_small("base", clone.known("base", settings))
        if said := clone.run_small("head", settings):
            sys.exit(f"error: the pipeline fails at HEAD with {' '.join(settings)}: {said}")
        small = failure or clone.compare("small-base", "small-head", options.out / "small")
    with_pictures = markdown(commits, committed, small, settings, pictures=True)
    without = markdown(commits, committed, small, settings, pictures=False)
    (options.out / "report.md").write_text(with_pictures, encoding="utf-8")
    (options.out / "summary.md").write_text(without, encoding="utf-8")
    print(f"{without}\nwritten to {options.out}/report.md")


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Compare HEAD with another commit.")
    parser.add_argument("base", help="the commit to compare with, such as main")
    parser.add_argument("--out", type=Path, default=Path("report"), help="folder (default: report)")
    parser.add_argument(
        *("-S", "--set-param"),
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a parameter of the small runs, as for dvc exp run",
    )
    return parser.parse_args()


def commit_of(revision: str) -> str:
    command = ["git", "rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}"]
    found = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    if found.returncode:
        sys.exit(
            f"error: {revision} is not a commit in this clone; fetch it, or give another: BASE=..."
        )
    return found.stdout.strip()


@dataclass(frozen=True)
class Clone:
    """A temporary clone of the current repository."""

    path: Path

    def make(self, commits: dict[str, str]) -> None:
        """Clone, and create a branch for each of `commits`."""
        self.path.mkdir()
        cache = subprocess.run(["dvc", "cache", "dir"], stdout=subprocess.PIPE, check=True).stdout
        self.run("git", "clone", "--quiet", "--shared", "--no-checkout", str(Path.cwd()), ".")
        self.run("git", "config", "user.name", "report")
        self.run("git", "config", "user.email", "")
        for name, commit in commits.items():
            self.run("git", "checkout", "--quiet", "--detach", commit)
            self.run("git", "branch", "--force", name)
        config = CLONE_CONFIG.format(cache=cache.decode().strip())
        (self.path / ".dvc/config.local").write_text(config, encoding="utf-8")

    def run(self, *command: str) -> str:
        """Return what a command prints."""
        environment = {**os.environ, "DVC_SITE_CACHE_DIR": str(self.path / ".dvc/tmp/notes")}
        done = subprocess.run(
            command,
            cwd=self.path,
            env=environment,
            capture_output=True,
            encoding="utf-8",
            check=False,
        )
        if done.returncode:
            raise CommandError(command, done.stdout + done.stderr)
        return done.stdout

    def known(self, revision: str, settings: list[str]) -> list[str]:
        """Return the settings whose parameters exist in a revision."""
        params = YAML(typ="safe", pure=True).load(
            self.run("git", "show", f"{revision}:params.yaml")
        )
        names = {
            f"{key}.{inner}" if inner else key
            for key, value in params.items()
            for inner in ["", *(value if isinstance(value, dict) else [])]
        }
        return [setting for setting in settings if setting.partition("=")[0] in names]

    def run_small(self, revision: str, settings: list[str]) -> str:
        """Run a revision with these settings and keep it as the branch small-REVISION.

        Returns the last line of the output if the run fails, else an empty string.
        """
        print(f"running {revision} with {' '.join(settings)}", flush=True)
        self.run("git", "checkout", "--quiet", "--force", "--detach", revision)
        try:
            self.run("dvc", "exp", "run", *(f"--set-param={setting}" for setting in settings))
        except CommandError as error:
            print(error.said, file=sys.stderr, flush=True)
            return error.last_line
        self.run("git", "add", "--all", "--", *RESULTS)
        self.run("git", "commit", "--quiet", "--allow-empty", "--message", "Small run")
        self.run("git", "branch", "--force", f"small-{revision}")
        return ""

    def compare(self, base: str, head: str, out: Path) -> Comparison:
        """Compare two branches; write the pictures that differ, and a page with the curves."""
        table = self.run("dvc", "metrics", "diff", base, head, "--md").strip()
        table = table if table.count("\n") > 1 else ""  # only a header
        self.run("dvc", "plots", "diff", base, head, "--out", str(out.resolve() / "plots"))
        of = {side: self.pictures(branch) for side, branch in (("base", base), ("head", head))}
        every = sorted(of["base"].keys() | of["head"].keys())
        pictures: dict[str, list[str]] = {}
        for path in every:
            if of["base"].get(path) == of["head"].get(path):
                continue
            pictures[path] = [side for side, branch in of.items() if path in branch]
            for side in pictures[path]:
                self.extract(of[side][path], out / side / Path(path).name)
        return Comparison(table, pictures, len(every) - len(pictures))

    def pictures(self, revision: str) -> dict[str, str]:
        """Return the blob of each committed picture of a revision, by path."""
        listed = self.run("git", "ls-tree", "-r", "-z", revision, "plots/")
        entries = (entry.split("\t") for entry in listed.split("\0") if entry.endswith(".png"))
        return {path: kind.split()[2] for kind, path in entries}

    def extract(self, blob: str, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as file:
            subprocess.run(
                ["git", "cat-file", "blob", blob], cwd=self.path, stdout=file, check=True
            )


def markdown(
    commits: dict[str, str],
    committed: Comparison,
    small: Comparison | str,
    settings: list[str],
    *,
    pictures: bool,
) -> str:
    """Return the report; `small` is the error message of the base if its small run fails."""
    base, head = (commit[:7] for commit in commits.values())
    lines = [
        f"## Results: {base} (base) and {head} (head)",
        "### As committed",
        *section(committed, "committed", pictures),
        "### Small run",
        f"Both revisions on one machine, with `{' '.join(settings)}`.",
    ]
    if isinstance(small, str):
        lines += [f"The pipeline fails at the base, so there is nothing to compare: `{small}`"]
    else:
        lines += section(small, "small", pictures)
    return "\n\n".join(lines) + "\n"


def section(compared: Comparison, name: str, pictures: bool) -> list[str]:
    if not compared.metrics and not compared.pictures:
        return [f"All metrics and all {compared.unchanged} pictures are the same."]
    lines = [compared.metrics or "All metrics are the same."]
    count = len(compared.pictures)
    lines += [f"Pictures: {count} of {count + compared.unchanged} differ."]
    if not pictures:
        listed = ", ".join(f"`{path}`" for path in compared.pictures)
        return [*lines, f"In the artifact: {listed}"] if listed else lines
    if count:
        rows = ["| | base | head |", "|---|---|---|"]
        for path, sides in compared.pictures.items():
            cells = [
                f"![{side}]({name}/{side}/{Path(path).name})" if side in sides else "none"
                for side in ("base", "head")
            ]
            rows += [f"| `{path}` | {' | '.join(cells)} |"]
        lines += ["<details><summary>Show them</summary>", "\n".join(rows), "</details>"]
    return lines


if __name__ == "__main__":
    try:
        main()
    except CommandError as error:
        sys.exit(f"error: {error}")
