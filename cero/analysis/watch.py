"""How is a run doing? Its allocation log, followed while it trains."""

import os
import time

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

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


def _records(path):
    try:
        return read_log(find_log(path))
    except FileNotFoundError:
        return []


def status(records):
    """Return (spent, total or None, text) of a run's records so far."""
    if not any(record["kind"] == "step" for record in records):
        validated = any(record["kind"] == "validation" for record in records)
        return 0, None, "first step" if validated else "starting Ray, the trainer and the engine"
    run = TrainingRun(records)
    _, accuracy = run.accuracy()
    last = run.metrics[-1]
    signal = f"groups with signal {last['cero/group/signal']:.0%}"
    text = f"step {run.steps[-1]}, {last['timing_s/step']:.1f} s, {signal}"
    if accuracy.size:
        text += f", validation accuracy {accuracy[-1]:.1%}"
    return int(run.spent[-1]), last.get("cero/budget/total"), text


def watch(path, pid, interval=1.0, console=None):
    """Show progress of the run at `path` (its folder) until process `pid` ends."""
    console = console or Console()
    columns = (SpinnerColumn(), BarColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=None)
        shown = None
        while True:
            running = alive(pid)
            records = _records(path)
            spent, total, text = status(records)
            progress.update(task, completed=spent, total=total, description=text)
            mark = (sum(r["kind"] == "step" for r in records) + PLAIN_EVERY - 1) // PLAIN_EVERY, bool(records)
            if not console.is_terminal and mark != shown:
                budget = "" if total is None else f"{spent:,} of {int(total):,} rollouts, "
                console.print(budget + text, soft_wrap=True)
                shown = mark
            if not running:
                return
            time.sleep(interval)
