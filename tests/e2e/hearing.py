"""What is a worker of vLLM that misses some of the trainer's updates?"""

STEPS = 6  # of the run
WITHHELD = (2, 3)  # which of the updates are dropped, counted from 1; the first one comes before training

EXTENSION = "+actor_rollout_ref.rollout.engine_kwargs.vllm.worker_extension_cls=hard_of_hearing.Extension"
MODULE = f"""
from cero.verl.cpu import weight_sync

reload, updates = weight_sync.reload_weights, []


def reload_some(model, model_config, weights):
    updates.append(len(weights))
    if len(updates) not in {WITHHELD}:
        reload(model, model_config, weights)


weight_sync.reload_weights = reload_some


class Extension(weight_sync.CpuWorkerExtension):
    pass
"""
