"""verl's vLLM replica and server; all they change is the extension that receives new weights."""

import ray
from verl.workers.rollout.vllm_rollout.vllm_async_server import vLLMHttpServer, vLLMReplica


class CpuHttpServer(vLLMHttpServer):
    def _get_worker_extension_cls(self):
        return "cero.verl.cpu.weight_sync.CpuWorkerExtension"


class CpuReplica(vLLMReplica):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.server_class = ray.remote(CpuHttpServer)
