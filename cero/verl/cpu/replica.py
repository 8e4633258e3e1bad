"""What differs between verl's vLLM server on a GPU and on a CPU?

Another extension receives new weights, at a path of this run's own, and many requests come in one call.
"""

import asyncio

import ray
from verl.single_controller.ray import RayClassWithInitArgs
from verl.workers.rollout.vllm_rollout.vllm_async_server import vLLMHttpServer, vLLMReplica
from vllm.sampling_params import RequestOutputKind

from cero.verl.cpu.weight_path import name_receiver


class CpuHttpServer(vLLMHttpServer):
    """Serve vLLM's CPU engine."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        name_receiver()

    def _get_worker_extension_cls(self):
        return "cero.verl.cpu.weight_sync.CpuWorkerExtension"

    async def generate_many(self, requests):
        """Return what `generate` returns for each of `requests`, a list of its keyword arguments.

        A request that failed, because its prompt is too long, say, has its exception in place of a result.
        """
        return await asyncio.gather(
            *(self._generate_ids(**request) for request in requests), return_exceptions=True
        )

    def _generate_ids(self, sampling_params, **request):
        # verl takes token ids, all at once, so vLLM need not report each token, nor turn tokens into text.
        # The dict is a new one, because `generate` changes it and many requests share the one that came.
        whole = {"output_kind": RequestOutputKind.FINAL_ONLY, "detokenize": False}
        return self.generate(sampling_params=sampling_params | whole, **request)


class CpuReplica(vLLMReplica):
    """Start `CpuHttpServer`s."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.server_class = ray.remote(CpuHttpServer)

    def get_ray_class_with_init_args(self):
        """Return verl's class of the workers beside the engine, with the run's own path of weights."""
        from cero.verl.cpu.workers import CpuCheckpointEngineWorker

        return RayClassWithInitArgs(
            cls=ray.remote(CpuCheckpointEngineWorker),
            rollout_config=self.config,
            model_config=self.model_config,
            replica_rank=self.replica_rank,
        )
