"""Does every allocator train? A few steps of verl's whole stack with each, and a table of what they did.

    bash scripts/install.sh
    .venv/bin/python scripts/every_allocator.py [--steps 6] [--allocators aero,vip] [--out DIR]

The task is the quickstart's (about a minute to make); a run takes about a minute and a half on two cores. A
run that is done is not repeated; its log is in OUT/<allocator>/train.log. Exits with 1 if one fails."""

import argparse
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from cero import available_allocators
from cero.analysis.runlog import read_log
from cero.cli.arguments import at_least_one, words_of

ROOT = Path(__file__).resolve().parent.parent


def command(allocator, task, out, steps):
    """Return the command line of one run: 24 prompts x 8 rollouts a step, at least two epochs."""
    return [
        *(sys.executable, "-m", "verl.trainer.main_ppo", "+recipe=cero_cpu", f"allocator={allocator}"),
        f"data.train_files={task}/train.parquet",
        f"data.val_files={task}/test.parquet",
        "data.train_max_samples=72",
        "data.train_batch_size=24",
        "data.max_prompt_length=32",
        "data.max_response_length=8",
        f"actor_rollout_ref.model.path={task}/model",
        "actor_rollout_ref.rollout.n=8",
        "actor_rollout_ref.actor.ppo_mini_batch_size=24",
        "actor_rollout_ref.actor.optim.lr=1e-4",
        f"reward.custom_reward_function.path={ROOT}/examples/arithmetic/reward.py",
        f"trainer.total_epochs={-(-steps // 3)}",
        f"trainer.total_training_steps={steps}",
        "trainer.val_before_train=false",
        "trainer.test_freq=-1",
        "trainer.save_freq=-1",
        "trainer.logger=[console]",
        f"trainer.default_local_dir={out}",
        f"hydra.run.dir={out}/hydra",
    ]


def train(arguments, out):
    """Run to the end in a process group of its own; return (exit code, seconds)."""
    out.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    with open(out / "train.log", "w") as log:
        process = subprocess.Popen(
            arguments, stdout=log, stderr=subprocess.STDOUT, cwd=ROOT, start_new_session=True
        )
        try:
            code = process.wait()
        finally:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
    return code, time.monotonic() - started


def row(name, steps):
    """Return the table row of a run's log."""
    mean = lambda key: sum(step["metrics"].get(key, 0.0) for step in steps) / len(steps)  # noqa: E731
    rollouts = [n for step in steps for n in step["rollouts"]]
    sampled, trained = (sum(step[key] for step in steps) for key in ("sampled", "trained"))
    return (
        name,
        f"{sampled:,} of {sum(step['budget'] for step in steps):,}",
        f"{min(rollouts)} to {max(rollouts)}",
        f"{trained:,}",
        f"{mean('cero/group/signal'):.0%}",
        f"{mean('cero/rounds/max'):.1f}" if "cero/rounds/max" in steps[0]["metrics"] else "",
        # The first step waits for processes to start.
        f"{sum(step['metrics']['timing_s/step'] for step in steps[1:]) / max(len(steps) - 1, 1):.2f}",
        f"{1000 * sum(mean(f'cero/time/{part}') for part in ('allocate', 'observe', 'log')):.0f}",
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=at_least_one, default=6)
    parser.add_argument("--allocators", type=words_of(available_allocators()), default=available_allocators())
    parser.add_argument("--task", type=Path, default=ROOT / "runs/arithmetic")
    parser.add_argument("--out", type=Path, default=ROOT / "runs/every_allocator")
    arguments = parser.parse_args()
    console, failed = Console(), []
    prepare = [
        sys.executable,
        ROOT / "examples/arithmetic/prepare.py",
        "--out",
        arguments.task,
        "--train",
        "336",
    ]
    subprocess.run(prepare, check=True)
    table = Table(title=f"{arguments.steps} steps each", title_justify="left")
    for head in (
        "allocator",
        "rollouts sampled",
        "per prompt",
        "trained on",
        "signal",
        "rounds",
        "s/step",
        "scheduler ms",
    ):
        table.add_column(head, justify="left" if head == "allocator" else "right", no_wrap=True)
    for name in arguments.allocators:
        out = (arguments.out / name).resolve()
        log = out / "cero" / "allocations.jsonl"
        done = log.exists() and sum(record["kind"] == "step" for record in read_log(log)) == arguments.steps
        if not done:
            console.print(f"{name} ...", end=" ")
            code, seconds = train(command(name, arguments.task.resolve(), out, arguments.steps), out)
            console.print(f"exit {code}, {seconds:.0f} s")
            if code:
                failed.append(name)
                continue
        table.add_row(*row(name, [record for record in read_log(log) if record["kind"] == "step"]))
    console.print(table)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}; see train.log under {arguments.out}")


if __name__ == "__main__":
    main()
