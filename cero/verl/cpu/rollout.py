"""Chooses, when verl asks for the "vllm" rollout, vLLM's CPU engine with a weight sync that is right there.

Only the choice is here, since every process that generates imports this; the engine is in `replica.py`.
"""

from verl.workers.rollout.replica import RolloutReplicaRegistry

from cero.verl.cpu.platform import cpu_is_asked_for


def load_replica():
    """Return the replica class; called by verl in the processes that start servers."""
    from cero.verl.cpu.replica import CpuReplica

    return CpuReplica


# Elsewhere verl's own "vllm" entry stays as it is.
if cpu_is_asked_for():
    RolloutReplicaRegistry.register("vllm", load_replica)
