"""What is verl's platform on a machine without an accelerator?

It is used only where `VERL_PLATFORM=cpu` asks for it. verl's auto-detection must never choose it by itself,
since the head node of a GPU cluster often has no GPU.
"""

import os
from contextlib import contextmanager
from importlib import import_module, metadata

import torch
from verl.plugin.platform.platform_base import PlatformBase
from verl.plugin.platform.platform_manager import PlatformRegistry
from wrapt import when_imported


def cpu_is_asked_for():
    """Return whether the variable `VERL_PLATFORM` tells this process to train on the CPU."""
    return os.environ.get("VERL_PLATFORM", "").strip().lower() == "cpu"


@PlatformRegistry.register(platform="cpu")
class CpuPlatform(PlatformBase):
    """Present the host's cores as one device, with gloo and shared memory for communication."""

    device_name = "cpu"
    vendor_name = "cpu"

    @property
    def device_module(self):
        from cero.verl.cpu import device

        return device

    def is_available(self):
        return True

    def is_platform_available(self, use_smi_check=False):
        return cpu_is_asked_for()

    def current_device(self):
        # Not an index: verl passes it to `tensor.to(...)`, where 0 would mean cuda:0.
        return "cpu"

    def device_count(self):
        return 1

    def set_device(self, device_index):
        pass

    def synchronize(self, device_index=None):
        pass

    def manual_seed(self, seed):
        torch.manual_seed(seed)

    def manual_seed_all(self, seed):
        torch.manual_seed(seed)

    def set_allocator_settings(self, settings):
        pass

    def empty_cache(self):
        pass

    def get_device_capability(self, device_index=0):
        return None, None

    def communication_backend_name(self):
        return "gloo"

    def visible_devices_envvar(self):
        # Ray names the logical devices it lends out in this variable; nothing else reads it here.
        return "CUDA_VISIBLE_DEVICES"

    @contextmanager
    def nvtx_range(self, msg):
        yield

    def profiler_start(self):
        pass

    def profiler_stop(self):
        pass

    def ray_resource_name(self):
        # verl counts only "GPU" and "NPU", so recipe/cpu.yaml gives Ray one logical GPU for each worker.
        return "GPU"

    def ray_noset_envvars(self):
        return []

    def is_ipc_supported(self):
        return False

    def cudart(self):
        return None


# verl's own worker that samples would be slow on a CPU, and no setting names another one. So names in verl's
# module are replaced, once it is imported, and only in the version of verl for which this was written.
PATCHED = "0.9.1"
if cpu_is_asked_for() and metadata.version("verl") == PATCHED:
    when_imported("verl.trainer.ppo.v1.agent_loop_tq")(
        lambda module: import_module("cero.verl.cpu.agent_loop")
    )
