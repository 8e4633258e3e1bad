"""verl's training workers with a gloo process group.

verl would ask torch for "cpu:gloo,cpu:gloo", one backend for the host and one for the device, which is
an error when the two are the same. A group made before the parent's `__init__` is kept.
"""

import ray
from verl.trainer.ppo.utils import Role
from verl.utils.distributed import initialize_global_process_group_ray
from verl.workers.engine_workers import ActorRolloutRefWorker, TrainingWorker


class CpuTrainingWorker(TrainingWorker):
    """Critic, or the actor or reference inside `CpuActorRolloutRefWorker`."""

    def __init__(self, config):
        initialize_global_process_group_ray(backend="gloo")
        super().__init__(config)


class CpuActorRolloutRefWorker(ActorRolloutRefWorker):
    """The hybrid worker, built of `CpuTrainingWorker`."""

    actor_worker_cls = CpuTrainingWorker
    ref_worker_cls = CpuTrainingWorker


def use_cpu_workers(trainer):
    """Put the workers above in the place of verl's. To be called at the end of `_init_resource_pool_mgr`."""
    mapping = trainer.role_worker_mapping
    for role in mapping:
        mapping[role] = ray.remote(CpuTrainingWorker if role == Role.Critic else CpuActorRolloutRefWorker)
