"""How do verl's training workers get a process group on a CPU?

verl would ask torch for "cpu:gloo,cpu:gloo", one backend for the host and one for the device. That is an
error where both are the same. So the group is made before the parent's `__init__`, which then keeps it.
"""

import ray
from verl.trainer.ppo.utils import Role
from verl.utils.distributed import initialize_global_process_group_ray
from verl.workers.engine_workers import ActorRolloutRefWorker, TrainingWorker


class CpuTrainingWorker(TrainingWorker):
    """Train the critic, or the actor or reference inside `CpuActorRolloutRefWorker`."""

    def __init__(self, config):
        initialize_global_process_group_ray(backend="gloo")
        super().__init__(config)


class CpuActorRolloutRefWorker(ActorRolloutRefWorker):
    """Train and sample in one worker, built of `CpuTrainingWorker`s."""

    actor_worker_cls = CpuTrainingWorker
    ref_worker_cls = CpuTrainingWorker


def use_cpu_workers(trainer):
    """Replace verl's workers by those above; to be called at the end of `_init_resource_pool_mgr`."""
    mapping = trainer.role_worker_mapping
    for role in mapping:
        mapping[role] = ray.remote(CpuTrainingWorker if role == Role.Critic else CpuActorRolloutRefWorker)
