"""What do we add to verl's agent loop? A reward function may abstain, and an allocator may decide in rounds.

A reward function abstains by returning None, for an answer that it can't judge. verl would fail at the first
one, when the step's rewards are fetched. Here that rollout is paid for, teaches nothing and is left out.

For an allocator that decides within a step, verl's worker still starts all sessions of a prompt, waits for
all of them, and publishes the prompt's status. It is told the most sessions that a prompt may have, and each
session waits for its turn, which may never come.
"""

import asyncio
import logging
import sys
from functools import partial

import ray
from verl.trainer.ppo.v1.agent_loop_tq import AgentLoopManagerTQ, AgentLoopWorkerTQ

from cero.verl.coordinator import Coordinator, PromptSampling
from cero.verl.success import Success

logger = logging.getLogger(__name__)

# verl decorates the class with @ray.remote, whose result can't be subclassed. Ray keeps the plain class in
# this attribute, and verl's own single_controller takes it from there, too. A test checks that it stays so.
Worker = AgentLoopWorkerTQ.__ray_actor_class__


class Abstained(Exception):
    """Raised inside a worker where the reward function returned None."""


class RewardedWorker(Worker):
    """Run verl's worker, and leave out the rollouts for which the reward function abstains."""

    _told = frozenset()  # whether it has said so of validation (True) and of training (False)

    def __init__(self, *args, **kwargs):
        # This method must exist, though it does nothing. Ray would send an inherited one by value, together
        # with a copy of `Worker`: its `super()` would refer to that copy, from which this class does not
        # descend. No other method of `Worker` uses `super()`.
        super().__init__(*args, **kwargs)

    async def _compute_score(self, outputs, kwargs):
        await super()._compute_score(outputs, kwargs)
        # A reward model that shares the trainer's GPUs speaks later; then there are no workers for rewards.
        if outputs[-1].reward_score is None and self.reward_loop_worker_handles is not None:
            raise Abstained

    async def _agent_loop_postprocess(self, output, validate, **kwargs):
        # verl stores the session after its score, so that nothing of it is stored here.
        try:
            await super()._agent_loop_postprocess(output, validate, **kwargs)
        except Abstained:
            if validate not in self._told:
                self._told |= {validate}
                message = abstention(self.config.reward, kwargs.get("data_source"), validate)
                print(message, file=sys.stderr, flush=True)  # Ray shows it on the console of the run


def abstention(reward, data_source, validate):
    """Return what is said of the first rollout without a reward.

    reward : verl's section `reward`; data_source : str, of the rollout's row; validate : bool
    """
    function = reward.custom_reward_function
    name = f"{function.path}:{function.name}" if function.path else "verl's own (reward.reward_manager)"
    what = (
        "counts as wrong where the reward function returns acc; else its question has fewer samples, and "
        "verl's val-core names only questions with the most"
        if validate
        else "is paid for, teaches nothing and is not trained on"
    )
    return (
        f"cero: the reward function {name} returned None for a rollout of data_source={data_source}. Such a "
        f"rollout {what}. Each worker says this once of training and once of validation; "
        "cero/rollouts/sampled less cero/rollouts/observed counts them."
    )


class SequentialWorker(RewardedWorker):
    """Run verl's worker with sessions that take turns. Validation stays verl's own."""

    def __init__(self, *args, **kwargs):
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


class RewardedManager(AgentLoopManagerTQ):
    """Manage `RewardedWorker`s. The trainer sets it as agent_loop_manager_class, where none is set."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.agent_loop_workers_class = ray.remote(RewardedWorker)


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
