"""Which calls does the CPU's worker join, and does verl still have no setting for it?"""

import asyncio
import inspect
from importlib import metadata

import pytest

pytest.importorskip("verl")


@pytest.fixture(scope="module")
def together():
    # The import replaces verl's worker in this process. Undone, since other tests mean verl's own.
    from verl.trainer.ppo.v1 import agent_loop_tq

    theirs = agent_loop_tq.AgentLoopWorkerTQ
    from cero.verl.cpu.agent_loop import Together

    agent_loop_tq.AgentLoopWorkerTQ = theirs
    return Together


class Clock(asyncio.SelectorEventLoop):
    """An event loop without waiting: when nothing is left to do, it is as late as its next timer says."""

    now = 0.0

    def time(self):
        return self.now

    def _run_once(self):
        if not self._ready and self._scheduled:
            self.now = max(self.now, self._scheduled[0].when())
        super()._run_once()


def calls(together, arrivals, **options):
    """Return the batches that a `Together` makes of items that arrive at given times, and their results."""
    batches = []

    async def call(items):
        batches.append(items)
        await asyncio.sleep(0.05)
        return [item.upper() for item in items]

    async def main():
        joined = together(call, **options)

        async def arrive(delay, item):
            await asyncio.sleep(delay)
            return await joined(item)

        return await asyncio.gather(*(arrive(delay, item) for item, delay in arrivals.items()))

    loop = Clock()
    try:
        return batches, loop.run_until_complete(main())
    finally:
        loop.close()


def test_calls_at_the_same_time_travel_together(together):
    assert calls(together, dict.fromkeys("abcde", 0)) == ([list("abcde")], list("ABCDE"))
    assert calls(together, dict.fromkeys("abcde", 0), size=2)[0] == [["a", "b"], ["c", "d"], ["e"]]


def test_without_patience_a_later_call_does_not_wait(together):
    batches, results = calls(together, {"a": 0, "b": 0.02, "c": 0.03})
    assert batches == [["a"], ["b"], ["c"]] and results == ["A", "B", "C"]


def test_with_patience_they_gather_and_go_in_turn(together):
    batches, results = calls(together, {"a": 0, "b": 0.03, "c": 0.04}, patience=0.005)
    assert batches == [["a"], ["b", "c"]] and results == ["A", "B", "C"]


def test_an_error_reaches_everyone_who_travelled(together):
    async def call(items):
        raise OSError("lost")

    async def main():
        joined = together(call)
        return await asyncio.gather(*(joined(item) for item in "ab"), return_exceptions=True)

    assert [str(error) for error in asyncio.run(main())] == ["lost", "lost"]


def test_one_that_fails_takes_nobody_with_it(together):
    async def call(items):
        return [ValueError(f"{item} is too long") if item == "b" else item.upper() for item in items]

    async def main():
        joined = together(call)
        return await asyncio.gather(*(joined(item) for item in "abc"), return_exceptions=True)

    first, second, third = asyncio.run(main())
    assert (first, str(second), third) == ("A", "b is too long", "C")


def test_the_server_returns_the_error_of_each_request():
    from cero.verl.cpu.replica import CpuHttpServer

    class Server:
        generate_many, _generate_ids = CpuHttpServer.generate_many, CpuHttpServer._generate_ids

        async def generate(self, sampling_params, prompt_ids):
            if len(prompt_ids) > 3:
                raise ValueError("too long")
            return len(prompt_ids)

    requests = [{"sampling_params": {}, "prompt_ids": [0] * length} for length in (1, 9, 2)]
    first, second, third = asyncio.run(Server().generate_many(requests))
    assert (first, str(second), third) == (1, "too long", 2)


def test_verl_has_no_setting_for_what_is_patched():
    """If this fails, verl has changed: see what cero/verl/cpu/agent_loop.py need no longer replace."""
    from verl.experimental.agent_loop import agent_loop
    from verl.trainer.ppo.v1 import agent_loop_tq

    from cero.verl.cpu import platform

    assert metadata.version("verl") == platform.PATCHED
    # The configuration can't name a class of workers.
    manager = inspect.getsource(agent_loop_tq.AgentLoopManagerTQ)
    assert "self.agent_loop_workers_class = AgentLoopWorkerTQ" in manager
    # The worker can't be handed a queue.
    worker = inspect.getsource(agent_loop_tq)
    assert "await tq.async_kv_put(" in worker and "fields=list_of_dict_to_tensordict(" in worker
    # An agent loop is made for each rollout.
    one_rollout = inspect.getsource(agent_loop.AgentLoopWorker._run_agent_loop)
    assert "hydra.utils.instantiate(" in one_rollout
