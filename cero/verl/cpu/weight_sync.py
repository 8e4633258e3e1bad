"""How does vLLM's CPU model get the trainer's new weights?

On a CPU, vLLM packs each linear layer's weight for its matrix kernels and discards the weight itself. So
`model.load_weights`, which verl calls on GPUs, has nothing left to load into. vLLM's layerwise reload brings
the weights back, loads them and packs them again. It leaves out one case: a layer that shares the weight of
another one (tied embeddings). Its weight is new afterwards, but its packed copy is still the old one.
"""

import logging
from collections import Counter
from contextlib import contextmanager

from verl.workers.rollout.vllm_rollout.bucketed_weight_transfer import BucketedWeightReceiver
from verl.workers.rollout.vllm_rollout.utils import vLLMColocateWorkerExtension
from verl.workers.rollout.vllm_rollout.weight_update_utils import apply_buffer_updates, split_buffer_updates
from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload


class CpuWorkerExtension(vLLMColocateWorkerExtension):
    """Load new weights inside vLLM's worker; verl calls the method by its name."""

    def update_weights_from_ipc(self, peft_config=None, base_sync_done=False, use_shm=True):
        """Receive the trainer's weights and load them. Raises RuntimeError for LoRA weights."""
        if peft_config:
            raise RuntimeError("LoRA is not supported on CPU: train the full model")
        weights = []
        receiver = BucketedWeightReceiver(
            zmq_handle=self._get_zmq_handle(), device=self.device, use_shm=use_shm
        )
        # Cloned, because the receiver hands out views of a shared buffer that it closes at the end.
        receiver.receive_weights(
            lambda bucket, is_last: weights.extend((name, t.clone()) for name, t in bucket)
        )
        reload_weights(self.model_runner.model, self.model_runner.vllm_config.model_config, weights)


def reload_weights(model, model_config, weights):
    """Load `weights`, all weights of the model by their Hugging Face names, and pack every layer again.

    weights : list of (str, tensor). Raises RuntimeError if a weight is missing.
    """
    expected = {name for name, _ in model.named_parameters()}
    parameters, buffers, _ = split_buffer_updates(model, weights)
    with _layerwise_warnings_off():
        initialize_layerwise_reload(model)
        loaded = model.load_weights(parameters)
        finalize_layerwise_reload(model, model_config)
    missing = expected - loaded if loaded is not None else None
    if missing:
        raise RuntimeError(
            f"the trainer sent no weights for {sorted(missing)}; the rollouts would come from old ones"
        )
    for layer in layers_sharing_a_weight(model):
        layer.quant_method.process_weights_after_loading(layer)
    apply_buffer_updates(model, buffers)


def layers_sharing_a_weight(model):
    """Return the layers whose parameter `weight` is another layer's as well: list of modules."""
    layers = [
        m for m in model.modules() if getattr(m, "weight", None) is not None and hasattr(m, "quant_method")
    ]
    owners = Counter(id(layer.weight) for layer in layers)
    return [layer for layer in layers if owners[id(layer.weight)] > 1]


@contextmanager
def _layerwise_warnings_off():
    """Silence vLLM's warning at each sync that a tied layer got no weights; `reload_weights` checks that."""
    logger = logging.getLogger("vllm.model_executor.model_loader.reload.layerwise")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
