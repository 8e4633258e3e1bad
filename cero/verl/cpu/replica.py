"""verl's vLLM replica and server, with another extension that receives new weights, and many requests in one call."""

import asyncio

import ray
from verl.workers.rollout.vllm_rollout.vllm_async_server import vLLMHttpServer, vLLMReplica
from vllm.sampling_params import RequestOutputKind


class CpuHttpServer(vLLMHttpServer):
    def _get_worker_extension_cls(self):
        return "cero.verl.cpu.weight_sync.CpuWorkerExtension"

    async def generate_many(self, requests):
        """`generate` for a list of keyword arguments."""
        return await asyncio.gather(*(self._generate_ids(**request) for request in requests))

    def _generate_ids(self, sampling_params, **request):
        # verl takes token ids, all at once: vLLM need not report each token, nor turn them into text. A new
        # dict, since `generate` changes it, and what was one object for many requests still is after the
        # call.
        whole = {"output_kind": RequestOutputKind.FINAL_ONLY, "detokenize": False}
        return self.generate(sampling_params=sampling_params | whole, **request)


class CpuReplica(vLLMReplica):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.server_class = ray.remote(CpuHttpServer)
