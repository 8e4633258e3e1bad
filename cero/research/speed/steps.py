"""What does each step of a training cost? Runs one, and notes the figures of each step as they come."""

import json
import os
import select
import tempfile
import threading
import time

import psutil

from cero.research.study.processes import Tree, environment
from cero.research.study.runner import RunFailed

FILE_NAME = "steps.jsonl"
PHASES = ("gen", "old_log_prob", "adv", "update_actor", "update_weights")  # of a step, as in verl's timing_s/


def watch(command, root, folder, figures_of, steps, variables=None, limit=1500.0):
    """Run a training, and write a line of figures for each of its steps into steps.jsonl of `folder`.

    Each line has `t`, the value of time.monotonic() at the end of the step; `seconds`, from the end of the
    step before (of the first, from the start of the run); `cpu`, the CPU seconds of all processes of the run
    in that time; and what `figures_of` returns.

    Parameters
    ----------
    command : list of str, which trains through verl; the output goes into train.log
    root, folder : Path, where it runs, and an existing folder for what it leaves
    figures_of : callable, from a line (dict) of verl's file logger to a dict
    steps : int, how many are expected
    variables : dict of str, added to the environment
    limit : float, seconds after which the run is ended

    Raises RunFailed if it ends with an error or with other than `steps` steps.
    """
    fifo, log = folder / "metrics.pipe", folder / "train.log"
    fifo.unlink(missing_ok=True)
    os.mkfifo(fifo)
    pipe = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    count = 0
    # Short, because Ray's sockets are under it and their paths are limited to 107 characters.
    with tempfile.TemporaryDirectory(prefix="cero-", ignore_cleanup_errors=True) as scratch:
        asked = environment(scratch) | {"VERL_FILE_LOGGER_PATH": str(fifo)} | (variables or {})
        tree = Tree(command, root, asked, log)
        timer = threading.Timer(limit, tree.process.terminate)
        timer.start()
        try:
            with (folder / FILE_NAME).open("w") as file:
                then, spent_then = time.monotonic(), {}
                for now, line in lines(tree.process, pipe):
                    spent = cpu_seconds(tree.process.pid)
                    cpu = sum(spent.values()) - sum(spent_then.get(pid, 0.0) for pid in spent)
                    figures = {"t": now, "seconds": now - then, "cpu": cpu} | figures_of(line)
                    print(json.dumps(figures), file=file, flush=True)
                    then, spent_then, count = now, spent, count + 1
            status = tree.process.wait()
        finally:
            timer.cancel()
            tree.end()
            os.close(pipe)
            fifo.unlink()
    if status or count != steps:
        raise RunFailed(f"{folder}: it ended with {status} after {count} of {steps} steps; see {log}")


def phases_of(line):
    """Return the step, its seconds by verl's own clock, its tokens, and the seconds of PHASES: a dict.

    line : dict, of verl's file logger; a phase that the run does without took 0 s
    """
    data = line["data"]
    found = {"step": line["step"], "verl": data["timing_s/step"], "tokens": data["perf/total_num_tokens"]}
    return found | {key: data.get(f"timing_s/{key}", 0.0) for key in PHASES}


def cpu_seconds(pid):
    """Return the CPU seconds so far of a process and of all that descend from it: dict of pid -> seconds."""
    seconds = {}
    for process in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True)):
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        seconds[process.pid] = times.user + times.system
    return seconds


def lines(process, pipe):
    """Yield (time, line) for each line that the run writes into the named pipe, until the process ends."""
    rest = b""
    while process.poll() is None:
        if not select.select([pipe], [], [], 1.0)[0]:
            continue
        data, now = os.read(pipe, 2**20), time.monotonic()
        if not data:  # closed, or not yet open
            time.sleep(0.05)
        *complete, rest = (rest + data).split(b"\n")
        for line in complete:
            yield now, json.loads(line)
