"""How is a run doing? Its allocation log, followed while it trains."""

import os
import time

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from cero.analysis.reading import one_line
from cero.analysis.run import TrainingRun, find_log
from cero.analysis.runlog import read_log

PLAIN_EVERY = 10  # steps between lines where there is no terminal to redraw


def alive(pid):
    """Return whether process `pid` (an int) exists and is no zombie."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return True


def _records(path, tell):
    try:
        return read_log(find_log(path), tell)
    except FileNotFoundError:
        return []


def status(records):
    """Return (spent, total or None, text) of a run's records so far."""
    if not any(record["kind"] == "step" for record in records):
        validated = any(record["kind"] == "validation" for record in records)
        return 0, None, "first step" if validated else "starting Ray, the trainer and the engine"
    run = TrainingRun(records)
    _, accuracy = run.accuracy()
    seconds, signal, total = (
        run.metric(key)[-1] for key in ("timing_s/step", "cero/group/signal", "cero/budget/total")
    )
    text = f"step {run.steps[-1]}"
    if np.isfinite(seconds):
        text += f", {seconds:.1f} s"
    if np.isfinite(signal):
        text += f", groups with signal {signal:.0%}"
    if accuracy.size:
        text += f", validation accuracy {accuracy[-1]:.1%}"
    return int(run.spent[-1]), float(total) if np.isfinite(total) else None, text


def watch(path, pid, interval=1.0, console=None):
    """Show progress of the run at `path` (its folder) until process `pid` ends.

    What can't be read of its log is told once. A log is read whole, so a long one is looked at more seldom:
    watching takes a twentieth of a core.

    Raises FileNotFoundError if the process is not running, and there is no log; ValueError for a `pid` that
    is no process's.
    """
    if not 0 < pid < 2**31:
        raise ValueError(f"--pid={pid} is no number of a process; give the one of main_ppo")
    console = console or Console()
    told = set()

    def tell(message):
        if message not in told:
            told.add(message)
            console.print(Text(one_line(message)), soft_wrap=True)

    columns = (SpinnerColumn(), BarColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=None)
        shown = said = None
        while True:
            running, began = alive(pid), time.monotonic()
            records = _records(path, tell)
            spent, total, text = status(records)
            progress.update(task, completed=spent, total=total, description=text)
            mark = (sum(r["kind"] == "step" for r in records) + PLAIN_EVERY - 1) // PLAIN_EVERY, bool(records)
            line = text if total is None else f"{spent:,} of {int(total):,} rollouts, {text}"
            news = mark != shown or (not running and line != said)
            if news and not console.is_terminal and (records or running):
                console.print(line, soft_wrap=True)
                shown, said = mark, line
            if not running and not records:
                raise FileNotFoundError(f"process {pid} is not running, and {path} has no log of a run")
            if not running:
                return
            time.sleep(max(interval, 20 * (time.monotonic() - began)))
