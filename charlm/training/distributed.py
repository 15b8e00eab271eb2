"""Data-parallel training in several processes, on one machine or several."""

import atexit
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from charlm.core.errors import InputError
from charlm.data.windows import Windows


@dataclass(frozen=True)
class Group:
    """The processes that train a model together; by default, a single one.

    Attributes:
        rank: rank of this process, from 0.
        size: number of processes.
    """

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this process writes files and messages."""
        return self.rank == 0

    def shard(self, rows: Tensor) -> Tensor:
        """Return the part of `rows` that this process works on."""
        return rows[self.rank :: self.size] if self.size > 1 else rows

    def shard_of(self, windows: Windows) -> Windows:
        """Return the part of `windows` that this process works on."""
        return Windows(windows.stream, windows.block_size, self.shard(windows.starts))

    def sum_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Replace the gradients with their sums over all processes, in one all-reduce."""
        if self.size == 1:
            return
        parameters = [p for p in parameters if p.requires_grad]
        grads = [p.grad.detach() if p.grad is not None else torch.zeros_like(p) for p in parameters]
        flat = torch.cat([grad.reshape(-1) for grad in grads])
        torch.distributed.all_reduce(flat)
        parts = torch.split(flat, [grad.numel() for grad in grads])
        for parameter, part in zip(parameters, parts, strict=True):
            parameter.grad = part.view_as(parameter)

    @torch.no_grad()
    def broadcast_buffers(self, model: nn.Module) -> None:
        """Copy the model's buffers from the first process to all others."""
        if self.size > 1:
            for buffer in model.buffers():
                torch.distributed.broadcast(buffer, 0)

    def sum(self, number: Tensor) -> Tensor:
        """Return the sum over all processes. All processes must call this."""
        if self.size == 1:
            return number
        total = number.clone()
        torch.distributed.all_reduce(total)
        return total

    def broadcast(self, value: Any) -> Any:
        """Return the value passed by the first process. All processes must call this."""
        if self.size == 1:
            return value
        values = [value]
        torch.distributed.broadcast_object_list(values)
        return values[0]


def launched() -> bool:
    """Return whether torchrun started this process."""
    return torch.distributed.is_available() and torch.distributed.is_torchelastic_launched()


def join(processes: int, device: torch.device) -> Group:
    """Join torchrun's process group, with gloo or NCCL as the backend.

    Raises InputError unless torchrun started `processes` processes, each with its own GPU if they
    train on GPUs.
    """
    size = int(os.environ["WORLD_SIZE"]) if launched() else 1
    if size != processes:
        raise InputError(
            f"torchrun started {size} processes instead of {processes}; set it to {size}"
        )
    if size == 1:
        return Group()
    if device.type == "mps":
        raise InputError("processes cannot share Apple's GPU; set it to 1, or device to cpu")
    if device.type == "cuda":
        here, gpus = int(os.environ["LOCAL_WORLD_SIZE"]), torch.cuda.device_count()
        if here > gpus:
            raise InputError(
                f"each process needs its own GPU, but this machine has {gpus}; lower it"
            )
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    torch.distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    # Gloo's threads abort the process if they are still running while Python shuts down.
    atexit.register(torch.distributed.destroy_process_group)
    return Group(torch.distributed.get_rank(), size)
