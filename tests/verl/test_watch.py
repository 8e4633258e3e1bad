"""Does a run that waits for what is dead end, with its name, and does one that is merely slow go on?"""

from collections import defaultdict
from types import SimpleNamespace

import numpy as np
import pytest
from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer

from cero.verl import watch
from cero.verl.scheduler import RolloutScheduler
from cero.verl.watch import GRACE, LOOK, Stalled, Watch, dead_actors


class Run:
    """A replay buffer that waits for 16 prompts, with a clock that each wait moves."""

    def __init__(self, patience, poll=5.0):
        self.now, self.poll, self.waits, self.saved, self.dead = 100.0, poll, 0, 0, {}
        for kind in ("pending_keys", "running_keys", "finished_keys", "failure_keys"):
            setattr(self, kind, defaultdict(set))
        self.partitions = defaultdict(dict)
        self.running_keys["train"] = {str(i) for i in range(16)}
        self.watch = Watch(patience, self.save, dead=lambda: self.dead, clock=lambda: self.now)
        self.watch.over(self)

    def save(self):
        self.saved += 1
        return "folder/cero/stalled_in_step_3"

    def _wait_for_next_poll(self, partition_id, last_debug_time):
        self.waits += 1
        self.now += self.poll
        return last_debug_time

    def finish(self, partition_id="train"):
        uid = self.running_keys[partition_id].pop()
        self.finished_keys[partition_id].add(uid)
        self.partitions[partition_id][f"{uid}_0_0"] = {}

    def wait(self, seconds):
        """Poll for so long; return the seconds after which it ended, or None."""
        start = self.now
        while self.now < start + seconds:
            try:
                assert self._wait_for_next_poll("train", 7) == 7
            except Stalled as error:
                self.message = str(error)
                return self.now - start
        return None


def test_verls_buffer_waits_by_the_method_that_is_watched():
    buffer = ReplayBuffer.__new__(ReplayBuffer)
    Watch(1.0, None).over(buffer)
    assert "_wait_for_next_poll" in vars(buffer) and callable(ReplayBuffer._wait_for_next_poll)
    Watch(1.0, None).over(SimpleNamespace())  # a sampler of the user's own: left alone


def test_a_run_that_waits_too_long_ends():
    run = Run(patience=600)
    run.finish()
    assert 600 <= run.wait(2000) <= 610 and run.saved == 1
    assert "no rollout has come back for 10.0 minutes; 1 of 16 prompts" in run.message
    assert "No process of the run is known to be dead" in run.message and "cero.stall_timeout" in run.message
    assert "folder/cero/stalled_in_step_3" in run.message and "last checkpoint" in run.message


def test_a_disk_that_is_full_does_not_hide_who_is_dead():
    run = Run(patience=20)
    run.save = lambda: (_ for _ in ()).throw(OSError(28, "No space left on device"))
    Watch(20, run.save, dead=lambda: run.dead, clock=lambda: run.now).over(run)
    run.wait(5)
    run.dead = {"ab12": "X (pid 1)"}
    run.wait(100)
    assert "Dead: X (pid 1)" in run.message and "could not be saved ([Errno 28] No space" in run.message


def test_what_a_stuck_run_saves(composed, tmp_path):
    """The allocator's state and the baseline's, that can be read again; no checkpoint is touched."""
    from cero.core.state import BASELINE_FILE, STATE_FILE, load_state
    from cero.verl.reading import read_settings
    from cero.verl.trainer import CeroTrainer

    overrides = ["actor_rollout_ref.rollout.n=8", f"trainer.default_local_dir={tmp_path}"]
    config = composed("+recipe=cero", *overrides)
    settings = read_settings(config)
    scheduler = RolloutScheduler(settings, settings.make_allocator(), settings.make_baseline(), None)
    scheduler.allocate(["u1", "u2"], np.array([1, 2], dtype=np.uint64))  # rollouts that never came back
    folder = CeroTrainer._save_stalled(SimpleNamespace(config=config, global_steps=7, scheduler=scheduler))
    assert folder == tmp_path / "cero" / "stalled_in_step_7"
    assert load_state(folder / STATE_FILE)["ledger"]["spent"] == 16
    assert load_state(folder / BASELINE_FILE)["format"] == "cero-baseline"
    assert [path.name for path in tmp_path.iterdir()] == ["cero"]


def test_any_progress_starts_the_wait_anew():
    run = Run(patience=600)
    for _ in range(8):
        assert run.wait(500) is None
        run.finish()
    assert run.waits == 8 * 100 and run.saved == 0
    run.partitions["train"]["more_0_0"] = {}  # a session of a prompt that is not finished
    assert run.wait(590) is None


def test_steps_that_finish_do_not_add_up():
    """Each step is looked at once, and always in the same state."""
    run = Run(patience=600, poll=60)
    run.sample = lambda: run.wait(30)
    run.watch.over(run)
    for _ in range(40):
        assert run.sample() is None
    assert run.now - 100 == 40 * 60 and run.saved == 0


def test_a_dead_process_ends_it_soon_and_is_named():
    run = Run(patience=3600)
    assert run.wait(200) is None
    run.dead = {"ab12": "AgentLoopWorker (pid 123)"}
    assert run.wait(1000) <= LOOK + 5  # it had waited for longer than GRACE already
    assert "Dead: AgentLoopWorker (pid 123)." in run.message and run.saved == 1
    run = Run(patience=3600)
    assert run.wait(5) is None
    run.dead = {"ab12": "AgentLoopWorker (pid 123)"}
    assert GRACE - 5 <= run.wait(1000) <= GRACE + LOOK + 5


def test_a_run_that_gets_on_without_the_dead_goes_on():
    run = Run(patience=3600)
    run.wait(5)
    run.dead = {"ab12": "RewardLoopWorker (pid 123)"}
    for _ in range(10):
        assert run.wait(GRACE - 10) is None
        run.finish()


def test_who_was_dead_before_is_not_blamed():
    run = Run(patience=300)
    run.dead = {"old": "Helper (pid 7)"}
    assert run.wait(1000) >= 300 and "Helper" not in run.message


def test_with_patience_zero_a_run_waits_for_ever():
    run = Run(patience=0)
    run.dead = {"old": "Helper (pid 7)"}
    run.wait(5)
    run.dead |= {"ab12": "X (pid 1)"}
    assert run.wait(20_000) is None


def test_a_run_that_fails_by_itself_says_who_is_dead(capsys):
    run = Run(patience=0)
    run.dead = {"old": "Helper (pid 7)"}
    run.wait(5)
    run.watch.tell_of_the_dead()
    assert capsys.readouterr().err == "" and run.saved == 0
    run.dead |= {"ab12": "vLLMHttpServer (pid 1)"}
    run.watch.tell_of_the_dead()
    assert "Dead: vLLMHttpServer (pid 1). What" in capsys.readouterr().err and run.saved == 1


def test_a_trainer_that_can_not_look_any_more_is_ended(capsys, monkeypatch):
    monkeypatch.setattr(watch, "PRINTING", 0.0)
    left = []
    run = Run(patience=600)
    run.watch._leave = left.append
    run.wait(5)
    run.dead = {"ab12": "AgentLoopWorker (pid 1)"}  # the trainer's own thread sees to that
    run.now += 1000
    run.watch.end_if_blocked()
    run.dead["cd34"] = "TransferQueueController TransferQueueController (pid 2)"
    run.watch.end_if_blocked()
    run.now += GRACE - 1
    run.watch.end_if_blocked()
    assert left == [] and run.saved == 0
    run.now += 1
    run.watch.end_if_blocked()
    assert left == [1] and run.saved == 1
    told = capsys.readouterr().err
    assert "AgentLoopWorker (pid 1), TransferQueueController TransferQueueController (pid 2)" in told


def test_short_patience_holds_for_the_dead_too():
    run = Run(patience=20)
    run.wait(5)
    run.dead = {"ab12": "X (pid 1)"}
    assert run.wait(100) <= 25


def test_which_actors_count_as_dead(monkeypatch):
    from ray._private import state
    from ray.core.generated.common_pb2 import ActorDeathCause, ActorDiedErrorContext

    def row(pid, reason=None, oom=False):
        cause = ActorDeathCause()
        if oom:
            cause.oom_context.error_message = "memory"
        elif reason:
            cause.actor_died_error_context.reason = ActorDiedErrorContext.Reason.Value(reason)
        return {"DeathCause": cause, "Name": "", "ActorClassName": "Worker", "Pid": pid}

    table = {
        "a": row(1, "WORKER_DIED"),
        "b": row(2, "OUT_OF_SCOPE"),
        "c": row(3, "RAY_KILL"),
        "d": row(4, "NODE_DIED"),
        "e": row(5, oom=True),
    }
    monkeypatch.setattr(state, "actors", lambda job_id, actor_state_name: table)
    context = SimpleNamespace(get_job_id=lambda: "01000000")
    assert dead_actors() == {} and not watch.ray.is_initialized()
    monkeypatch.setattr(watch.ray, "is_initialized", lambda: True)
    monkeypatch.setattr(watch.ray, "get_runtime_context", lambda: context)
    assert dead_actors() == {"a": "Worker (pid 1)", "d": "Worker (pid 4)", "e": "Worker (pid 5)"}
    monkeypatch.delattr(state, "actors")
    assert dead_actors() == {}


@pytest.mark.parametrize("minutes", ["-1", ".nan", "soon", ".inf"])
def test_bad_timeouts_are_refused(composed, minutes):
    from cero.verl.reading import read_settings

    with pytest.raises(ValueError, match="cero.stall_timeout"):
        read_settings(
            composed("+recipe=cero", "actor_rollout_ref.rollout.n=8", f"cero.stall_timeout={minutes}")
        )
