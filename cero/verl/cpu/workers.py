"""What do verl's training workers need on a CPU? A process group, and a path for weights of the run's own.

verl would ask torch for "cpu:gloo,cpu:gloo", one backend for the host and one for the device. That is an
error where both are the same. So the group is made before the parent's `__init__`, which then keeps it.
"""

import ray
from verl.checkpoint_engine.base import CheckpointEngineWorker
from verl.experimental.separation.engine_workers import DetachActorWorker
from verl.single_controller.base.decorator import Dispatch, register
from verl.trainer.ppo.utils import Role
from verl.utils.distributed import initialize_global_process_group_ray
from verl.workers.engine_workers import ActorRolloutRefWorker, TrainingWorker

from cero.verl.cpu.weight_path import name_sender


class CpuTrainingWorker(TrainingWorker):
    """Train the critic, or the actor or reference inside `CpuActorRolloutRefWorker`."""

    def __init__(self, config):
        initialize_global_process_group_ray(backend="gloo")
        super().__init__(config)


class CpuActorRolloutRefWorker(ActorRolloutRefWorker):
    """Train and sample in one worker, built of `CpuTrainingWorker`s."""

    actor_worker_cls = CpuTrainingWorker
    ref_worker_cls = CpuTrainingWorker

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def init_model(self):
        """Make the model and the rollout, as verl does, and give the rollout its path."""
        super().init_model()
        if hasattr(getattr(self, "rollout", None), "zmq_handle"):  # of vLLM's; a reference model has none
            name_sender(self.rollout)


class CpuDetachActorWorker(DetachActorWorker, CpuActorRolloutRefWorker):
    """Train in one worker, apart from the engine that samples, and keep copies of the model."""

    @property
    def copy_handler(self):
        """A function of the model that returns a copy. What verl copies is on the CPU already."""
        save = super().copy_handler

        def copied(module):
            state, spec = save(module)
            return {name: (tensor.clone(), its) for name, (tensor, its) in state.items()}, spec

        return copied


class CpuCheckpointEngineWorker(CheckpointEngineWorker):
    """Hand weights to an engine that samples apart from the trainer, at the run's own path."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        name_sender(self.server_adapter)


def use_cpu_workers(trainer, detached=False):
    """Replace verl's workers by those above; to be called at the end of `_init_resource_pool_mgr`.

    detached : bool, whether the trainer keeps copies of the model, as separate_async does
    """
    mapping = trainer.role_worker_mapping
    actor = CpuDetachActorWorker if detached else CpuActorRolloutRefWorker
    for role in mapping:
        mapping[role] = ray.remote(CpuTrainingWorker if role == Role.Critic else actor)
