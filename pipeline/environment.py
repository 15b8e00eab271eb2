"""Describe this machine, and check whether the same bytes are promised on it.

To print the description, run `python -m pipeline.environment`.
"""

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
    """Return the versions of Python and of the pinned packages, and facts about the machine.

    The same setup gives the same description: no host or user name, path or time.

    Args:
        requirements: a requirements file with lines like `torch==2.13.0`.
        device: torch's device; None if torch was not used.
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
    """Return the reasons why a run on this machine need not give the committed bytes.

    The same bytes are promised on Linux on x86-64 with AVX2, on a CPU, with Python 3.11 to 3.14 and
    the pinned versions.
    """
    import torch

    reasons = []
    if platform.system() != "Linux":  # the C library rounds exp and log differently
        reasons.append(f"the system is {platform.system()}, not Linux")
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
        reasons.append(f"the device is {device.type}, not cpu")
    return reasons


def _pinned(requirements: Path) -> dict[str, str]:
    """Return the version of each package pinned in a requirements file."""
    text = requirements.read_text(encoding="utf-8")
    return dict(re.findall(r"^([\w.-]+)==([^\s;#]+)", text, re.MULTILINE))


def _torch(device: "torch.device") -> dict[str, str | int]:
    import torch  # takes two seconds, so only if needed

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
    """Return the model name of the processor, if the system knows it."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:  # not Linux
        return platform.processor()
    found = re.search(r"^model name\s*: (.*)$", text, flags=re.MULTILINE)
    return found[1].strip() if found else platform.processor()


def main() -> None:
    requirements = Path(__file__).resolve().parent.parent / "requirements.txt"
    for key, value in describe(requirements).items():
        print(f"{key}: {value}")


if __name__ == "__main__":
    main()
