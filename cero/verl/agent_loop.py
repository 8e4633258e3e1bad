"""How does an allocator that decides within a step launch rollouts through verl's own agent loop?

verl's worker starts all sessions of a prompt, waits for all of them, and publishes the prompt's status. It
still does so here. It is told the most sessions that a prompt may have, and each session waits for its turn,
which may never come.
"""

import asyncio
import logging
from functools import partial

import ray
from verl.trainer.ppo.v1.agent_loop_tq import AgentLoopManagerTQ, AgentLoopWorkerTQ

from cero.verl.coordinator import Coordinator, PromptSampling
from cero.verl.success import Success

logger = logging.getLogger(__name__)

# verl decorates the class with @ray.remote, whose result can't be subclassed. Ray keeps the plain class in
# this attribute, and verl's own single_controller takes it from there, too. A test checks that it stays so.
Worker = AgentLoopWorkerTQ.__ray_actor_class__


class SequentialWorker(Worker):
    """Run verl's worker with sessions that take turns. Validation stays verl's own."""

    def __init__(self, *args, **kwargs):
        # This method must exist, even without the lines below. Ray would send an inherited one by value,
        # together with a copy of `Worker`: its `super()` would refer to that copy, from which this class does
        # not descend. No other method of `Worker` uses `super()`.
        super().__init__(*args, **kwargs)
        self._success = Success.from_config(self.config.cero.success)
        self._sampling = {}  # uid -> PromptSampling, for prompts that are being sampled

    def use_coordinator(self, coordinator):
        """Take the Ray handle of the `Coordinator`; called once, before the first prompt."""
        self._coordinator = coordinator

    async def _run_prompt(self, prompt, sampling_params, trajectory, trace=False):
        run = partial(super()._run_prompt, prompt, sampling_params, trajectory, trace)
        if trajectory["validate"]:
            return await run()
        uid = prompt["uid"]
        sampling = self._sampling[uid] = PromptSampling(int(prompt["__rollout_n__"]))
        playing = asyncio.create_task(self._play(uid, sampling))
        try:
            await run()
        finally:
            sampling.abandon()  # ends no session, unless verl gave up before it started them
            await playing
            del self._sampling[uid]

    async def _play(self, uid, sampling):
        coordinator = self._coordinator
        try:
            await sampling.play(
                lambda: coordinator.first.remote(uid),
                lambda successes, trials: coordinator.report.remote(uid, successes, trials),
            )
        except Exception as error:
            logger.exception("sampling in rounds of prompt %s failed", uid)
            await coordinator.fail.remote(f"prompt {uid}: {error}")

    async def _run_agent_loop(self, *args, **kwargs):
        run = partial(super()._run_agent_loop, *args, **kwargs)
        sampling = self._sampling.get(kwargs["uid"])
        return await run() if sampling is None else await sampling.session(kwargs["session_id"], run)

    async def _agent_loop_postprocess(self, output, validate, **kwargs):
        await super()._agent_loop_postprocess(output, validate, **kwargs)
        sampling, outputs = (
            self._sampling.get(kwargs["uid"]),
            output if isinstance(output, list) else [output],
        )
        # After verl has stored the session, so that it counts only if the trainer will find it, too.
        if sampling is not None and outputs and outputs[-1].reward_score is not None:
            success = self._success.of(outputs[-1].reward_score, outputs[-1].extra_fields)
            sampling.scored(kwargs["session_id"], success)


class SequentialManager(AgentLoopManagerTQ):
    """Manage `SequentialWorker`s and one `Coordinator`. The trainer sets it as agent_loop_manager_class."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.agent_loop_workers_class = ray.remote(SequentialWorker)

    async def _init_agent_loop_workers(self):
        await super()._init_agent_loop_workers()
        # Every prompt of a step may wait in it at once, and a report must still get through.
        waiting = 2 * self.config.data.train_batch_size + 64
        self._coordinator = ray.remote(num_cpus=0, max_concurrency=waiting)(Coordinator).remote()
        await asyncio.gather(
            *[worker.use_coordinator.remote(self._coordinator) for worker in self.agent_loop_workers]
        )

    def open_step(self, uids, step):
        """Start the sampling of `step`, before its prompts are submitted (`Coordinator.open_step`)."""
        ray.get(self._coordinator.open_step.remote(uids, step))

    def close_step(self):
        """Return the finished step, once its prompts are back (`Coordinator.close_step`)."""
        # The last reports may still be on their way, but they arrive within moments.
        return ray.get(self._coordinator.close_step.remote(), timeout=60)
