"""Training in several processes, on one machine or several, that share out each batch."""

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
    """The processes that train one model together; by default this one alone.

    Attributes:
        rank: which of them this is, from 0.
        size: how many there are.
    """

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the one that writes and reports."""
        return self.rank == 0

    def share(self, rows: Tensor) -> Tensor:
        """What this process takes of `rows`: together they take each once."""
        return rows[self.rank :: self.size] if self.size > 1 else rows

    def share_of(self, windows: Windows) -> Windows:
        """The same of windows."""
        return Windows(windows.stream, windows.block_size, self.share(windows.starts))

    def sum_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Replace the gradients by their sums over all processes, in one exchange."""
        if self.size == 1:
            return
        every = [p.grad.detach() if p.grad is not None else torch.zeros_like(p) for p in parameters]
        flat = torch.cat([grad.reshape(-1) for grad in every])
        torch.distributed.all_reduce(flat)
        parts = torch.split(flat, [grad.numel() for grad in every])
        for parameter, part in zip(parameters, parts, strict=True):
            parameter.grad = part.view_as(parameter)

    @torch.no_grad()
    def share_buffers(self, model: nn.Module) -> None:
        """Give the model of every process the buffers of the first one's."""
        if self.size > 1:
            for buffer in model.buffers():
                torch.distributed.broadcast(buffer, 0)

    def sum(self, number: Tensor) -> Tensor:
        """The sum over all processes; each of them has to ask for it."""
        if self.size == 1:
            return number
        total = number.clone()
        torch.distributed.all_reduce(total)
        return total

    def from_first(self, value: Any) -> Any:
        """What the first process passed; each of them has to ask for it."""
        if self.size == 1:
            return value
        values = [value]
        torch.distributed.broadcast_object_list(values)
        return values[0]


def launched() -> bool:
    """Whether torchrun started this process as one of several."""
    return torch.distributed.is_torchelastic_launched()


def join(processes: int, device: torch.device) -> Group:
    """The group that torchrun has put this process in, communicating by gloo or NCCL.

    Raises InputError where there are not as many processes as asked for.
    """
    size = int(os.environ["WORLD_SIZE"]) if launched() else 1
    if size != processes:
        raise InputError(f"torchrun started {size} processes instead of {processes}")
    if size == 1:
        return Group()
    if device.type == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    torch.distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return Group(torch.distributed.get_rank(), size)
