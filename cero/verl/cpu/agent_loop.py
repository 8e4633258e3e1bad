"""How does verl's agent-loop worker get along with fewer, larger calls?

verl launches each rollout by itself: an agent loop that Hydra builds, three calls of Ray for the tokens, one
for the reward, and three messages to TransferQueue. On a GPU, the model takes so long that this does not
matter. With a small model on a CPU, it took 12 ms of a core for each rollout, and the model took 2 ms. Here
the flow stays verl's, but calls that are made at the same time travel together (`Together`), and what is the
same for every rollout is made once.
"""

import asyncio
import math
from collections import defaultdict
from contextlib import nullcontext
from types import SimpleNamespace
from uuid import uuid4

import ray
import transfer_queue
from verl.experimental.agent_loop.single_turn_agent_loop import SingleTurnAgentLoop
from verl.experimental.reward_loop.reward_loop import RewardLoopWorker
from verl.trainer.ppo.v1 import agent_loop_tq
from verl.utils.rollout_trace import RolloutTraceConfig
from verl.utils.tensordict_utils import list_of_dict_to_tensordict
from verl.workers.rollout.llm_server import LLMServerClient

Worker = agent_loop_tq.AgentLoopWorkerTQ.__ray_actor_class__  # see cero.verl.agent_loop
# At most so many requests travel together, so that rewards of some are computed while others are sampled.
REQUESTS = 64


class Together:
    """Join calls that are made at the same time.

    Parameters
    ----------
    call : async function of a list of items, returns a list of results, exceptions among them
    size : int, the most items of one call; None for no limit
    patience : float, seconds without a further item after which a call is made; 0 for at once. With patience,
        a call also waits for the end of the one before.
    """

    def __init__(self, call, size=None, patience=0.0):
        self._call, self._size, self._patience = call, size, patience
        self._turn = asyncio.Semaphore(1) if patience else nullcontext()
        self._waiting, self._tasks = [], set()

    async def __call__(self, item):
        """Return the result for `item`, or raise its own error, or that of the call it travelled with."""
        future = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if len(self._waiting) == 1:
            task = asyncio.create_task(self._send())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return await future

    async def _send(self):
        async with self._turn:
            seen = 0
            while seen < len(self._waiting):
                seen = len(self._waiting) if self._patience else math.inf
                await asyncio.sleep(self._patience)  # others that are ready to call do so meanwhile
            waiting, self._waiting = self._waiting, []
            size = self._size or len(waiting)
            await asyncio.gather(
                *(self._send_some(waiting[i : i + size]) for i in range(0, len(waiting), size))
            )

    async def _send_some(self, some):
        try:
            results = await self._call([item for item, _ in some])
        except Exception as error:
            for _, future in some:
                if not future.done():
                    future.set_exception(error)
        else:
            for (_, future), result in zip(some, results, strict=True):
                if future.done():
                    continue
                if isinstance(result, Exception):
                    future.set_exception(result)
                else:
                    future.set_result(result)


class Client(LLMServerClient):
    """Ask verl's vLLM servers for many generations in one call; needs `CpuHttpServer.generate_many`."""

    def __init__(self, client):
        super().__init__(client.config, client._load_balancer)
        together = Together(self._generate, REQUESTS)
        self._server = SimpleNamespace(generate=SimpleNamespace(remote=lambda **request: together(request)))

    async def _acquire_server(self, request_id, **extra):
        return "", self._server

    def _release_server(self, server_id, request_id=None):
        pass

    async def _generate(self, requests):
        request_id = uuid4().hex
        server_id, server = await super()._acquire_server(request_id)
        try:
            return await server.generate_many.remote(requests)
        finally:
            super()._release_server(server_id, request_id)


class Queue:
    """Stand in for the part of `transfer_queue` that verl's worker writes with.

    Rows arrive as lists of dicts, because `list_of_dict_to_tensordict` is replaced in verl's module, too.
    """

    def __init__(self):
        self._put = Together(self._put_many, patience=0.005)

    async def async_kv_put(self, key, partition_id, tag):
        await self._put((partition_id, [key], None, [tag]))

    async def async_kv_batch_put(self, keys, partition_id, fields, tags):
        await self._put((partition_id, keys, fields, tags))

    async def _put_many(self, puts):
        alike = defaultdict(lambda: ([], [], []))
        for partition_id, keys, fields, tags in puts:
            columns = None if fields is None else tuple(sorted(fields[0]))
            for rows, more in zip(alike[partition_id, columns], (keys, fields or (), tags), strict=True):
                rows.extend(more)
        for (partition_id, columns), (keys, fields, tags) in alike.items():
            fields = None if columns is None else list_of_dict_to_tensordict(fields)
            await transfer_queue.async_kv_batch_put(keys, partition_id, fields, tags)
        return [None] * len(puts)


class Inline:
    """Stand in for an event loop, and call at once what would go to a thread, which would take longer."""

    async def run_in_executor(self, executor, function):
        return function()


class CpuWorker(Worker):
    """Run verl's worker with fewer, larger calls, as this module describes."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        # The asynchronous trainers have a client of another class, which resumes what it aborted. It stays.
        if type(self.llm_client) is LLMServerClient:
            self.llm_client = Client(self.llm_client)
        self._single_turn = None
        self._rewards_here = (
            self.reward_loop_worker_handles is not None and not self.config.reward.reward_model.enable
        )
        self._reward_worker = None
        # verl's worker writes through these two names of its module. They are changed in this process only.
        agent_loop_tq.tq, agent_loop_tq.list_of_dict_to_tensordict = Queue(), list

    async def _run_agent_loop(self, sampling_params, trajectory, *, agent_name, trace=True, **kwargs):
        if agent_name != "single_turn_agent" or RolloutTraceConfig.get_backend() is not None:
            return await super()._run_agent_loop(
                sampling_params, trajectory, agent_name=agent_name, trace=trace, **kwargs
            )
        if self._single_turn is None:
            self._single_turn = self._make_single_turn()
        output = await self._single_turn.run(sampling_params, **kwargs)
        return await self._agent_loop_postprocess(output, trajectory["validate"], **kwargs)

    def _make_single_turn(self):
        """Return verl's agent loop of one turn, which keeps nothing from one rollout to the next."""
        loop = SingleTurnAgentLoop(
            trainer_config=SimpleNamespace(config=self.config),
            server_manager=self.llm_client,
            tokenizer=self.tokenizer,
            processor=self.processor,
            hf_model_type=self.hf_model_type,
            dataset_cls=self.dataset_cls,
            data_config=SimpleNamespace(config=self.config.data),
        )
        loop.loop = Inline()
        return loop

    # Both methods write to the queue, so both must be defined here. Ray would send inherited ones by value,
    # with a copy of the module's names from before __init__ changes them.
    async def _run_prompt(self, *args, **kwargs):
        await super()._run_prompt(*args, **kwargs)

    async def _agent_loop_postprocess(self, *args, **kwargs):
        await super()._agent_loop_postprocess(*args, **kwargs)

    async def _compute_score(self, outputs, kwargs):
        # Made here and not in __init__, because it takes the running event loop.
        if self._rewards_here and self._reward_worker is None:
            self._reward_worker = RewardLoopWorker(self.config)
            compute_score = SimpleNamespace(remote=self._reward_worker.compute_score)
            self.reward_loop_worker_handles = [SimpleNamespace(compute_score=compute_score)]
        await super()._compute_score(outputs, kwargs)


# verl's manager and cero.verl.agent_loop look the worker up by this name.
agent_loop_tq.AgentLoopWorkerTQ = ray.remote(CpuWorker)
