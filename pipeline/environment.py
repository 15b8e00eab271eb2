"""What a result was made with: versions and machine."""

import importlib.metadata
import os
import platform
import re
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
    pinned = re.findall(r"^([\w.-]+)==", requirements.read_text(encoding="utf-8"), re.MULTILINE)
    libc, version = platform.libc_ver()
    return {
        "python": platform.python_version(),
        **{name: _version(name) for name in pinned},
        "system": f"{platform.system()} {libc} {version}".strip(),
        "machine": platform.machine(),
        "processor": _processor(),
        **{name: os.environ.get(name, "") for name in KERNELS},
        **(_torch(device) if device else {}),
    }


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
