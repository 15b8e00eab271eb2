"""Post a report on a pull request, in a comment that later reports replace: post.py FOLDER PULL.

A comment shows pictures only by URL, so they are pushed to a branch of their own. It has a single
commit without history, with one folder for each pull request, so the repository does not grow. Each
URL contains git's hash of the picture, so no cache shows an outdated one.

This runs on GitHub, where `gh` and the rights to push and to comment are available. It needs the
runner's Python, and no packages.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

BRANCH = "report-pictures"
MARK = "<!-- the report of the pipeline -->"
AUTHOR = "github-actions[bot]"
ATTEMPTS = 5


def main() -> None:
    folder, pull = Path(sys.argv[1]), int(sys.argv[2])
    repository = os.environ["GITHUB_REPOSITORY"]
    text = (folder / "report.md").read_text(encoding="utf-8")
    shown = dict.fromkeys(re.findall(r"!\[[^\]]*\]\(([^)]+)\)", text))
    blobs = {name: git("hash-object", "-w", str(folder / name)) for name in shown}
    if blobs:
        push({f"pull-{pull}/{blob}.png": blob for blob in blobs.values()}, f"pull-{pull}")
    server = os.environ["GITHUB_SERVER_URL"]
    for name, blob in blobs.items():
        address = f"{server}/{repository}/raw/{BRANCH}/pull-{pull}/{blob}.png"
        text = text.replace(f"]({name})", f"]({address})")
    comment(f"repos/{repository}/issues", pull, f"{MARK}\n{text}")


def push(files: dict[str, str], folder: str) -> None:
    """Replace a folder of the branch with blobs, given by path."""
    for _ in range(ATTEMPTS):  # another pull request may push meanwhile
        listed = git("ls-remote", "origin", f"refs/heads/{BRANCH}")
        before = listed.split()[0] if listed else ""
        with tempfile.TemporaryDirectory() as aside:
            index = {"GIT_INDEX_FILE": f"{aside}/index"}
            if before:
                git("fetch", "--quiet", "--depth=1", "origin", before)
                git("read-tree", before, **index)
                git("rm", "-r", "--quiet", "--cached", "--ignore-unmatch", folder, **index)
            for path, blob in files.items():
                git("update-index", "--add", "--cacheinfo", f"100644,{blob},{path}", **index)
            tree = git("write-tree", **index)
        who = dict.fromkeys(("GIT_AUTHOR_NAME", "GIT_COMMITTER_NAME"), AUTHOR)
        who |= dict.fromkeys(("GIT_AUTHOR_EMAIL", "GIT_COMMITTER_EMAIL"), "")
        commit = git("commit-tree", tree, "-m", "Pictures of the reports on pull requests", **who)
        lease = f"--force-with-lease=refs/heads/{BRANCH}:{before}"
        pushed = subprocess.run(
            ["git", "push", "--quiet", lease, "origin", f"{commit}:refs/heads/{BRANCH}"],
            check=False,
        )
        if pushed.returncode == 0:
            return
    sys.exit(f"error: the pictures could not be pushed to {BRANCH} (see above)")


def comment(issues: str, pull: int, text: str) -> None:
    """Write the comment, or replace the one from last time."""
    each = ".[] | {id, body, login: .user.login} | tojson"  # a line each
    listed = gh("--paginate", f"{issues}/{pull}/comments?per_page=100", "--jq", each)
    comments = [json.loads(line) for line in listed.splitlines()]
    mine = [c["id"] for c in comments if c["login"] == AUTHOR and c["body"].startswith(MARK)]
    with tempfile.NamedTemporaryFile("w", suffix=".md", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        body = ["--field", f"body=@{file.name}", "--jq", ".html_url"]
        if mine:
            print(gh("--method", "PATCH", f"{issues}/comments/{mine[0]}", *body), end="")
        else:
            print(gh("--method", "POST", f"{issues}/{pull}/comments", *body), end="")


def git(*arguments: str, **environment: str) -> str:
    return run(["git", *arguments], environment).strip()


def gh(*arguments: str) -> str:
    return run(["gh", "api", *arguments], {})


def run(command: list[str], environment: dict[str, str]) -> str:
    done = subprocess.run(
        command,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        encoding="utf-8",
        check=False,
    )
    if done.returncode:  # it has said why
        sys.exit(f"error: {' '.join(command[:3])} failed (see above)")
    return done.stdout


if __name__ == "__main__":
    main()
