"""What this machine is, and whether the same bytes are promised on it."""

import importlib.metadata
import os
import platform
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from charlm.core.pinning import KERNELS

if TYPE_CHECKING:
    import torch


def describe(requirements: Path, device: "torch.device | None" = None) -> dict[str, str | int]:
    """The versions of Python and of the packages that `requirements` pins, and the machine.

    No name of the machine or of its user, no path and no time: the same setting gives
    the same description.

    Args:
        requirements: a requirements file with lines such as `torch==2.13.0`.
        device: where torch computed; None where it did not.
    """
    libc, version = platform.libc_ver()
    return {
        "python": platform.python_version(),
        **{name: _version(name) for name in _pinned(requirements)},
        "system": f"{platform.system()} {libc} {version}".strip(),
        "machine": platform.machine(),
        "processor": _processor(),
        **{name: os.environ.get(name, "") for name in KERNELS},
        **(_torch(device) if device else {}),
    }


def without_promise(requirements: Path, device: "torch.device") -> list[str]:
    """Tell why other bytes than the committed ones may come of a run here; empty: they may not.

    The promise is for x86-64 with AVX2, Python 3.11 to 3.14, the versions that are pinned, and
    what is computed on a CPU.
    """
    import torch

    reasons = []
    if platform.machine().lower() not in {"x86_64", "amd64"}:
        reasons.append(f"the processor is {platform.machine()}, not x86-64")
    elif torch.backends.cpu.get_cpu_capability() == "DEFAULT":
        reasons.append("the processor has no AVX2")
    if not (3, 11) <= sys.version_info[:2] <= (3, 14):
        reasons.append(f"Python is {platform.python_version()}, not 3.11 to 3.14")
    for name, version in _pinned(requirements).items():
        if (found := _version(name)).partition("+")[0] != version:
            reasons.append(f"{name} is {found}, not {version}")
    if device.type != "cpu":
        reasons.append(f"it is computed on {device.type}, not on a CPU")
    return reasons


def _pinned(requirements: Path) -> dict[str, str]:
    """The version of each package that a requirements file pins."""
    text = requirements.read_text(encoding="utf-8")
    return dict(re.findall(r"^([\w.-]+)==([^\s;#]+)", text, re.MULTILINE))


def _torch(device: "torch.device") -> dict[str, str | int]:
    import torch  # two seconds that those who compute without it need not spend

    on_gpu = device.type == "cuda"
    return {
        "torch kernels": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "device": f"cuda: {torch.cuda.get_device_name(device)}" if on_gpu else device.type,
    }


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _processor() -> str:
    """The name of the processor's model, where the system tells it."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:  # not Linux
        return platform.processor()
    found = re.search(r"^model name\s*: (.*)$", text, flags=re.MULTILINE)
    return found[1].strip() if found else platform.processor()
