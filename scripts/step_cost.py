"""What does the scheduler add to a training step? verl's own trainer and ours in turn, and the scheduler at real scale.

    python examples/arithmetic/prepare.py --out data/arithmetic
    python scripts/step_cost.py --task data/arithmetic [--rounds 3] [--steps 25] [--out runs/step_cost] [--lock FILE]
    python scripts/step_cost.py --rounds 0     only the scheduler by itself; the other figures stay

Three ways to spend 48 prompts x 8 rollouts a step, run one after the other, again in each round: verl's PPOTrainerSync
with GRPO and CPU workers, and no line of our scheduler (`cero.verl.cpu.plain`); our trainer with allocator=uniform,
which is GRPO too; and with allocator=cero. The learning rate is next to nothing, so that all sample from one policy. A
step's seconds are those between two lines of verl's file logger: all of it, data loading and logging included; its CPU
seconds are those of all processes of the run. Figures go to docs/benchmarks/step_cost.json, tables into docs/speed.md.
A run that is done is not repeated.
"""

import argparse
import fcntl
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import numpy as np
import psutil
import torch
from scipy.stats import bootstrap

ROOT = Path(__file__).resolve().parent.parent
FIGURES, PAGE = ROOT / "docs" / "benchmarks" / "step_cost.json", ROOT / "docs" / "speed.md"
BEGIN, END = "<!-- a training step: written by scripts/step_cost.py -->\n", "<!-- end of a training step -->\n"
WARM_UP = 3  # steps at the start of each run that don't count
POLL = 0.05  # seconds between looks at the replay buffer, the same for all
PLAIN = "verl"
ARMS = {
    PLAIN: (
        "+recipe=cpu",
        "trainer.v1.trainer_mode=plain_cpu",
        "algorithm.adv_estimator=grpo",
        "critic.enable=false",
        f"+cero.poll_interval={POLL}",
    ),
    "uniform": ("+recipe=cero_cpu", "allocator=uniform", f"cero.poll_interval={POLL}"),
    "cero": ("+recipe=cero_cpu", "allocator=cero", f"cero.poll_interval={POLL}"),
}
NAMES = {
    PLAIN: "verl's `PPOTrainerSync`, GRPO",
    "uniform": "ours, `allocator=uniform`, GRPO",
    "cero": "ours, `allocator=cero`",
}


def overrides(arm, task, out, steps):
    """Overrides of verl's config for one run."""
    return [
        *ARMS[arm],
        f"data.train_files={task}/train.parquet",
        f"data.val_files={task}/test.parquet",
        "data.train_batch_size=48",
        "data.seed=0",
        "data.max_prompt_length=32",
        "data.max_response_length=8",
        f"actor_rollout_ref.model.path={task}/model",
        "actor_rollout_ref.rollout.n=8",
        "actor_rollout_ref.actor.ppo_mini_batch_size=48",
        "actor_rollout_ref.actor.optim.lr=1e-9",
        f"reward.custom_reward_function.path={ROOT}/examples/arithmetic/reward.py",
        "trainer.total_epochs=1000",
        f"trainer.total_training_steps={steps}",
        "trainer.val_before_train=false",
        "trainer.test_freq=-1",
        "trainer.save_freq=-1",
        "trainer.resume_mode=disable",
        "trainer.logger=[file]",
        f"trainer.default_local_dir={out}",
        f"hydra.run.dir={out}/hydra",
    ]


# ---- side by side -------------------------------------------------------------------------------------------------


def cpu_seconds(pid):
    """CPU seconds so far of a process and all that descend from it: dict of pid -> seconds."""
    seconds = {}
    for process in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True)):
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        seconds[process.pid] = times.user + times.system
    return seconds


def lines(process, pipe):
    """(time, line) of all that the run writes into the named pipe, as it comes, until the process ends."""
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


def train(arm, task, out, steps):
    """One run; figures of each of its steps after the warm-up: seconds, CPU seconds, seconds in the scheduler."""
    fifo = out / "metrics.pipe"
    fifo.unlink(missing_ok=True)
    os.mkfifo(fifo)
    pipe = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    environment = os.environ | {"VERL_FILE_LOGGER_PATH": str(fifo)}
    if arm == PLAIN:
        environment["VERL_USE_EXTERNAL_MODULES"] = "cero.verl.cpu.plain"
    command = [sys.executable, "-m", "verl.trainer.main_ppo", *overrides(arm, task, out, WARM_UP + steps)]
    found = []
    with open(out / "train.log", "w") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, cwd=ROOT, env=environment, start_new_session=True
        )
        try:
            before = None
            for now, line in lines(process, pipe):
                spent, data = cpu_seconds(process.pid), line["data"]
                if before is not None:
                    then, spent_then = before
                    scheduler = {key: value for key, value in data.items() if key.startswith("cero/time/")}
                    found.append(
                        {
                            "step": line["step"],
                            "seconds": now - then,
                            "cpu": sum(spent.values()) - sum(spent_then.get(pid, 0.0) for pid in spent),
                            "verl": data["timing_s/step"],
                            "scheduler": sum(scheduler.values()) if scheduler else None,
                            **{key.rpartition("/")[2]: value for key, value in scheduler.items()},
                        }
                    )
                before = now, spent
            code = process.wait()
        finally:
            os.close(pipe)
            fifo.unlink()
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
    if code or len(found) < WARM_UP + steps - 1:
        raise SystemExit(f"{arm}: exit code {code} after {len(found) + 1} steps; see {out / 'train.log'}")
    return [step for step in found if step["step"] > WARM_UP]


@contextmanager
def locked(path):
    """Hold the lock on a file, if there is one: other runs on this machine wait for it, as this one does for theirs."""
    if path is None:
        yield
        return
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def side_by_side(task, out, rounds, steps, lock):
    """Figures of all runs, a dict of arm -> a list of steps for each round."""
    runs, load = {arm: [] for arm in ARMS}, [round(os.getloadavg()[0], 1)]
    for number in range(rounds):
        for arm in list(ARMS) if number % 2 == 0 else reversed(ARMS):
            done = out / f"{arm}-{number}" / "steps.json"
            if not done.exists():
                with locked(lock):
                    done.parent.mkdir(parents=True, exist_ok=True)
                    done.write_text(json.dumps(train(arm, task, done.parent, steps)))
            runs[arm].append(json.loads(done.read_text()))
            print(arm, number, *(f"{step['seconds']:.2f}" for step in runs[arm][-1]), flush=True)
    return {"machine": machine(), "load": [*load, round(os.getloadavg()[0], 1)], "runs": runs}


def machine():
    """What matters of the machine; nothing that names it."""
    return {
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "python": sys.version.split()[0],
    } | {name: version(name) for name in ("verl", "torch", "numpy", "scipy")}


def pooled(runs, arm, what):
    """All steps of an arm: float array."""
    return np.array([step[what] for run in runs[arm] for step in run], np.float64)


def ratio(ours, theirs):
    """(ratio of the medians, its 95 % interval): steps are drawn again, 9,999 times."""

    def statistic(ours, theirs, axis=-1):
        return np.median(ours, axis=axis) / np.median(theirs, axis=axis)

    interval = bootstrap((ours, theirs), statistic, vectorized=True, method="percentile", rng=0).confidence_interval
    return statistic(ours, theirs), (interval.low, interval.high)


# ---- the scheduler by itself --------------------------------------------------------------------------------------


def compose(*overrides):
    """verl's config with these overrides."""
    import hydra

    with hydra.initialize_config_module("verl.trainer.config", version_base=None):
        return hydra.compose("ppo_trainer", overrides=list(overrides))


def at_scale(compose, prompts, rollouts, known, steps, folder):
    """Seconds in the scheduler, medians over `steps` steps with `known` prompts in its table; figures as one dict.

    Our trainer's own methods and timers, on batches as verl makes them, with verl's parts of the step left out.
    """
    from transfer_queue import KVBatchMeta
    from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync
    from verl.utils import tensordict_utils as tu
    from verl.utils.dataset.rl_dataset import collate_fn

    from cero.runlog import RunLog
    from cero.verl.estimators import compute_cero_advantage
    from cero.verl.settings import read_settings
    from cero.verl.trainer import CeroTrainer, CollateWithIds

    config = compose("+recipe=cero_cpu", f"data.train_batch_size={prompts}", f"actor_rollout_ref.rollout.n={rollouts}")
    trainer, rng = CeroTrainer.__new__(CeroTrainer), np.random.default_rng(0)
    trainer.config, trainer.settings = config, read_settings(config)
    trainer.allocator = trainer.settings.make_allocator(epochs=10)
    trainer.allocator.table.reserve(known + (steps + 1) * prompts)
    trainer.allocator.table.add(rng.integers(0, 2**64, known, dtype=np.uint64))
    trainer.use_critic, trainer._dispatches, trainer._scheduler_seconds = False, [], {}
    trainer.run_log = RunLog(Path(folder) / "allocations.jsonl")
    trainer.train_dataloader = SimpleNamespace(collate_fn=CollateWithIds(collate_fn))

    def advantage(trainer, batch, metrics):
        rewards = np.zeros((len(batch), 4), np.float32)
        rewards[:, -1] = rng.random(len(batch)) < 0.5
        uids = np.array([key.split("_")[0] for key in batch.keys], dtype=object)
        compute_cero_advantage(torch.from_numpy(rewards), torch.ones(rewards.shape), index=uids)
        return batch

    verl = {
        "_submit_batch_to_rollout": lambda trainer, batch: len(batch),
        "_balance_batch": lambda trainer, batch, metrics: batch,
        "_compute_advantage": advantage,
        "_compute_metrics": lambda *arguments: None,
    }
    found = []
    with patch.multiple(PPOTrainerSync, **verl):
        for step in range(steps + 1):
            batch = trainer.train_dataloader.collate_fn(problems(prompts, rng))
            batch["uid"] = np.array([str(uuid.uuid4()) for _ in range(prompts)], dtype=object)
            batch, metrics = tu.get_tensordict(batch), {f"timing_s/{i}": 0.123456789 for i in range(8)}
            trainer._submit_batch_to_rollout(batch)
            keys = [
                f"{uid}_{session}_0"
                for uid, n in zip(batch["uid"], batch["__rollout_n__"], strict=True)
                for session in range(n)
            ]
            rng.shuffle(keys)
            tags = [{"response_len": 4, "seq_len": 8} for _ in keys]
            batch = trainer._balance_batch(KVBatchMeta(keys, tags, "train"), metrics)
            trainer._compute_advantage(batch, metrics)
            trainer._compute_metrics(batch, metrics, {}, step, 0)
            found.append({key: metrics.get(f"cero/time/{key}", 0.0) for key in ("allocate", "observe", "log")})
    parts = {key: float(np.median([step[key] for step in found[1:]])) for key in found[0]}
    return {"prompts": prompts, "rollouts": rollouts, "known": known, "steps": steps, **parts}


def problems(prompts, rng):
    """Rows as verl's data set gives them: messages as long as a problem in words."""
    text = "A question of some length, as problems in words are, which is put to a model. " * 5
    return [
        {
            "raw_prompt": [{"role": "user", "content": f"{text}{n}?"}],
            "reward_model": {"style": "rule", "ground_truth": str(n)},
            "data_source": "problems",
        }
        for n in rng.integers(0, 2**62, prompts)
    ]


# ---- the page -------------------------------------------------------------------------------------------------------


def table(header, rows):
    """A Markdown table."""
    out = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in out) + "\n\n"


def times(value, interval):
    return f"{value:.3f} [{interval[0]:.3f}, {interval[1]:.3f}]"


def step_table(part):
    """One row for each arm."""
    runs, rows = part["runs"], []
    for arm in ARMS:
        seconds, cpu, plain = (pooled(runs, *key) for key in ((arm, "seconds"), (arm, "cpu"), (PLAIN, "seconds")))
        row = [NAMES[arm], f"{np.median(seconds):.2f} s"]
        if arm == PLAIN:
            row += ["1", f"{np.median(cpu):.2f} s", "1", "", ""]
        else:
            scheduler = pooled(runs, arm, "scheduler")
            row += [times(*ratio(seconds, plain)), f"{np.median(cpu):.2f} s"]
            row += [times(*ratio(cpu, pooled(runs, PLAIN, "cpu")))]
            row += [f"{np.median(scheduler) * 1e3:.1f} ms", f"{np.median(scheduler / seconds):.3%}"]
        rows.append([*row, seconds.size])
    header = ("", "step", "ratio", "CPU time", "ratio", "scheduler", "of the step", "steps")
    return table(header, rows)


def round_lines(part):
    """The ratios of each round, of the medians of its runs."""
    runs, out = part["runs"], []
    for arm in [arm for arm in ARMS if arm != PLAIN]:
        pairs = zip(runs[arm], runs[PLAIN], strict=True)
        ratios = [np.median([s["seconds"] for s in a]) / np.median([s["seconds"] for s in b]) for a, b in pairs]
        out.append(f"{arm} {', '.join(f'{value:.3f}' for value in ratios)}")
    return f"Ratios by round: {'; '.join(out)}.\n\n"


def scale_table(rows):
    """The scheduler's parts at several sizes of the step."""
    cells = []
    for r in rows:
        total = r["allocate"] + r["observe"] + r["log"]
        cells.append(
            [f"{r['prompts']:,} x {r['rollouts']}", f"{r['known']:,}"]
            + [f"{r[key] * 1e3:.1f} ms" for key in ("allocate", "observe", "log")]
            + [f"{total * 1e3:.1f} ms", f"{total / 60:.3%}"]
        )
    header = ("prompts x rollouts", "prompts known", "allocate", "observe", "log", "all", "of a step of 60 s")
    return table(header, cells)


def page(figures):
    """The section's tables, as Markdown."""
    text = ""
    if "side by side" in figures:
        part = figures["side by side"]
        m, load = part["machine"], part["load"]
        versions = f"Python {m['python']}, verl {m['verl']}, PyTorch {m['torch']}"
        text += f"\n{m['cores']} cores, {m['memory_gib']} GiB, {versions}; "
        text += f"load average {load[0]} before, {load[1]} after.\n\n"
        text += step_table(part) + round_lines(part)
    return text + scale_table(figures["scale"])


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--task", type=Path, default=ROOT / "data" / "arithmetic")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "step_cost")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=25, help="timed steps of each run")
    parser.add_argument("--lock", type=Path, help="a file; each run waits for the lock on it")
    arguments = parser.parse_args()
    figures = json.loads(FIGURES.read_text()) if FIGURES.exists() else {}
    if arguments.rounds:
        figures["side by side"] = side_by_side(
            arguments.task.resolve(), arguments.out.resolve(), arguments.rounds, arguments.steps, arguments.lock
        )
    else:
        with tempfile.TemporaryDirectory() as folder:
            sizes = ((48, 8, 480), (1024, 8, 1_000_000))
            figures["scale"] = [at_scale(compose, *size, steps=20, folder=folder) for size in sizes]
    FIGURES.write_text(json.dumps(figures, indent=1) + "\n")
    if "scale" in figures:
        before, rest = PAGE.read_text().split(BEGIN)
        PAGE.write_text(before + BEGIN + page(figures) + END + rest.split(END)[1])


if __name__ == "__main__":
    main()
