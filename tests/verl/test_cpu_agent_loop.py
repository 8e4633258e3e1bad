import asyncio
import inspect
import os
import subprocess
import sys
from importlib import metadata

import pytest

pytest.importorskip("verl")


@pytest.fixture(scope="module")
def together():
    # Imported without its last line's effect on this process: the other tests mean verl's own worker.
    from verl.trainer.ppo.v1 import agent_loop_tq

    theirs = agent_loop_tq.AgentLoopWorkerTQ
    from cero.verl.cpu.agent_loop import Together

    agent_loop_tq.AgentLoopWorkerTQ = theirs
    return Together


def calls(together, arrivals, **options):
    """The batches that a `Together` makes of items that arrive at given times, and the results by item."""
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

    return batches, asyncio.run(main())


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


def test_on_cpu_the_worker_is_ours_for_sampling_in_rounds_too():
    program = (
        "from cero.verl.agent_loop import SequentialWorker\n"
        "from verl.trainer.ppo.v1 import agent_loop_tq\n"
        "from cero.verl.cpu.agent_loop import CpuWorker\n"
        "assert agent_loop_tq.AgentLoopWorkerTQ.__ray_actor_class__ is CpuWorker\n"
        "assert issubclass(SequentialWorker, CpuWorker)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, env=os.environ | {"VERL_PLATFORM": "cpu"})


def test_verl_has_no_setting_for_what_is_patched():
    """If this fails, verl has got a hook, or another version: see cero/verl/cpu/agent_loop.py for what to take away."""
    from verl.experimental.agent_loop import agent_loop
    from verl.trainer.ppo.v1 import agent_loop_tq

    from cero.verl.cpu import platform

    assert metadata.version("verl") == platform.PATCHED
    manager = inspect.getsource(agent_loop_tq.AgentLoopManagerTQ)
    assert (
        "self.agent_loop_workers_class = AgentLoopWorkerTQ" in manager
    )  # no name of a class from the configuration
    worker = inspect.getsource(agent_loop_tq)
    assert (
        "await tq.async_kv_put(" in worker and "fields=list_of_dict_to_tensordict(" in worker
    )  # no queue to hand in
    assert "hydra.utils.instantiate(" in inspect.getsource(
        agent_loop.AgentLoopWorker._run_agent_loop
    )  # one a rollout
