"""Run training in several processes, with torchrun's launcher."""

import logging
import signal
import sys
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from charlm.core.errors import ANOTHER_ENDED, InputError
from charlm.core.params import blame

# Imported only if needed: on macOS, importing the launcher logs a warning.
if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing.errors import ProcessFailure


def run_in_processes(module: str, processes: int) -> None:
    """Run `module` in several processes on this machine, and wait for them to end.

    Raises:
        InputError: a process failed (the others are terminated), or this is Windows.
        KeyboardInterrupt: the processes were interrupted or terminated.
    """
    if sys.platform == "win32":
        with blame("training.processes"):
            raise InputError(
                "several processes need Linux or macOS (PyTorch does not test its process "
                "launcher on Windows); set it to 1"
            )
    logging.getLogger("torch.distributed").setLevel(logging.CRITICAL)  # errors are reported below
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    with TemporaryDirectory() as folder:  # otherwise torch leaves a folder for each training
        launch = elastic_launch(
            LaunchConfig(
                min_nodes=1,
                max_nodes=1,
                nproc_per_node=processes,
                rdzv_backend="c10d",
                rdzv_endpoint="localhost:0",
                local_addr="localhost",
                run_id=module,
                max_restarts=0,
                shutdown_timeout=10,
                logs_specs=DefaultLogsSpecs(log_dir=folder),
            ),
            sys.executable,
        )
        try:
            launch("-m", module)
        except SignalException:
            raise KeyboardInterrupt from None
        except ChildFailedError as error:
            raise InputError(_reason(error.failures, processes)) from None


def _reason(failures: "dict[int, ProcessFailure]", processes: int) -> str:
    """Return why the first process ended, which caused the others to end."""

    def follows(failure: "ProcessFailure") -> bool:
        return ANOTHER_ENDED in failure.message or failure.exitcode == -signal.SIGTERM

    rank = min(failures, key=lambda rank: (follows(failures[rank]), failures[rank].timestamp))
    failure = failures[rank]
    if "timestamp" in failure.error_file_data:  # it left a message
        return failure.message.removeprefix("error: ")
    code = failure.exitcode
    how = f"was killed by {failure.signal_name()}" if code < 0 else f"exited with code {code}"
    return f"process {rank} (of 0 to {processes - 1}) {how}; run the same command again to resume"
