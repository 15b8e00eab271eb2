"""The kernels of NumPy, torch and Numba, by default and pinned."""

import ast
import ctypes
import os
import platform
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from charlm.core import pinning
from charlm.core.pinning import ARM64_KERNELS, CONTRADICTING, KERNELS, ORDER, pin_kernels
from tests.conftest import ROOT, Project
from tests.helpers import refused, run_python

ON_X86_64 = pytest.mark.skipif(
    platform.machine().lower() not in {"x86_64", "amd64"}, reason="pinned on x86-64 alone"
)
UNPINNED = dict.fromkeys([*KERNELS, *ORDER], "")
"""Variables to unset for the libraries' defaults, because the tests run with pinned kernels."""
PIN = "from charlm.core.pinning import pin_kernels; pin_kernels(); "


def test_importing_charlm_changes_nothing_and_imports_nothing_heavy() -> None:
    printed = run_python(
        """
import os, sys
before = dict(os.environ)
import charlm, charlm.cli, charlm.core.errors, charlm.core.pinning
print(dict(os.environ) == before)
print({"numpy", "torch", "numba", "pandas"} & {*sys.modules})
""",
        **UNPINNED,
        NUMBA_DISABLE_JIT="1",
    )
    assert printed == "True\nset()\n"


def test_importing_the_library_leaves_the_settings_of_torch_alone() -> None:
    code = """
import sys, torch
def settings():
    return (
        torch.__config__.parallel_info(), torch.backends.cpu.get_cpu_capability(),
        torch.get_num_threads(), torch.are_deterministic_algorithms_enabled(),
        torch.get_default_dtype(), torch.get_float32_matmul_precision(),
        torch.utils.deterministic.fill_uninitialized_memory, torch.backends.mkldnn.enabled,
    )
before = settings()
import charlm.trained, charlm.training.trainer, charlm.report.figures
print(settings() == before)
"""
    assert run_python(code, **UNPINNED) == "True\n"


def test_the_tests_run_with_pinned_kernels() -> None:
    """The call changes nothing, so it is allowed although torch has been imported."""
    assert {"numpy", "torch"} & {*sys.modules}
    before = dict(os.environ)
    pin_kernels()
    assert dict(os.environ) == before


@pytest.mark.parametrize(
    "change",
    [("OPENBLAS_NUM_THREADS", "2"), ("OPENBLAS_NUM_THREADS", None), ("NUMBA_DISABLE_JIT", "1")],
    ids=str,
)
def test_pinning_too_late_is_refused_and_changes_nothing(
    change: tuple[str, str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    name, value = change
    if value is None:
        monkeypatch.delenv(name)
    else:
        monkeypatch.setenv(name, value)
    before = dict(os.environ)
    for _ in range(2):
        with refused("numpy and torch", "call pin_kernels() first", "in the first cell"):
            pin_kernels()
    assert dict(os.environ) == before


@pytest.mark.parametrize("module", ["numpy", "torch", "numba"])
def test_the_error_names_each_library_imported_too_early(module: str) -> None:
    code = f"""
import {module}
from charlm.core.errors import InputError
from charlm.core.pinning import pin_kernels
try:
    pin_kernels()
except InputError as error:
    print(error)
"""
    assert module in run_python(code, **UNPINNED)


@ON_X86_64
def test_torch_and_numba_use_the_pinned_kernels() -> None:
    show = """
import numba, torch
print(torch.backends.cpu.get_cpu_capability(), numba.core.config.CPU_NAME)
"""
    capability, name = run_python(PIN + show, **UNPINNED).split()
    assert capability in {"AVX2", "DEFAULT"}  # a processor without AVX2 has no choice
    assert name == "haswell"
    assert "haswell" not in run_python(show, **UNPINNED)


@pytest.mark.parametrize(
    ("machine", "kernels"), [("aarch64", ARM64_KERNELS), ("arm64", {}), ("ARM64", {})]
)
def test_on_arm64_kernels_are_pinned_only_on_linux(machine: str, kernels: dict[str, str]) -> None:
    code = f"""
import os, platform
platform.machine = lambda: "{machine}"
{PIN}
print({{name: os.environ[name] for name in {[*UNPINNED]}}})
"""
    pinned = ast.literal_eval(run_python(code, **UNPINNED))
    assert pinned == {**UNPINNED, **kernels, **ORDER}


PRODUCT = """
import hashlib
import numpy as np
a = np.random.default_rng(1).standard_normal((64, 300)).astype("f4")
print(hashlib.md5((a @ a.T[:, ::-1]).tobytes()).hexdigest())
"""


@ON_X86_64
def test_pinning_overrides_the_environment() -> None:
    """The first two results differ, so the comparison of bytes could fail."""
    old, new = (run_python(PRODUCT, OPENBLAS_CORETYPE=core) for core in ("Prescott", "Haswell"))
    assert old != new
    for core in ("Prescott", "SkylakeX", ""):
        assert run_python(PIN + PRODUCT, OPENBLAS_CORETYPE=core) == new


@pytest.mark.parametrize("module", ["stages", "pipeline", "experiments"])
def test_programs_that_promise_the_same_bytes_pin_kernels(module: str) -> None:
    code = f"import os, {module}; print([os.environ.get(n) for n in {[*ORDER, *CONTRADICTING]}])"
    printed = run_python(code, **UNPINNED, **dict.fromkeys(CONTRADICTING, "1"))
    assert printed == f"{[*ORDER.values(), *[None] * len(CONTRADICTING)]}\n"


def test_the_command_line_pins_kernels_in_any_environment() -> None:
    show = "import os; print(os.environ['OPENBLAS_NUM_THREADS']); "
    code = f"from charlm import cli; cli.main = lambda: exec({show!r}); cli.run()"
    assert run_python(code, **UNPINNED) == "1\n"


def test_a_stage_that_cannot_pin_its_kernels_ends_with_one_line() -> None:
    ran = Project(ROOT).run(sys.executable, "-c", "import numpy, stages", code=1, **UNPINNED)
    assert ran.text.startswith("error: kernels cannot be pinned after importing numpy; ")
    assert ran.text.count("\n") == 1


def test_put_back_can_be_imported_without_pinning() -> None:
    assert run_python("import numpy, pipeline.put_back", **UNPINNED) == ""


FLAGS = "processor\t: 0\nmodel name\t: Some\nflags\t\t: fpu sse4_2 {}\nbugs\t\t: avx2 fma\n"
OLD = """
from pathlib import Path
import platform, sys
from charlm.core import pinning

def without():
    raise AttributeError("the C library is older")

sys.platform, platform.machine = "linux", lambda: "x86_64"
pinning._instructions_by_glibc, pinning.FLAGS = without, Path(sys.argv.pop())
"""
"""Code that makes Linux list the features in a file, whose name is the last argument."""


@pytest.mark.parametrize(
    ("listed", "missing"),
    [("avx2 fma", ""), ("avx fma", "AVX2"), ("avx2", "FMA"), ("avx avx2_0", "AVX2 and FMA")],
)
def test_a_processor_without_the_required_features_is_refused(
    listed: str, missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pinning, "FLAGS", tmp_path / "cpuinfo")
    monkeypatch.setattr(pinning, "_instructions", pinning._instructions_by_flags)
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    pinning.refuse_old_processor()  # the file that lists the features does not exist yet
    pinning.FLAGS.write_text(FLAGS.format(listed))
    if missing:
        with refused(f"this processor lacks {missing}, which", "AVX2", "ARM64"):
            pinning.refuse_old_processor()
        monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    pinning.refuse_old_processor()


@pytest.mark.parametrize("has_avx2", [0, 1])
def test_windows_reports_avx2(has_avx2: int, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {40: has_avx2}  # PF_AVX2_INSTRUCTIONS_AVAILABLE
    kernel = SimpleNamespace(IsProcessorFeaturePresent=answers.__getitem__)
    monkeypatch.setattr(ctypes, "windll", SimpleNamespace(kernel32=kernel), raising=False)
    monkeypatch.setattr(sys, "platform", "win32")
    assert pinning._instructions() == (pinning.INSTRUCTIONS if has_avx2 else set())


@ON_X86_64
def test_this_processor_has_the_required_features() -> None:
    pinning.refuse_old_processor()
    if sys.platform == "linux":
        assert pinning._instructions_by_flags() == pinning.INSTRUCTIONS
        assert pinning._instructions() == pinning.INSTRUCTIONS


@pytest.mark.parametrize(
    "start",
    [
        "import stages",
        "import experiments",
        "from charlm import cli; sys.argv = ['charlm', '--help']; cli.run()",
    ],
)
def test_an_old_processor_is_refused_in_one_line_before_numpy_is_loaded(
    start: str, tmp_path: Path
) -> None:
    (tmp_path / "cpuinfo").write_text(FLAGS.format("avx fma"))
    last = "import atexit; atexit.register(lambda: print({'numpy', 'torch'} & {*sys.modules}))\n"
    file = str(tmp_path / "cpuinfo")
    code = OLD + last + start
    ran = Project(ROOT).run(sys.executable, "-c", code, file, code=1, **UNPINNED)
    line, loaded = ran.text.splitlines()
    assert line.startswith("error: this processor lacks AVX2, which ")
    assert loaded == "set()"
