"""What verl asks of `torch.cuda`, answered for the host: the platform's `device_module`.

`torch.cpu` answers only part of it. The rest is either a fact about the host's memory or nothing to do.
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
    return platform.processor() or platform.machine()


def memory_allocated(device=None):
    """Resident memory of this process; the CPU allocator keeps no statistics of its own."""
    return psutil.Process().memory_info().rss


memory_reserved = max_memory_allocated = max_memory_reserved = memory_allocated


def mem_get_info(device=None):
    """(available, total) bytes of the host, as `torch.cuda.mem_get_info` gives for a card."""
    memory = psutil.virtual_memory()
    return memory.available, memory.total


def manual_seed(seed):
    torch.manual_seed(seed)


def _nothing(*args, **kwargs):
    """There is no caching allocator, no IPC pool and no memory cap to act on."""


manual_seed_all = manual_seed
empty_cache = ipc_collect = reset_peak_memory_stats = set_per_process_memory_fraction = _nothing
