"""How do new weights reach an engine that is not the trainer's own, without NCCL? Through a file in memory.

verl's separate_async hands weights over by a checkpoint engine, and those that it has need GPUs or RDMA. This
one is for tests and small models, where trainer and engine are on one machine. The trainer's first process
writes all weights into one file in shared memory, and the engine's workers read it. verl imports this module
because recipe/cpu.yaml names it (checkpoint_engine.custom_backend_module), and finds the class in its own
registry.
"""

import asyncio
import os
import tempfile
import uuid
from pathlib import Path

import torch
from verl.checkpoint_engine.base import CheckpointEngine, CheckpointEngineRegistry

BACKEND = "shared_memory"
LOOK = 0.01  # seconds between looks for the file
PATIENCE = 600.0  # seconds that a worker waits for it


@CheckpointEngineRegistry.register(BACKEND)
class SharedMemoryEngine(CheckpointEngine):
    """Hand over weights through a file. One transfer uses each object on the trainer's side and the engine's.

    bucket_size : int, not used: the whole model is one file
    is_master : bool, whether this is the process that writes
    """

    def __init__(self, bucket_size, is_master=False, **kwargs):
        self._is_master, self._path = is_master, None

    def prepare(self):
        """Return the name of a file for this transfer; that of the first process counts."""
        memory = Path("/dev/shm")
        folder = memory if os.access(memory, os.W_OK) else Path(tempfile.gettempdir())
        return str(folder / f"cero-weights-{uuid.uuid4().hex}")

    @classmethod
    def build_topology(cls, actor_wg_world_size, rollout_world_size, metadata):
        """Have all processes use the first one's file."""
        return {"path": [metadata[0]] * actor_wg_world_size}, {"path": [metadata[0]] * rollout_world_size}

    def init_process_group(self, path):
        """Take the file's name (str); there is no group of processes."""
        self._path = Path(path)

    async def send_weights(self, weights, global_steps=None):
        """Write `weights`, pairs of name and tensor. Every process must draw them, and one writes."""
        state = {}
        for name, weight in weights:  # sharded weights are put together here, by all processes
            if self._is_master:
                state[name] = weight.detach().clone()
        if self._is_master:
            part = self._path.with_suffix(".part")
            torch.save(state, part)
            os.replace(part, self._path)

    async def receive_weights(self, global_steps=None):
        """Wait for the file, and yield its pairs of name and tensor. Raises TimeoutError after `PATIENCE`."""
        waited = 0.0
        while not self._path.exists():
            if waited >= PATIENCE:
                raise TimeoutError(f"{self._path}: the trainer has sent no weights for {PATIENCE:.0f} s")
            await asyncio.sleep(LOOK)
            waited += LOOK
        for pair in torch.load(self._path, weights_only=True).items():
            yield pair

    def finalize(self):
        """Remove the file, once all have read it."""
        if self._is_master and self._path is not None:
            self._path.unlink(missing_ok=True)
        self._path = None
