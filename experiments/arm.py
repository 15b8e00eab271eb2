r"""Run a small pipeline on x86-64 and on two emulated ARM64 cores, and compare the outputs.

The stages run in clones of the committed project, one by one and without DVC, with the parameters
of `make smoke`: first with this Python, then with an ARM64 Python on each core. The first core has
the vector instructions of every ARM64 processor (NEON); the second also has SVE with 256 bits. In
the first table, "up to" gives the largest difference between two numbers of an output.

The second table shows what pinning the kernels is for: the number of different results of a matrix
product in float32 on five cores, in one thread, with NumPy's default kernels and with the pinned
ones.

QEMU computes every instruction exactly, so the bytes are those of such a core. Other cores, macOS
and Windows are not measured, and neither is speed.

    python -m experiments.arm ROOT

writes `experiments/ARM.md`, after an hour on two cores. It needs Linux on x86-64, QEMU's user-mode
emulator, and a folder ROOT with Python 3.11 and the packages for ARM64. On Debian, these commands
install the emulator and make the folder (5 GB). DVC is left out, as one of its dependencies has no
wheel.

    sudo apt-get install qemu-user-static debootstrap
    sudo debootstrap --foreign --arch arm64 --variant minbase --include python3 bookworm ROOT
    for deb in ROOT/var/cache/apt/archives/*.deb; do sudo dpkg-deb --extract "$deb" ROOT; done
    sudo chown -R "$USER" ROOT
    python -m pip install --target ROOT/packages --python-version 3.11 --only-binary :all: \
        $(printf -- '--platform manylinux%s_aarch64 ' 2014 _2_{17..28}) \
        --constraint constraints.txt $(grep -oP '^(?!dvc)[\w.]+==\S+' requirements.txt)
"""

import argparse
import io
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import safetensors.numpy
from dvc.repo import Repo
from dvc.repo.reproduce import plan_repro
from dvc.utils.hydra import apply_overrides
from PIL import Image

import run
from benchmarks.run import machine, write_result
from benchmarks.turns import markdown, say
from charlm.core.errors import InputError
from charlm.core.files import write_text
from charlm.core.pinning import ARM64_KERNELS, ORDER
from pipeline.cache import content_of
from pipeline.side_by_side import cores
from pipeline.verify import clone_committed

RESULT = Path(__file__).parent / "ARM.md"

SMALL = shlex.split(run.SMALL)[1::2]  # without -S
"""The parameters of `make smoke`."""


@dataclass(frozen=True)
class Core:
    """A kind of core that QEMU emulates.

    Attributes:
        model: QEMU's name of the core, with features to switch on and off.
        identity: its register MIDR_EL1, by which libraries recognize it.
    """

    model: str
    identity: int


HERE = "x86-64"

CORES = {
    "Cortex-A72": Core("cortex-a72", 0x410FD083),
    "a core with SVE": Core("max,sve256=on,sme=off", 0x000F0510),
}

PRODUCT_CORES = (
    *(core.model for core in CORES.values()),
    *("cortex-a53", "neoverse-n1", "a64fx"),
)
"""The cores that QEMU 7.2 has and for which OpenBLAS has different kernels."""

SHAPES = ((256, 80, 300), (256, 256, 128), (1, 300, 46), (256, 1000, 46), (80, 4096, 300))
"""Rows, inner dimension and columns of the products."""

PRODUCT = """
import hashlib
import sys

import numpy as np

rows, inner, columns = map(int, sys.argv[1:])
random = np.random.default_rng(0)
a = random.standard_normal((rows, inner), dtype="f4")
b = random.standard_normal((inner, columns), dtype="f4")
print(hashlib.md5((a @ b).tobytes()).hexdigest())
"""

EMULATORS = ("qemu-aarch64-static", "qemu-aarch64")
PYTHON = "usr/bin/python3"
PACKAGES = "packages"

PROCESSOR = """\
processor\t: {number}
CPU implementer\t: {implementer:#04x}
CPU architecture: 8
CPU variant\t: {variant:#x}
CPU part\t: {part:#05x}
CPU revision\t: {revision}

"""

NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?:e[+-]?\d+)?(?![\w.])")

TEXT = """\
# ARM64

{explained}

{machine}; {emulator}

{table}

{products}
"""


def emulator() -> str:
    """Return the path of QEMU's emulator."""
    for name in EMULATORS:
        if found := shutil.which(name):
            return found
    raise InputError(f"no {EMULATORS[0]} here; on Debian, run: apt-get install qemu-user-static")


def check(root: Path) -> None:
    """Raise InputError if the ARM64 stages cannot run here."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        raise InputError(
            f"this is {platform.system()} on {platform.machine()}; ARM64 is compared with "
            "x86-64, on Linux"
        )
    for needed in (PYTHON, f"{PACKAGES}/torch"):
        if not (root / needed).exists():
            raise InputError(f"{root / needed} does not exist; see the top of {__file__}")


def write_identity(root: Path, core: Core) -> None:
    """Write the system files from which torch learns on which core it runs.

    QEMU opens them in place of the ones of this system, which make torch crash.
    """
    fields = {
        "implementer": core.identity >> 24,
        "variant": core.identity >> 20 & 0xF,
        "part": core.identity >> 4 & 0xFFF,
        "revision": core.identity & 0xF,
    }
    cpuinfo = [PROCESSOR.format(number=number, **fields) for number in range(cores())]
    register = root / "sys/devices/system/cpu/cpu0/regs/identification/midr_el1"
    for path, text in (
        (root / "proc/cpuinfo", "".join(cpuinfo)),
        (register, f"{core.identity:#018x}\n"),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, text)


def emulated(root: Path, model: str, environment: Mapping[str, str] | None = None) -> list[str]:
    """Return the command that starts Python on a core, with additional environment variables."""
    variables = {"PYTHONPATH": str(root / PACKAGES), **(environment or {})}
    options = [word for name, value in variables.items() for word in ("-E", f"{name}={value}")]
    return [emulator(), "-cpu", model, "-L", str(root), *options, str(root / PYTHON)]


def products(root: Path) -> str:
    """Return a table of how many results matrix products have on `PRODUCT_CORES`."""
    say("matrix products")
    kernels: list[dict[str, str]] = [ORDER, ORDER | ARM64_KERNELS]
    rows = []
    for shape in SHAPES:
        sizes = [str(size) for size in shape]
        found = [
            {
                _printed([*emulated(root, model, its), "-c", PRODUCT, *sizes])
                for model in PRODUCT_CORES
            }
            for its in kernels
        ]
        rows.append([" × ".join(sizes), *(str(len(results)) for results in found)])
    return markdown(["rows × inner dimension × columns", "default kernels", "pinned kernels"], rows)


def _printed(command: Sequence[str]) -> str:
    """Run a command without the environment of this process, whose kernels are pinned."""
    done = subprocess.run(command, env={}, capture_output=True, encoding="utf-8", check=False)
    if done.returncode:
        raise InputError(f"{shlex.join(command)} fails: {done.stderr.strip()}")
    return done.stdout


def run_stages(name: str, clone: Path, python: Sequence[str]) -> list[Path]:
    """Run all stages in a clone, in DVC's order; return the files that they wrote."""
    apply_overrides(clone / "params.yaml", SMALL)
    with Repo(str(clone)) as repo:
        stages = plan_repro(repo.index.graph)
        outputs = [Path(out.def_path) for stage in stages for out in stage.outs]
    for output in outputs:  # those that are committed
        if (clone / output).is_dir():
            shutil.rmtree(clone / output)
        else:
            (clone / output).unlink(missing_ok=True)
    for stage in stages:
        say(f"{name}: {stage.name}")
        command = [*python, *shlex.split(stage.cmd)[1:]]
        done = subprocess.run(command, cwd=clone, stdout=sys.stderr, check=False)
        if done.returncode:
            raise InputError(f"{name}: {stage.name} fails, see above")
    return [output / file for output in outputs for file in content_of(clone / output)]


def table(folders: Mapping[str, Path], files: Sequence[Path]) -> str:
    """Return a table of how the files differ from each folder to the next."""
    header = ["output", *(f"{a} and {b}" for a, b in pairwise(folders))]
    rows = [
        [f"`{file}`", *(difference(a / file, b / file) for a, b in pairwise(folders.values()))]
        for file in files
    ]
    return markdown(header, rows)


def difference(old: Path, new: Path) -> str:
    """Describe how far two versions of a file differ."""
    before, after = old.read_bytes(), new.read_bytes()
    if before == after:
        return "same bytes"
    match old.suffix:
        case ".safetensors":
            return _between_tensors(before, after)
        case ".csv" | ".json":
            return _between_tables(before.decode().splitlines(), after.decode().splitlines())
        case ".png":
            return _between_pictures(before, after)
    return "differs"


def _between_tensors(old: bytes, new: bytes) -> str:
    before, after = safetensors.numpy.load(old), safetensors.numpy.load(new)
    if {n: t.shape for n, t in before.items()} != {n: t.shape for n, t in after.items()}:
        return "other tensors"
    return _up_to(float(np.abs(before[n].astype("f8") - after[n]).max()) for n in before)


def _between_tables(old: list[str], new: list[str]) -> str:
    pairs = list(zip(old, new, strict=False))
    texts = sum(NUMBER.sub("", a) != NUMBER.sub("", b) for a, b in pairs) + abs(len(old) - len(new))
    if texts:
        return f"other text in {texts:,} of {max(len(old), len(new)):,} lines"
    return _up_to(
        abs(float(a) - float(b))
        for line, other in pairs
        for a, b in zip(NUMBER.findall(line), NUMBER.findall(other), strict=True)
    )


def _up_to(differences: Iterable[float]) -> str:
    return f"up to {max(differences):.0e}"


def _between_pictures(old: bytes, new: bytes) -> str:
    before, after = (np.asarray(Image.open(io.BytesIO(content))) for content in (old, new))
    if before.shape != after.shape:
        return "another size"
    pixels = (before != after).any(axis=-1)
    return f"{pixels.sum():,} of {pixels.size:,} pixels"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("root", type=Path, help="folder with Python and the packages for ARM64")
    root = parser.parse_args().root.resolve()
    check(root)
    version = subprocess.run(
        [emulator(), "-version"], capture_output=True, encoding="utf-8", check=True
    )
    with tempfile.TemporaryDirectory(prefix="arm-") as scratch:
        folders = {
            name: clone_committed(Path(scratch) / name.replace(" ", "-")) for name in (HERE, *CORES)
        }
        files = run_stages(HERE, folders[HERE], [sys.executable])
        for name, core in CORES.items():
            write_identity(root, core)
            run_stages(name, folders[name], emulated(root, core.model))
        write_result(
            RESULT,
            TEXT,
            __doc__,
            machine=machine(),
            emulator=version.stdout.partition("\n")[0],
            table=table(folders, files),
            products=products(root),
        )


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted")
