"""What answers on the CPU when verl calls `torch.cuda`? This module, the platform's `device_module`.

`torch.cpu` has only some of the functions. Each of the others either reports the host's memory or has nothing
to do.
"""

import platform

import psutil
import torch
from torch import get_rng_state, set_rng_state  # noqa: F401
from torch.cpu import (  # noqa: F401
    Event,
    Stream,
    current_device,
    current_stream,
    device_count,
    is_available,
    set_device,
    stream,
    synchronize,
)


def get_device_name(device=None):
    """Return the name of the host's processor."""
    return platform.processor() or platform.machine()


def memory_allocated(device=None):
    """Return this process's resident memory in bytes; PyTorch's CPU allocator keeps no statistics."""
    return psutil.Process().memory_info().rss


memory_reserved = max_memory_allocated = max_memory_reserved = memory_allocated


def mem_get_info(device=None):
    """Return (available, total) bytes of the host, as `torch.cuda.mem_get_info` does for a GPU."""
    memory = psutil.virtual_memory()
    return memory.available, memory.total


def manual_seed(seed):
    """Seed PyTorch's generator."""
    torch.manual_seed(seed)


def _nothing(*args, **kwargs):
    """Do nothing: a CPU has no caching allocator, no IPC pool and no memory cap."""


manual_seed_all = manual_seed
empty_cache = ipc_collect = reset_peak_memory_stats = set_per_process_memory_fraction = _nothing
