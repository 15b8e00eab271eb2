"""Run the committed pipeline from scratch in a temporary clone, and compare every output.

`make verify` runs this. Trainings run in parallel, as in `make repro`. The exit code is 1 if an
output differs from the committed dvc.lock although the same bytes are promised on this machine.
"""

import io
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import safetensors.numpy
from dvc.repo import Repo
from PIL import Image
from ruamel.yaml import YAML

from charlm.core.errors import InputError
from charlm.core.params import load_params
from charlm.fast.devices import choose_device
from pipeline import without_arguments
from pipeline.cache import Content, content_of
from pipeline.clone import git
from pipeline.environment import describe, without_promise
from pipeline.put_back import recorded_content
from stages import run

REQUIREMENTS = Path("requirements.txt")

CLONE_CONFIG = "[cache]\n    dir = cache\n[core]\n    autostage = true\n"
"""The clone's .dvc/config.local, which overrides other configuration: its own cache, and no advice
to track changes with git."""


def main() -> None:
    try:
        verify()
    except KeyboardInterrupt:
        print("interrupted; run the same command again to start over", file=sys.stderr)
        sys.exit(130)


def verify() -> None:
    with tempfile.TemporaryDirectory(prefix="verify-") as folder:
        clone = clone_committed(Path(folder) / "clone")
        committed = locked(clone)
        with Repo() as repo:
            before = {p: recorded_content(repo, Path(p), md5) for p, md5 in committed.items()}
        run_from_scratch(clone)
        made = locked(clone)
        differing = [path for path in committed if committed[path] != made.get(path)]
        after = {path: content_of(clone / path) for path in differing if path in made}
    print("\nAll outputs in dvc.lock, compared with the committed bytes:\n")
    for path in committed:
        print(f"  {'differs' if path in differing else 'same   '}  {path}")
        if path in differing:
            print(f"           {first_difference(path, before[path], after.get(path))}")
    if not differing:
        print(f"\nAll {len(committed)} outputs have the committed bytes.")
        return
    device = choose_device(load_params().device)
    machine = describe(REQUIREMENTS, device)
    print("\nThis machine: " + ", ".join(f"{key} {value}" for key, value in machine.items()))
    print("\nDifferences in metrics:\n")
    metrics = [path for path in differing if path.endswith(".json")]
    lines = [
        line for path in metrics for line in metric_changes(path, before[path], after.get(path))
    ]
    print("\n".join(lines) or "  none")
    if reasons := without_promise(REQUIREMENTS, device):
        print("\nThe same bytes are not promised here:\n")
        print("\n".join(f"  {reason}" for reason in reasons))
        return
    raise InputError(
        f"{len(differing)} of {len(committed)} outputs differ from the committed bytes, "
        "although the same bytes are promised here; please report this with the output above"
    )


def clone_committed(clone: Path) -> Path:
    """Clone the current repository without uncommitted changes; return the project's folder."""
    top, prefix = (git("rev-parse", f"--show-{what}") for what in ("toplevel", "prefix"))
    if top:
        subprocess.run(["git", "clone", "--quiet", top, str(clone)], check=False)
    if not (clone / prefix / "dvc.lock").exists():
        raise InputError("no dvc.lock is committed here; run this in a clone of the project")
    changed = git("status", "--short", ".").splitlines()
    if changed:
        names = ", ".join(line[3:] for line in changed[:3])
        print(f"ignoring uncommitted changes: {names}{', ...' if len(changed) > 3 else ''}")
    return clone / prefix


def run_from_scratch(clone: Path) -> None:
    """Run all stages in the clone with the current Python.

    Without dvc.lock and with an empty cache, DVC cannot skip any stage.
    """
    (clone / "dvc.lock").unlink()
    (clone / ".dvc/config.local").write_text(CLONE_CONFIG, encoding="utf-8")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    hashes = clone / ".dvc/tmp/hashes"  # by default, DVC stores the hashes of files in /var/tmp
    environment = {**os.environ, "PATH": path, "DVC_SITE_CACHE_DIR": str(hashes)}
    for name in ("DVC_ROOT", "DVC_STAGE"):
        environment.pop(name, None)
    with subprocess.Popen(
        [sys.executable, "-m", "pipeline.side_by_side"],
        cwd=clone,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
    ) as process:
        try:
            for line in process.stdout or ():
                print(line, end="", flush=True)
            process.wait()
        except BaseException:
            end_with_children(process.pid)
            raise
    if process.returncode:
        raise InputError("the pipeline failed in the clone (see above); fix it and commit first")


def end_with_children(pid: int) -> None:
    """Kill a process and all its descendants."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # ignore further requests
    found = [psutil.Process(pid)]
    for process in found:  # grows during the loop
        with suppress(psutil.Error):
            process.suspend()  # so that it cannot start more processes
            found += process.children()
    for process in found:
        with suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(found, timeout=5)


def locked(clone: Path) -> dict[str, str]:
    """Return the MD5 of every output in dvc.lock."""
    lock = YAML(typ="safe", pure=True).load(clone / "dvc.lock")
    outs = [out for stage in lock["stages"].values() for out in stage["outs"]]
    return {out["path"]: out["md5"] for out in outs}


def first_difference(path: str, old: Content | None, new: Content | None) -> str:
    """Describe the first difference between two contents of an output."""
    if new is None:
        return "no stage in dvc.yaml writes it"
    if old is None:
        return "the committed content is not available; if there is a remote, run dvc pull"
    name = min(n for n in old.keys() | new.keys() if old.get(n) != new.get(n))
    where = "" if name == "." else f"{name}: "
    if name not in old or name not in new:
        return f"{where}only {'here' if name in new else 'committed'}"
    return where + _first_in_file(Path(path, name), old[name], new[name])


def _first_in_file(path: Path, old: bytes, new: bytes) -> str:
    match path.suffix:
        case ".safetensors":
            return _first_tensor(old, new)
        case ".json" | ".csv":
            pairs = zip(_lines(old), _lines(new), strict=False)
            number, (a, b) = next((n, p) for n, p in enumerate(pairs, start=1) if p[0] != p[1])
            return f"line {number}: {b.strip()}; committed: {a.strip()}"
        case ".png":
            return _first_pixel(old, new)
    return f"{len(new)} bytes; committed: {len(old)}"


def _lines(content: bytes) -> list[str]:
    return [*content.decode("utf-8").split("\n"), "(the end)", "(after the end)"]


def _first_tensor(old: bytes, new: bytes) -> str:
    before, after = safetensors.numpy.load(old), safetensors.numpy.load(new)
    for name in sorted(before.keys() | after.keys()):
        a, b = before.get(name), after.get(name)
        if a is None or b is None or (a.shape, a.dtype) != (b.shape, b.dtype):
            return f"tensor {name}: {_kind(b)}; committed: {_kind(a)}"
        bits = f"u{a.itemsize}"  # 0 and -0 are equal, but have different bytes
        places = np.argwhere(a.view(bits) != b.view(bits))
        if len(places):
            first = tuple(int(i) for i in places[0])
            return (
                f"tensor {name}{[*first]}: {b[first]:.9g}; committed: {a[first]:.9g} "
                f"({len(places):,} of {a.size:,} numbers differ)"
            )
    return "the metadata"


def _kind(tensor: Any) -> str:
    return "none" if tensor is None else f"{tensor.dtype} {tensor.shape}"


def _first_pixel(old: bytes, new: bytes) -> str:
    before, after = (np.asarray(Image.open(io.BytesIO(content))) for content in (old, new))
    if before.shape != after.shape:
        return f"{after.shape[1]} x {after.shape[0]} pixels; committed: {before.shape[1::-1]}"
    other = np.argwhere((before != after).any(axis=-1))
    if len(other) == 0:
        return "the same pixels, compressed differently"
    y, x = (int(i) for i in other[0])
    return f"pixel ({x}, {y}), and {len(other) - 1:,} more of {before.shape[0] * before.shape[1]:,}"


def metric_changes(path: str, old: Content | None, new: Content | None) -> Iterator[str]:
    """Describe each number in a metrics file that differs."""
    if old is None or new is None:
        return
    before, after = (dict(_numbers(json.loads(content["."]))) for content in (old, new))
    for name in sorted(before.keys() & after.keys()):
        if before[name] != after[name]:
            yield (
                f"  {path} {name}: {after[name]:.6f}; committed: {before[name]:.6f} "
                f"({after[name] - before[name]:+.6f})"
            )


def _numbers(value: Any, prefix: str = "") -> Iterator[tuple[str, float]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _numbers(inner, f"{prefix}.{key}" if prefix else key)
    elif isinstance(value, (int, float)):
        yield prefix, value


if __name__ == "__main__":
    without_arguments("verify", __doc__)
    run(main)
