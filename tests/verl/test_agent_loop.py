"""Do sessions take turns inside verl's own worker?"""

import asyncio
import inspect
from types import SimpleNamespace

import numpy as np
import pytest
import ray
from verl.trainer.ppo.v1 import agent_loop_tq
from verl.utils.import_utils import load_class_from_fqn

from cero.allocators.rounds import Step
from cero.verl import agent_loop
from cero.verl.agent_loop import RewardedManager, RewardedWorker, SequentialManager, SequentialWorker, Worker
from cero.verl.coordinator import Coordinator
from cero.verl.settings import REWARDED_MANAGER, SEQUENTIAL_MANAGER
from cero.verl.success import Success


def test_the_class_behind_verls_actor():
    """Ray's decorator hides the plain class. It must be there, by its name, and a subclass makes an actor."""
    assert inspect.isclass(Worker) and Worker.__name__ == "AgentLoopWorkerTQ"
    assert Worker.__module__ == agent_loop_tq.__name__
    assert issubclass(SequentialWorker, Worker)
    remote = ray.remote(SequentialWorker)
    assert remote.__ray_actor_class__ is SequentialWorker
    for name in ("_run_prompt", "_run_agent_loop", "_agent_loop_postprocess"):
        base, override = (
            list(inspect.signature(getattr(cls, name)).parameters) for cls in (Worker, SequentialWorker)
        )
        assert base == override or name == "_run_agent_loop"


def test_no_inherited_method_of_the_workers_refers_to_its_class():
    """Ray sends such a method with a copy of the class, from which a subclass does not descend.

    Its super() would fail there, as test_rewarded_worker.py sees it.
    """
    methods = {name: value for name, value in vars(Worker).items() if inspect.isfunction(value)}
    with_super = {name for name, method in methods.items() if "__class__" in method.__code__.co_freevars}
    assert with_super == {"__init__"}
    for cls in (RewardedWorker, SequentialWorker):
        assert "__init__" in vars(cls)


def test_verl_finds_the_manager_by_its_name():
    assert load_class_from_fqn(SEQUENTIAL_MANAGER) is SequentialManager
    assert load_class_from_fqn(REWARDED_MANAGER) is RewardedManager


class UntilSuccess(Step):
    def _first(self):
        return np.full(self.ids.size, 2)

    def _next(self, idle):
        return np.where(self.successes[idle] > 0, 0, 1)


class Remote:
    """Call an actor's method without Ray."""

    def __init__(self, method):
        self.remote = method


@pytest.fixture
def worker(monkeypatch):
    """A worker without verl's set-up; `published` and `ran` list what it did.

    Its sessions end as the function `outcome(uid, session)` says, which a test sets.
    """
    published, ran = [], []

    async def put(key, partition_id, tag):
        published.append((key, partition_id, tag["status"]))

    async def session(self, sampling_params, trajectory, *, session_id, uid, **kwargs):
        ran.append((uid, session_id))
        reward = worker.outcome(uid, session_id)
        if isinstance(reward, Exception):
            raise reward
        output = SimpleNamespace(reward_score=reward, extra_fields={})
        await self._agent_loop_postprocess(output, trajectory["validate"], uid=uid, session_id=session_id)

    async def stored(self, output, validate, **kwargs):
        pass

    monkeypatch.setattr(agent_loop_tq.tq, "async_kv_put", put)
    monkeypatch.setattr(Worker, "_run_agent_loop", session)
    monkeypatch.setattr(Worker, "_agent_loop_postprocess", stored)
    worker = SequentialWorker.__new__(SequentialWorker)
    worker._success, worker._sampling = Success(None, -1.0, 1.0), {}
    rollout = SimpleNamespace(n=4, val_kwargs=SimpleNamespace(n=3))
    worker.config = SimpleNamespace(actor_rollout_ref=SimpleNamespace(rollout=rollout))
    worker.published, worker.ran = published, ran
    return worker


def play(worker, uids, validate=False):
    async def prompts():
        coordinator = Coordinator()
        names = ("first", "report", "fail")
        worker.use_coordinator(
            SimpleNamespace(**{name: Remote(getattr(coordinator, name)) for name in names})
        )
        await coordinator.open_step(uids, UntilSuccess(np.arange(len(uids)), 100, 5))
        own = {} if validate else {"__rollout_n__": 5}
        await asyncio.gather(
            *[worker._run_prompt({"uid": uid} | own, {}, {"validate": validate}) for uid in uids]
        )
        return None if validate else await coordinator.close_step()

    return asyncio.run(asyncio.wait_for(prompts(), 5))


def test_rounds_through_verls_own_worker(worker):
    worker.outcome = lambda uid, session: 1.0 if session >= int(uid[1:]) else -1.0
    step = play(worker, ["u0", "u3", "u9"])
    assert step.launched.tolist() == [2, 4, 5] and step.successes.tolist() == [2, 1, 0]
    assert sorted(worker.ran) == [(uid, s) for uid, n in (("u0", 2), ("u3", 4), ("u9", 5)) for s in range(n)]
    # verl publishes twice of each prompt: that it is running and, after its last session, that it ended.
    assert sorted(worker.published)[::2] == [(uid, "train", "finished") for uid in ("u0", "u3", "u9")]
    assert not worker._sampling


@pytest.mark.parametrize("failure", [None, ValueError("no reward"), 7.0])
def test_failures_end_a_prompt_with_verls_status(worker, failure):
    """A reward of 7.0 lies outside the range. The trainer will say so; here it must leave nobody waiting."""
    worker.outcome = lambda uid, session: failure if (uid, session) == ("u0", 1) else -1.0
    step = play(worker, ["u0", "u1"])
    assert step.launched.tolist() == [2, 5] and step.trials.tolist() == [1, 5]
    status = {key: status for key, _, status in worker.published}
    assert status == {"u0": "finished" if failure is None else "failure", "u1": "finished"}


def test_validation_is_verls_own(worker):
    worker.outcome = lambda uid, session: 7.0
    play(worker, ["v0"], validate=True)
    assert worker.ran == [("v0", 0), ("v0", 1), ("v0", 2)]
    assert worker.published == [("v0", "val", "running"), ("v0", "val", "finished")]


@pytest.fixture
def judged(monkeypatch):
    """A worker of verl whose rewards come from `judged.rewards`; `judged.stored` lists what it stores."""
    worker = RewardedWorker.__new__(RewardedWorker)
    worker.stored, worker.rewards, worker.reward_loop_worker_handles = [], {}, ["some"]
    worker.config = SimpleNamespace(
        reward=SimpleNamespace(custom_reward_function=SimpleNamespace(path="my/reward.py", name="judge"))
    )

    async def score(self, outputs, kwargs):
        outputs[-1].reward_score = self.rewards[kwargs["session_id"]]

    async def process(self, output, validate, **kwargs):
        await self._compute_score(output if isinstance(output, list) else [output], kwargs)
        self.stored.append(kwargs["session_id"])

    monkeypatch.setattr(Worker, "_compute_score", score)
    monkeypatch.setattr(Worker, "_agent_loop_postprocess", process)
    return worker


@pytest.mark.parametrize("turns", [1, 2])
@pytest.mark.parametrize("validate", [False, True])
def test_a_rollout_without_a_reward_is_left_out(judged, capsys, validate, turns):
    judged.rewards = {0: 1.0, 1: None, 2: 0.0, 3: None}

    async def sessions():
        for session in judged.rewards:
            outputs = [SimpleNamespace(reward_score=None) for _ in range(turns)]
            await judged._agent_loop_postprocess(
                outputs if turns > 1 else outputs[0], validate, session_id=session, data_source="maths"
            )

    asyncio.run(sessions())
    assert judged.stored == [0, 2]
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1 and "my/reward.py:judge returned None" in told[0] and "maths" in told[0]
    assert ("counts as wrong where the reward function returns acc" in told[0]) == validate


def test_training_is_told_of_after_validation(judged, capsys):
    """A validation before training must not hide what training leaves out."""
    judged.rewards = {0: None}
    for validate in (True, False, True, False):
        output = SimpleNamespace(reward_score=None)
        asyncio.run(judged._agent_loop_postprocess(output, validate, session_id=0, data_source="maths"))
    told = capsys.readouterr().err.splitlines()
    assert ["val-core" in line for line in told] == [True, False]


def test_rewards_that_come_later_are_waited_for(judged):
    """A reward model on the trainer's GPUs gives them after sampling; the worker stores rows without."""
    judged.rewards, judged.reward_loop_worker_handles = {0: None}, None
    asyncio.run(judged._agent_loop_postprocess(SimpleNamespace(reward_score=None), False, session_id=0))
    assert judged.stored == [0]


def test_errors_of_the_reward_function_stay_errors(judged):
    with pytest.raises(KeyError):
        asyncio.run(judged._agent_loop_postprocess(SimpleNamespace(reward_score=None), False, session_id=9))


def test_verl_failing_before_the_first_session_leaves_nobody_waiting(worker, monkeypatch):
    async def put(key, partition_id, tag):
        if key == "u0" and tag["status"] == "running":
            raise ConnectionError("queue")

    monkeypatch.setattr(agent_loop_tq.tq, "async_kv_put", put)
    worker.outcome = lambda uid, session: 1.0
    with pytest.raises(ConnectionError):
        play(worker, ["u0", "u1"])
    assert not worker._sampling
    assert agent_loop.Worker is Worker
