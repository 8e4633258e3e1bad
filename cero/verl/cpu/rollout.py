"""Which rollout does verl's name "vllm" mean on a CPU? vLLM's CPU engine, with a weight sync made for it.

Only the choice is made here, since every process that generates imports this module. The engine is in
`cero.verl.cpu.replica`.
"""

from verl.workers.rollout.replica import RolloutReplicaRegistry

from cero.verl.cpu.platform import cpu_is_asked_for


def load_replica():
    """Return the replica class; verl calls this in the processes that start servers."""
    from cero.verl.cpu.replica import CpuReplica

    return CpuReplica


# On other platforms verl's own entry stays.
if cpu_is_asked_for():
    RolloutReplicaRegistry.register("vllm", load_replica)
