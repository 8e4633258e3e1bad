"""When is a run that waits for rollouts stuck, and what has died?

verl's trainer looks at its replay buffer until enough prompts are finished. If a process that samples has
been killed, its prompts never are, and verl looks for ever.
"""

import os
import sys
import threading
import time

import ray

LOOK = 10.0  # seconds between looks at the processes
GRACE = 60.0  # seconds that a run goes on after a process died: verl may notice by itself, and say more
PRINTING = 2.0  # seconds that Ray gets to show what was printed last
# Without this actor no call to the queue comes back, and they have no time limit. Then the trainer's thread
# can't look any more, and another one ends the process.
VITAL = "TransferQueueController"


class Stalled(RuntimeError):
    """Raised where the run waits, once it has waited too long."""


def dead_actors():
    """Return the actors of this job that died of themselves: dict of actor id -> what it was (str).

    Ray's public list of actors needs its dashboard, which may be off. So this asks for the same table
    directly. Where Ray has no such table any more, nothing is known to be dead.
    """
    if not ray.is_initialized():  # to ask would start one
        return {}
    try:
        from ray._private.state import actors

        table = actors(
            job_id=ray.JobID.from_hex(ray.get_runtime_context().get_job_id()), actor_state_name="DEAD"
        )
    except Exception:  # a private function: whatever is wrong with it, the run must not end for it
        return {}
    dead = {}
    for number, actor in table.items():
        cause = actor["DeathCause"]
        died = cause.actor_died_error_context
        # Actors that were told to go, or that nobody refers to any more, have other reasons.
        if cause.HasField("oom_context") or died.Reason.Name(died.reason) in ("WORKER_DIED", "NODE_DIED"):
            name = f" {actor['Name']}" if actor["Name"] else ""
            dead[number] = f"{actor['ActorClassName']}{name} (pid {actor['Pid']})"
    return dead


class Watch:
    """Raise `Stalled` from a replay buffer's waiting, when nothing has come back for too long.

    Parameters
    ----------
    patience : float, seconds without progress; 0 for any number
    save : function that saves what was learned, and returns where
    dead : function like `dead_actors`
    clock : function that returns seconds
    leave : function like `os._exit`
    """

    def __init__(self, patience, save, dead=dead_actors, clock=time.monotonic, leave=os._exit):
        self.patience, self.save, self._dead, self._clock, self._leave = patience, save, dead, clock, leave
        self._buffer, self._progress, self._since, self._looked = None, None, 0.0, 0.0
        self._before, self._lost = None, {}  # actors dead at the first look, and those that died since
        self._blocked = None  # since when the trainer's thread can't go on

    def over(self, buffer):
        """Watch while `buffer` (verl's ReplayBuffer, or one like it) waits. Other buffers are left alone."""
        wait = getattr(buffer, "_wait_for_next_poll", None)
        if wait is None:
            return
        self._buffer = buffer

        def watched(partition_id, *args, **kwargs):
            self.look(partition_id)
            return wait(partition_id, *args, **kwargs)

        buffer._wait_for_next_poll = watched
        sample = getattr(buffer, "sample", None)
        if sample is None:
            return

        def sampled(*args, **kwargs):
            self._progress = None  # another step waits: what the last one saw says nothing of this one
            return sample(*args, **kwargs)

        buffer.sample = sampled

    def look(self, partition_id):
        """Note whether anything has come back since the last look. Raise `Stalled` after too long."""
        if self._before is None:
            self._before = set(self._dead())
        if not self.patience:
            return
        now, progress = self._clock(), self._seen(partition_id)
        if progress != self._progress:
            self._progress, self._since = progress, now
            return
        if now - self._looked >= LOOK:
            self._looked = now
            self._look_for_the_dead()
        waited = now - self._since
        if waited >= self.patience or (self._lost and waited >= GRACE):
            raise Stalled(self._message(partition_id, waited))

    def start(self):
        """Start the thread that ends the process where the trainer's own can't."""
        if self.patience:
            threading.Thread(target=self._guard, daemon=True).start()

    def _guard(self):
        while True:
            time.sleep(LOOK)
            self.end_if_blocked()

    def end_if_blocked(self):
        """End the process if the trainer's thread has been blocked for too long, because VITAL is dead."""
        self._look_for_the_dead()
        if not any(what.startswith(VITAL) for what in self._lost.values()):
            return
        self._blocked = self._blocked or self._clock()
        if self._clock() - self._blocked >= GRACE:
            self.tell_of_the_dead()
            time.sleep(PRINTING)
            self._leave(1)

    def tell_of_the_dead(self):
        """Print which processes have died, and save what was learned, if any have; for a run that fails."""
        self._look_for_the_dead()
        if self._lost:
            print(
                f"cero: the run ends after processes of it died. Dead: {', '.join(self._lost.values())}. "
                f"What the allocator has learned {self._saved()}. Start the same command again, with "
                "trainer.resume_mode=auto, to go on from the last checkpoint.",
                file=sys.stderr,
                flush=True,
            )

    def _look_for_the_dead(self):
        before = self._before or ()
        self._lost = {number: what for number, what in self._dead().items() if number not in before}

    def _saved(self):
        try:
            return f"is saved in {self.save()}"
        except OSError as error:  # what is dead matters more
            return f"could not be saved ({error})"

    def _seen(self, partition_id):
        """Return what changes when anything comes back: prompts of the partition by status, and its rows."""
        buffer = self._buffer
        kinds = (buffer.pending_keys, buffer.running_keys, buffer.finished_keys, buffer.failure_keys)
        prompts = [len(kind[partition_id]) for kind in kinds]
        return partition_id, sum(prompts), *prompts, len(buffer.partitions[partition_id])

    def _message(self, partition_id, waited):
        _, prompts, _, _, finished, failed, rows = self._progress
        if self._lost:
            cause = f"Dead: {', '.join(self._lost.values())}."
        else:
            cause = (
                "No process of the run is known to be dead; the engine may hang. If rollouts may take so "
                "long, raise cero.stall_timeout (minutes); 0 waits for ever."
            )
        return (
            f"cero: no rollout has come back for {waited / 60:.1f} minutes; {finished + failed} of {prompts} "
            f"prompts of the partition {partition_id!r} are finished, with {rows} rows. {cause} What the "
            f"allocator has learned {self._saved()}. Start the same command again, with "
            "trainer.resume_mode=auto, to go on from the last checkpoint."
        )
