"""The GitHub workflow: these tests run its steps, with everything except GitHub itself.

`Runner` stands for the machine: it evaluates the conditions, passes the environment on, and runs
the commands as they are written. There are stubs for `gh`, which logs its requests, and for the
virtual environment, which is the one that runs the tests. The repository, its remote, `make`, DVC
and the pipeline are real.
"""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.conftest import ROOT, WARM, Project

FILE = ROOT / ".github/workflows/checks.yml"
WORKFLOW = YAML(typ="safe", pure=True).load(FILE)
JOBS = WORKFLOW["jobs"]
STEPS = [(job, step) for job, its in JOBS.items() for step in its["steps"]]
RUNS = [step["run"] for _, step in STEPS if "run" in step]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


def check(schema: str, *files: Path) -> str:
    """Return what check-jsonschema reports about files; an empty string if they are valid."""
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema]
    ran = subprocess.run([*command, *map(str, files)], capture_output=True, text=True, check=False)
    return "" if ran.returncode == 0 else ran.stdout + ran.stderr


def test_the_workflow_is_valid_and_every_job_ends(tmp_path: Path) -> None:
    assert check("vendor.github-workflows", FILE) == ""
    assert check("custom.github-workflows-require-timeout", FILE) == ""
    broken = tmp_path / "checks.yml"
    broken.write_text(FILE.read_text(encoding="utf-8").replace("runs-on:", "run-on:"), "utf-8")
    assert "run-on" in check("vendor.github-workflows", broken)


def test_the_commands_that_the_workflow_calls_exist() -> None:
    targets = re.findall(r"\bmake ([\w-]+)", "\n".join(RUNS))
    assert set(targets) == {"test", "smoke", "report"}
    for target in targets:
        assert re.search(rf"^{target}:", MAKEFILE, flags=re.MULTILINE), target
    scripts = re.findall(r"\S+\.py\b", "\n".join(RUNS))
    assert set(scripts) == {"run.py", ".github/post.py"}
    for script in scripts:
        assert (ROOT / script).is_file()
    commands = re.findall(r"\brun\.py ([\w-]+)", "\n".join(RUNS))
    assert set(commands) == {"test", "smoke"}
    command = [sys.executable, "run.py", "help"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in commands:
        assert re.search(rf"\brun\.py {name}\b", listed), name
    caching = [step["with"] for _, step in STEPS if "setup-python" in step.get("uses", "")]
    for its in caching:
        assert its["cache"] == "pip"
        for pattern in its["cache-dependency-path"].split():
            assert list(ROOT.glob(pattern))


def test_every_system_is_tested_with_the_oldest_and_newest_python() -> None:
    matrices = [JOBS[job]["strategy"]["matrix"] for job in ("test", "elsewhere")]
    assert [system for matrix in matrices for system in matrix["system"]] == [
        "ubuntu-latest",
        "ubuntu-24.04-arm",
        "macos-latest",
        "windows-latest",
    ]
    supported = re.search(r"^PYTHONS = .*$", (ROOT / "run.py").read_text("utf-8"), re.MULTILINE)
    newest, *_, oldest = re.findall(r"[\d.]+", supported[0])
    assert all(matrix["python"] == [oldest, newest] for matrix in matrices)
    for job, step in STEPS:
        if "setup-python" in step.get("uses", ""):
            of_matrix = "strategy" in JOBS[job]
            version, system = step["with"]["python-version"], JOBS[job]["runs-on"]
            assert version == ("${{ matrix.python }}" if of_matrix else oldest)
            assert system == ("${{ matrix.system }}" if of_matrix else "ubuntu-latest")


def test_a_job_fetches_the_history_only_if_it_needs_it() -> None:
    for job, its in JOBS.items():
        runs = " ".join(step.get("run", "") for step in its["steps"])
        needs = re.search(r"(make|run\.py) (smoke|report)", runs)
        (checkout,) = (step for step in its["steps"] if "checkout" in step.get("uses", ""))
        assert checkout.get("with", {}).get("fetch-depth", 1) == (0 if needs else 1), job


def test_jobs_have_no_more_permissions_than_they_need() -> None:
    assert WORKFLOW["permissions"] == {"contents": "read"}
    rights = {name: job["permissions"] for name, job in JOBS.items() if "permissions" in job}
    assert rights == {"comment": {"contents": "write", "pull-requests": "write"}}
    assert "pull_request_target" not in WORKFLOW["on"]
    assert not any("make" in step.get("run", "") for step in JOBS["comment"]["steps"])
    for name, step in STEPS:
        assert "${{" not in step.get("run", ""), "what others wrote would be run"
        if "uses" in step:
            assert re.fullmatch(r"actions/[a-z-]+@[0-9a-f]{40}", step["uses"])
        if "checkout" in step.get("uses", "") and name != "comment":
            assert step["with"]["persist-credentials"] is False


GH = """#!{python} -IS
import json, sys
arguments = sys.argv[1:]
bodies = [a.removeprefix("body=@") for a in arguments if a.startswith("body=@")]
body = open(bodies[0], encoding="utf-8").read() if bodies else None
with open({log!r}, "a", encoding="utf-8") as log:
    log.write(json.dumps([arguments, body]) + "\\n")
if body is None:
    print(open({comments!r}, encoding="utf-8").read(), end="")
"""


@dataclass
class Runner:
    """A GitHub machine that runs jobs of the workflow in a checkout.

    Attributes:
        context: Values for `${{ }}` and conditions, by name.
        asked: The requests made through `gh`, each with the comment sent along.
    """

    checkout: Project
    folder: Path
    context: dict[str, str]
    env: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        bin_folder = self.folder / "venv/bin"
        bin_folder.mkdir(parents=True)
        beside = Path(sys.executable).parent
        python = Path(WARM[0]) / "python" if WARM else Path(sys.executable)
        for name, target in (("python", python), ("dvc", beside / "dvc")):
            (bin_folder / name).symlink_to(target)
        for mark in (".installed", ".installed-dev"):
            (bin_folder.parent / mark).touch()
        self.log, self.comments = self.folder / "gh.jsonl", self.folder / "comments.jsonl"
        self.comments.touch()
        stub = self.folder / "gh"
        paths = {"log": str(self.log), "comments": str(self.comments)}
        stub.write_text(GH.format(python=sys.executable, **paths), encoding="utf-8")
        stub.chmod(0o755)
        self.env = {
            "HOME": str(self.folder),
            "VENV": str(bin_folder.parent),
            "GITHUB_STEP_SUMMARY": str(self.folder / "summary.md"),
            "GITHUB_REPOSITORY": self.context["github.repository"],
            "GITHUB_SERVER_URL": "https://github.com",
        }

    def value(self, text: str) -> str:
        quoted = re.fullmatch(r"'(.*)'", text)
        return quoted[1] if quoted else self.context[text]

    def holds(self, condition: str) -> bool:
        """Return whether a condition, made of equalities joined by &&, holds."""
        pairs = (term.split("==") for term in condition.split("&&"))
        return all(self.value(a.strip()) == self.value(b.strip()) for a, b in pairs)

    def variables(self, of: dict[str, Any]) -> dict[str, str]:
        return {
            name: re.sub(r"\$\{\{ (.*?) \}\}", lambda found: self.value(found[1]), value)
            for name, value in of.get("env", {}).items()
        }

    def run(self, job: str, code: int = 0) -> list[str]:
        """Run a job if its condition holds. Return the names of the steps that ran commands."""
        if not self.holds(JOBS[job].get("if", "'' == ''")):
            return []
        done = []
        for step in JOBS[job]["steps"]:
            if "run" in step and self.holds(step.get("if", "'' == ''")):
                env = self.env | self.variables(WORKFLOW) | self.variables(step)
                # Project.run puts its own folders at the front of PATH.
                script = f'export PATH="{self.folder}:$PATH"\n{step["run"]}'
                command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script]
                self.checkout.run(*command, code=code, **env)
                done.append(step["name"])
        return done

    @property
    def asked(self) -> list[tuple[list[str], str | None]]:
        return [tuple(json.loads(line)) for line in self.log.read_text("utf-8").splitlines()]


@dataclass
class Pull:
    """A pull request as GitHub checks it out: merged into its base."""

    runner: Runner
    remote: Project

    @property
    def report(self) -> Path:
        return self.runner.checkout.path / "report"


def context(event: str, head: str = "owner/names") -> dict[str, str]:
    return {
        "github.event_name": event,
        "github.repository": "owner/names",
        "github.event.pull_request.head.repo.full_name": head,
        "github.event.pull_request.number": "12",
        "github.token": "secret",
    }


def merged(template: Project, folder: Path) -> Project:
    """Return GitHub's checkout of a pull request that makes a net smaller and includes its run."""
    author = Project(folder / "author")
    shutil.copytree(template.path, author.path, symlinks=True)
    author.git("checkout", "--quiet", "-b", "smaller")
    author.set(fcn__hidden_dim="12")
    author.dvc("repro")
    author.commit("A smaller net")
    author.git("checkout", "--quiet", "main")
    (author.path / "NOTES").write_text("what came to main meanwhile\n", encoding="utf-8")
    author.commit("Notes")
    author.git("merge", "--quiet", "--no-ff", "smaller", "--message", "Merge")
    author.git("clone", "--quiet", "--bare", ".", str(folder / "remote.git"))
    checkout = Project(folder / "remote.git").clone(folder / "checkout")
    checkout.git("checkout", "--quiet", "--detach")
    checkout.git("config", "--remove-section", "user")  # the CI machine has no user
    return checkout


def share_cache(checkout: Project, of: Project) -> None:
    """Share the cache of another project, so that DVC takes the results and runs nothing."""
    checkout.dvc("config", "--local", "cache.dir", str(of.path / ".dvc/cache"))


def report(checkout: Project, *arguments: str, code: int = 0) -> str:
    return checkout.run("python", ".github/report.py", *arguments, code=code).text


@pytest.fixture(scope="module")
def pull(template: Project, tmp_path_factory: pytest.TempPathFactory) -> Pull:
    """A pull request with a written report, whose "small" part uses the committed settings."""
    folder = tmp_path_factory.mktemp("pull")
    checkout = merged(template, folder)
    share_cache(checkout, Project(folder / "author"))
    runner = Runner(checkout, folder / "runner", context("pull_request"))
    summary = report(checkout, "HEAD^1", "-S", "epochs=2", "-S", "sample.count=20")
    (runner.folder / "summary.md").write_text(summary, encoding="utf-8")
    return Pull(runner, Project(folder / "remote.git"))


def rows(table: str, metric: str) -> list[list[str]]:
    cells = [[c.strip() for c in line.split("|")] for line in table.splitlines()]
    return [row for row in cells if len(row) > 2 and row[2] == metric]


@pytest.mark.slow
def test_the_report_compares_the_metrics(pull: Pull) -> None:
    text = (pull.report / "report.md").read_text(encoding="utf-8")
    git = pull.runner.checkout.git
    base, head = (
        json.loads(git("show", f"{revision}:metrics/evaluation.json"))["fcn"]
        for revision in ("HEAD^1", "HEAD")
    )
    committed, small = text.split("### Small run")
    for part in (committed, small):
        for metric in ("parameters", "test_loss"):
            (row,) = rows(part, f"fcn.{metric}")
            shown = [float(cell) for cell in row[3:5]]
            assert shown == pytest.approx([base[metric], head[metric]], abs=1e-5)
            assert base[metric] != head[metric]
    assert "`epochs=2 sample.count=20`" in small
    assert not rows(text, "wavenet.test_loss"), "which is another model"
    for revision in ("HEAD^1", "HEAD"):
        assert git("rev-parse", revision)[:7] in text


@pytest.mark.slow
def test_the_report_shows_changed_figures_side_by_side(pull: Pull) -> None:
    text = (pull.report / "report.md").read_text(encoding="utf-8")
    assert re.search(r"^Pictures: \d of \d+ differ\.$", text, flags=re.MULTILINE)
    for name in ("committed", "small"):
        cells = [f"![{side}]({name}/{side}/losses.png)" for side in ("base", "head")]
        assert f"| `plots/figures/losses.png` | {' | '.join(cells)} |" in text
        page = (pull.report / name / "plots/index.html").read_text(encoding="utf-8")
        assert "Fully connected net" in page
    for address in re.findall(r"!\[\w+\]\(([^)]+)\)", text):
        assert (pull.report / address).read_bytes().startswith(b"\x89PNG")
    of_head = (pull.report / "committed/head/losses.png").read_bytes()
    assert of_head == (pull.runner.checkout.path / "plots/figures/losses.png").read_bytes()


@pytest.mark.slow
def test_the_summary_has_tables_and_no_figures(pull: Pull) -> None:
    summary = (pull.runner.folder / "summary.md").read_text(encoding="utf-8")
    assert len(rows(summary, "fcn.test_loss")) == 2
    assert "![" not in summary
    assert "In the artifact: `plots/" in summary


@pytest.mark.slow
def test_the_report_leaves_the_checkout_as_it_was(pull: Pull) -> None:
    assert pull.runner.checkout.git("status", "--short") == ""
    assert pull.runner.checkout.git("branch", "--list", "small-*") == ""


BRANCH = "report-pictures"


def pictures_of(remote: Project) -> dict[str, str]:
    lines = remote.git("ls-tree", "-r", BRANCH).splitlines()
    return {line.split("\t")[1]: line.split()[2] for line in lines}


@pytest.mark.slow
def test_the_comment_is_created_once_and_then_updated(pull: Pull) -> None:
    runner, remote = pull.runner, pull.remote
    assert runner.run("comment") == ["The comment"]
    listing, (written, body) = runner.asked
    assert listing[0][:3] == [
        "api",
        "--paginate",
        "repos/owner/names/issues/12/comments?per_page=100",
    ]
    assert written[:4] == ["api", "--method", "POST", "repos/owner/names/issues/12/comments"]
    assert body is not None
    first, rest = body.split("\n", 1)
    assert first == "<!-- the report of the pipeline -->"
    report = (pull.report / "report.md").read_text(encoding="utf-8")
    assert re.sub(r"\]\([^)]*\)", "]()", rest) == re.sub(r"\]\([^)]*\)", "]()", report)

    # Every figure is at its address in the branch, and is the one in the report.
    addresses = re.findall(r"!\[\w+\]\(([^)]+)\)", rest)
    names = re.findall(r"!\[\w+\]\(([^)]+)\)", report)
    assert len(addresses) == len(names) > 4
    raw = f"https://github.com/owner/names/raw/{BRANCH}/"
    kept = pictures_of(remote)
    for address, name in zip(addresses, names, strict=True):
        blob = kept[address.removeprefix(raw)]
        assert blob == runner.checkout.git("hash-object", f"report/{name}").strip()
    assert set(kept) == {address.removeprefix(raw) for address in addresses}

    # Again, with figures of another pull request in the branch, and fewer of this one.
    others = "pull-7/other.png"
    runner.checkout.git("fetch", "--quiet", "origin", BRANCH)
    runner.checkout.git("read-tree", "FETCH_HEAD")
    blob = runner.checkout.git("hash-object", "-w", "Makefile").strip()
    runner.checkout.git("update-index", "--add", "--cacheinfo", f"100644,{blob},{others}")
    tree = runner.checkout.git("write-tree").strip()
    runner.checkout.git("read-tree", "HEAD")
    runner.checkout.sign()
    commit = runner.checkout.git("commit-tree", tree, "-m", "Another's").strip()
    runner.checkout.git("push", "--quiet", "--force", "origin", f"{commit}:refs/heads/{BRANCH}")
    text = "\n".join(line for line in report.splitlines() if "losses" not in line)
    (pull.report / "report.md").write_text(text, encoding="utf-8")
    said = [
        {"id": 1, "body": f"{first}\nnot ours", "login": "someone"},
        {"id": 2, "body": "ours, and another", "login": "github-actions[bot]"},
        {"id": 3, "body": body, "login": "github-actions[bot]"},
    ]
    runner.comments.write_text("".join(json.dumps(it) + "\n" for it in said), encoding="utf-8")
    runner.run("comment")
    (pull.report / "report.md").write_text(report, encoding="utf-8")
    written, again = runner.asked[-1]
    assert written[:4] == ["api", "--method", "PATCH", "repos/owner/names/issues/comments/3"]
    assert again is not None
    assert "losses.png" not in again
    now = pictures_of(remote)
    assert others in now
    assert set(now) < {*kept, others}
    assert remote.git("rev-list", "--count", BRANCH).strip() == "1", "the branch has no past"
    assert runner.checkout.git("status", "--short") == ""


@pytest.mark.slow
def test_a_concurrent_push_to_the_branch_of_figures_is_not_lost(pull: Pull, tmp_path: Path) -> None:
    """The remote rejects the first push, as if it came too late."""
    hook = pull.remote.path / "hooks/pre-receive"
    hook.write_text(f"#!/bin/sh\n[ -e {tmp_path}/once ] || {{ touch {tmp_path}/once; exit 1; }}\n")
    hook.chmod(0o755)
    pull.runner.run("comment")
    assert (tmp_path / "once").exists()
    hook.write_text("#!/bin/sh\nexit 1\n")
    pull.remote.git("update-ref", "-d", f"refs/heads/{BRANCH}")
    asked = len(pull.runner.asked)
    pull.runner.run("comment", code=1)
    assert len(pull.runner.asked) == asked, "a comment without its pictures"
    hook.unlink()


@pytest.mark.slow
def test_a_pull_request_from_a_fork_needs_no_write_permission(pull: Pull, tmp_path: Path) -> None:
    fork = Runner(pull.runner.checkout, tmp_path, context("pull_request", head="fork/names"))
    assert fork.run("comment") == []
    assert not fork.log.exists()
    assert JOBS["small"].get("if") is None, "which runs, and keeps the report as an artifact"


@pytest.mark.slow
def test_the_report_says_that_nothing_differs(project: Project) -> None:
    (project.path / "NOTES").write_text("nothing to run\n", encoding="utf-8")
    project.commit("Notes")
    told = report(project, "HEAD~1", "-S", "epochs=2")
    nothing = r"^All metrics and all \d+ pictures are the same\.$"
    assert len(re.findall(nothing, told, flags=re.MULTILINE)) == 2


@pytest.mark.slow
def test_a_base_that_lacks_a_setting_or_fails_is_reported(project: Project) -> None:
    params = project.path / "params.yaml"
    text = params.read_text(encoding="utf-8")
    params.write_text(text.replace("epochs:", "epoch:", 1), encoding="utf-8")
    project.commit("What does not run, and has no epochs")
    params.write_text(text, encoding="utf-8")
    project.commit("Fixed")
    told = report(project, "HEAD~1", "-S", "epochs=2", "-S", "sample.count=20")
    assert "running base with sample.count=20\n" in told
    assert "The pipeline fails at the base, so there is nothing to compare: `" in told
    told = report(project, "HEAD~1", "-S", "nothing=1", code=1)
    assert told.splitlines()[-1].startswith("error: the pipeline fails at HEAD with nothing=1: ")


def test_an_unknown_base_is_reported_in_one_line(template: Project) -> None:
    told = report(template, "nowhere", code=1)
    assert (
        told
        == "error: nowhere is not a commit in this clone; fetch it, or give another: BASE=...\n"
    )


@pytest.mark.slow
def test_the_pipeline_runs_at_small_size_on_a_pull_request_and_on_a_push(
    template: Project, tmp_path: Path
) -> None:
    checkout = merged(template, tmp_path)
    pulled = Runner(checkout, tmp_path / "pulled", context("pull_request"))
    assert pulled.run("small") == ["The pipeline at small size, before and after"]
    text = (checkout.path / "report/report.md").read_text(encoding="utf-8")
    committed, small = text.split("### Small run")
    assert "`epochs=1 compact.epochs=1 hybrid.epochs=1 sample.count=100`" in small
    ((_, _, _, *of_run),), ((_, _, _, *of_small),) = (
        rows(part, "fcn.test_loss") for part in (committed, small)
    )
    assert of_run != of_small
    summary = (pulled.folder / "summary.md").read_text(encoding="utf-8")
    assert summary == (checkout.path / "report/summary.md").read_text(encoding="utf-8")
    assert checkout.git("status", "--short") == ""

    pushed = Runner(checkout, tmp_path / "pushed", context("push"))
    assert pushed.run("small") == ["The pipeline at small size"]
    assert pushed.run("comment") == []
    assert checkout.git("status", "--short") == ""
