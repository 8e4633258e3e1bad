"""verl's FSDP engines, registered for the device "cpu" as well.

They run there as they are, with FSDP2 on gloo. FSDP1 does not: verl builds it with
`sync_module_states=True`, which PyTorch refuses for CPU modules.
"""

from verl.workers.engine.base import EngineRegistry
from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead, FSDPEngineWithValueHead


@EngineRegistry.register(model_type="language_model", backend="fsdp2", device="cpu")
class CpuFSDPEngineWithLMHead(FSDPEngineWithLMHead):
    """The policy, and the reference policy."""


@EngineRegistry.register(model_type="value_model", backend="fsdp2", device="cpu")
class CpuFSDPEngineWithValueHead(FSDPEngineWithValueHead):
    """The critic, for estimators that need one."""
