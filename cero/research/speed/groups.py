"""When does verl's colocate_async sample, and when does each group of rollouts begin and end?

`scripts/speed/modes.py` has verl import this module in each process, by VERL_USE_EXTERNAL_MODULES, in runs
of this plugin's trainer and of verl's own alike. verl does so before it loads its plugins, so nothing of verl
can be imported here at once. Events are lines of JSON in the file that the variable EVENTS names:

    sent         the trainer hands prompts to the agent loop: `prompts`
    begin, end   of a group: `uid`; at its end also its `rollouts`, and when the last one was done (`last`)
    resume       the engine may sample, from the start of training or the end of a step
    pause        the trainer has its groups; what is not done is interrupted until the next `resume`

`t` is the time in seconds by the machine's monotonic clock, which all processes share.

Groups are seen in the agent loop's worker on a CPU (`cero.verl.cpu.agent_loop`): what it writes goes to the
queue all through one function, and before that, as it comes, to a stand-in for the queue.

verl's own trainer has no name of its own here for a CPU, which needs other workers. So it is registered as
PLAIN, with nothing else changed but the seconds between looks at the queue, for which verl has no setting.
"""

import functools
import json
import os
import sys
import time

from wrapt import when_imported

EVENTS = "CERO_EVENTS"  # the variable of the environment that names the file
PLAIN = "plain_colocate_async"
POLL = 0.1  # seconds between looks at the queue; cero.poll_interval of recipe/cero_cpu.yaml
TRAIN = "train"  # verl's partition of the queue


@functools.cache
def _file():
    return os.open(os.environ[EVENTS], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)


def note(event, **what):
    """Append an event, a str, with what else is known of it."""
    line = json.dumps({"t": round(time.monotonic(), 4), "event": event, **what})
    os.write(_file(), f"{line}\n".encode())  # one call for the line, so that processes don't mix theirs


class Groups:
    """Tells begin and end of groups from what a worker writes to the queue.

    note : callable as `note` above
    """

    def __init__(self, note=note):
        self._note, self._done = note, {}  # uid -> [rollouts done, time of the last]
        self._seen = set()

    def written(self, partition_id, keys, tags):
        """Take note of one message: the keys (list of str) and tags (list of dict) of its rows.

        What was seen before is not noted again.
        """
        if partition_id != TRAIN:
            return
        for key, tag in zip(keys, tags, strict=True):
            status = tag.get("status")
            if (key, status) in self._seen:
                continue
            self._seen.add((key, status))
            if status == "running":
                self._done[key] = [0, None]
                self._note("begin", uid=key)
            elif status == "success":  # a row of one rollout, <uid>_<rollout>_<row>
                uid, _, row = key.split("_")
                if row == "0":
                    done = self._done.setdefault(uid, [0, None])
                    done[0] += 1
                    done[1] = round(time.monotonic(), 4)
            elif status in ("finished", "failure"):
                rollouts, last = self._done.pop(key, (0, None))
                self._note("end", uid=key, rollouts=rollouts, last=last)


def watch_queue(module):
    """Watch what agent loops write; `module` is transfer_queue, just imported."""
    put, groups = module.async_kv_batch_put, Groups()

    @functools.wraps(put)
    async def watched(keys, partition_id, fields=None, tags=None, *args, **kwargs):
        if tags is not None:
            groups.written(partition_id, keys, tags)
            # Not earlier, since the module of the worker may still be half imported.
            watch_worker(sys.modules.get("cero.verl.cpu.agent_loop"), groups)
        return await put(keys, partition_id, fields, tags, *args, **kwargs)

    module.async_kv_batch_put = watched


def watch_worker(module, groups):
    """Watch what the worker writes before it waits for more to travel with; at the first call only.

    module : cero.verl.cpu.agent_loop, or None in a process without it
    """
    if module is None or hasattr(module.Queue, "watched"):
        return
    put, put_rows = module.Queue.async_kv_put, module.Queue.async_kv_batch_put

    @functools.wraps(put)
    async def one(self, key, partition_id, tag):
        groups.written(partition_id, [key], [tag])
        await put(self, key, partition_id, tag)

    @functools.wraps(put_rows)
    async def rows(self, keys, partition_id, fields, tags):
        groups.written(partition_id, keys, tags)
        await put_rows(self, keys, partition_id, fields, tags)

    module.Queue.async_kv_put, module.Queue.async_kv_batch_put = one, rows
    module.Queue.watched = True


def telling(method, event, before=False):
    """Return `method`, which notes `event` when it returns, or `before` it begins."""

    @functools.wraps(method)
    def told(self, *args, **kwargs):
        if before:
            note(event)
        result = method(self, *args, **kwargs)
        if not before:
            note(event)
        return result

    return told


def watch_trainer(v1):
    """Watch verl's trainer, and register PLAIN; `v1` is verl's module, just imported."""
    from omegaconf import open_dict

    base, trainer = v1.PPOTrainer, v1.PPOTrainerColocateAsync
    trainer.on_init_end = telling(trainer.on_init_end, "resume")
    trainer.on_sample_end = telling(trainer.on_sample_end, "pause", before=True)
    trainer.on_step_end = telling(trainer.on_step_end, "resume")
    submit = base._submit_batch_to_rollout

    @functools.wraps(submit)
    def submitted(self, batch):
        note("sent", prompts=len(batch))
        return submit(self, batch)

    base._submit_batch_to_rollout = submitted

    @v1.register_trainer(PLAIN)
    class PlainColocateAsync(trainer):
        """Train as verl's PPOTrainerColocateAsync, on a CPU as well."""

        def __init__(self, config):
            with open_dict(config):
                config.trainer.v1.trainer_mode = "colocate_async"
            super().__init__(config)
            self.replay_buffer.poll_interval = POLL

        def _init_resource_pool_mgr(self):
            super()._init_resource_pool_mgr()
            if self.config.trainer.device == "cpu":
                from cero.verl.cpu.workers import use_cpu_workers

                use_cpu_workers(self)

    return PlainColocateAsync


if EVENTS in os.environ:  # nothing changes in a process that imports this module for its functions
    when_imported("transfer_queue")(watch_queue)
    when_imported("verl.trainer.ppo.v1")(watch_trainer)
