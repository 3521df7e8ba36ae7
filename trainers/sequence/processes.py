"""The processes that learn together: one, or as many as `torchrun` started."""

import atexit
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

_THREADS = 1
"""Fixed, since sums of other parts round otherwise; over such small matrices more wait longer than they work."""


@dataclass(frozen=True)
class Processes:
    """The place of this process among those that learn together.

    Attributes
    ----------
    rank : int
        Number of this process, from 0.
    size : int
        How many there are.
    device : torch.device
        Where this one computes.
    """

    rank: int
    size: int
    device: torch.device

    def share(self, module: nn.Module) -> nn.Module:
        """Return `module` so that a backward pass averages its gradients over all processes."""
        return DistributedDataParallel(module, forward_sync_buffers=False) if self.size > 1 else module

    def total(self, value: float) -> float:
        """Return the sum of `value` over all processes, the same for each."""
        if self.size == 1:
            return value
        found = torch.tensor(value, dtype=torch.float64, device=self.device)
        distributed.all_reduce(found)
        return float(found)


def processes() -> Processes:
    """Join the processes that `torchrun` started, if it did, on the accelerator of this one, if it has one.

    They stay together until this one ends, so that another model may be learnt: a second joining would not find them.
    """
    rank, size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if cuda else torch.device("cpu")
    if size > 1 and not distributed.is_initialized():
        distributed.init_process_group("nccl" if cuda else "gloo")
        atexit.register(distributed.destroy_process_group)
    return Processes(rank, size, device)


@contextmanager
def _memory_unfilled() -> Iterator[None]:
    """Leave new memory as it is; in deterministic mode PyTorch would fill it, in case someone reads it unset."""
    settings: Any = torch.utils.deterministic
    kept = settings.fill_uninitialized_memory
    settings.fill_uninitialized_memory = False
    try:
        yield
    finally:
        settings.fill_uninitialized_memory = kept


@contextmanager
def repeatable(seed: int) -> Iterator[None]:
    """Let equal seeds give equal weights within, and leave the generator, threads and flags as they were."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    threads, flag = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    with torch.random.fork_rng(), _memory_unfilled():
        torch.manual_seed(seed)
        torch.set_num_threads(_THREADS)
        torch.use_deterministic_algorithms(mode=True)
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(mode=flag)
            torch.set_num_threads(threads)
