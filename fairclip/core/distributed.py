"""One run in several processes, as torchrun starts them. Each process works on a share of every batch, all hold the
same model. Without torchrun there is one process, and nothing here does anything.

The order of processes is their rank; the one of rank 0 is the main process, which alone writes and prints.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel

from fairclip.core.invocation import launched

T = TypeVar("T")
# The main process may download or decode a whole data set while the others wait. One that dies is noticed by torchrun.
TIMEOUT = timedelta(hours=3)


def started() -> bool:
    """Whether this process has met the others."""
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    return dist.get_rank() if started() else 0


def world() -> int:
    """How many processes there are."""
    return dist.get_world_size() if started() else 1


def local_world() -> int:
    """How many of them are on this machine."""
    return int(os.environ["LOCAL_WORLD_SIZE"]) if started() else 1


def is_main() -> bool:
    return rank() == 0


@contextmanager
def processes() -> Iterator[None]:
    """Inside, the processes that torchrun started know of each other, each with a GPU of its own if there are GPUs.

    Only what the main process prints is shown. If an error ends the block, the first process that fails reports it. The
    others fail for the same reason, or because the first is missing: they exit with status 1 and without a message.
    """
    if not launched() or started():
        yield
        return
    if (local := int(os.environ["LOCAL_RANK"])) < torch.cuda.device_count():
        torch.cuda.set_device(local)
    store, number, count = next(dist.rendezvous("env://", timeout=TIMEOUT))
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and dist.is_nccl_available() else "gloo"
    dist.init_process_group(backend, store=store, rank=number, world_size=count, timeout=TIMEOUT)
    try:
        with open(os.devnull, "w") as nowhere, redirect_stdout(sys.stdout if is_main() else nowhere):
            yield
    except Exception:
        # The group is not closed here: closing waits for the other processes, and they wait for this one. It ends with
        # this process, and torchrun then ends the others.
        if store.add("failures", 1) > 1:
            sys.exit(1)
        raise
    dist.destroy_process_group()


@contextmanager
def main_first() -> Iterator[None]:
    """For work that writes files which the others then read (downloads, caches): the main process first, then they."""
    if not is_main():
        gather_objects(None)
    try:
        yield
    finally:  # after an error too, so that the others do not wait; they meet the same error
        if is_main():
            gather_objects(None)


def parallel(model: nn.Module) -> nn.Module:
    """The model for the forward pass of training: in the backward pass gradients are averaged over the processes.

    So a loss that is a mean over a process's images acts as the mean over those of all.
    """
    return DistributedDataParallel(model) if world() > 1 else model


def global_mean(share: Tensor) -> Tensor:
    """Mean over the processes of a tensor (float, of one shape in all), the same in each.

    The gradient reaches the own share as if the mean were the share itself. ``parallel`` averages over the processes,
    and the average is the gradient of the mean. Hence nothing is exchanged for it in the backward pass.
    """
    if world() == 1:
        return share
    mean = share.detach().clone()
    dist.all_reduce(mean)
    return mean / world() + (share - share.detach())


def gather(rows: Tensor) -> Tensor:
    """Rows of all processes, equally many of each [B, ...] -> [B * world, ...], in the order of the processes."""
    if world() == 1:
        return rows
    parts = [torch.empty_like(rows) for _ in range(world())]
    dist.all_gather(parts, rows.contiguous())
    return torch.cat(parts)


def gather_objects(item: T) -> list[T]:
    """The item of each process, in their order: plain data and tensors on the CPU. Too slow for every step."""
    if world() == 1:
        return [item]
    items: list[Any] = [None] * world()
    dist.all_gather_object(items, item)
    return items


def from_main(item: T) -> T:
    """The item of the main process."""
    return gather_objects(item)[0]


def gather_list(parts: Sequence[Tensor]) -> Tensor:
    """Undo the split of a list in which each process took every ``world``-th item.

    Args: parts, the rows of the own items, in batches [b, ...]; none where there were fewer items than processes.
    Returns the rows of the list, [N, ...], in its order; on the CPU, if there is more than one process.
    """
    if world() == 1:
        return torch.cat(tuple(parts)) if parts else torch.empty(0, 0)
    gathered = gather_objects(torch.cat(tuple(parts)).cpu() if parts else None)
    shares = [share for share in gathered if share is not None]  # those without items are the last
    if not shares:
        return torch.empty(0, 0)
    rows = shares[0].new_empty(sum(map(len, shares)), *shares[0].shape[1:])
    for number, share in enumerate(shares):
        rows[number :: world()] = share
    return rows
