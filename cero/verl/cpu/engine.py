"""Which of verl's engines train on a CPU? Its FSDP2 engines, which are registered here for the device "cpu".

They run as they are, on gloo. FSDP1 does not run: verl builds it with `sync_module_states=True`, which
PyTorch refuses for CPU modules.
"""

from verl.workers.engine.base import EngineRegistry
from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead, FSDPEngineWithValueHead


@EngineRegistry.register(model_type="language_model", backend="fsdp2", device="cpu")
class CpuFSDPEngineWithLMHead(FSDPEngineWithLMHead):
    """Train the policy, or evaluate the reference policy."""


@EngineRegistry.register(model_type="value_model", backend="fsdp2", device="cpu")
class CpuFSDPEngineWithValueHead(FSDPEngineWithValueHead):
    """Train the critic, for estimators that need one."""
