"""What does the scheduler add to a training step, on a CPU, on a GPU, and at the size of a real step?

    python examples/arithmetic/prepare.py --out data/arithmetic
    python scripts/step_cost.py run --task data/arithmetic [--turns 60] [--out runs/step_cost]
    python scripts/step_cost.py scale
    python scripts/speed/qwen_shape.py data/qwen_shape
    python scripts/step_cost.py gpu --task data/qwen_shape

`run` trains with 48 prompts x 8 rollouts a step. Three trainers take turns, step by step, in random order
(`cero.research.speed.turns`): verl's PPOTrainerSync with GRPO, without a line of this plugin; the plugin's
trainer with allocator=uniform, which is GRPO, too; and the plugin's trainer with allocator=cero. So all three
share the processes, the data and the machine's load. The learning rate is close to zero, so that all sample
from one policy. The seconds of a step are those between two lines of verl's file logger, with data loading
and logging. Its CPU seconds are those of all processes of the run.

`gpu` does the same on one GPU, with vLLM and FSDP2 as they run there and a model of 1.5 billion parameters.
`scale` measures the scheduler's own time on larger steps, by its timers. Each part writes its figures into
docs/results/speed/step_cost.json, and the tables of docs/results/speed.md.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import psutil
import torch
from scipy.stats import bootstrap
from speed.scheduler import PARTS, at_scale, compose

from cero.cli.arguments import above_zero, at_least_one
from cero.research.pages import write_section
from cero.research.speed.steps import cpu_seconds, lines
from cero.research.speed.turns import ARMS, arm_of

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "docs" / "results"
FIGURES, PAGE = RESULTS / "speed" / "step_cost.json", RESULTS / "speed.md"
BEGIN, END = (
    "<!-- a training step: written by scripts/step_cost.py -->\n",
    "<!-- end of a training step -->\n",
)
WARM_UP = 2  # turns at the start that don't count
RESPONSE = 512  # tokens of a response on a GPU
PHASES = ("gen", "old_log_prob", "update_actor", "update_weights")  # of a step, as in verl's timing_s/
PLAIN = "verl"
NAMES = {
    PLAIN: "verl's `PPOTrainerSync`, GRPO",
    "uniform": "this plugin's, `allocator=uniform`, GRPO",
    "cero": "this plugin's, `allocator=cero`",
}


def overrides(task, out, steps):
    """Return the overrides of verl's config for a run of `steps` steps on the CPU; list of str."""
    return [
        "+recipe=cero_cpu",
        "data.max_prompt_length=32",
        "data.max_response_length=8",
        "actor_rollout_ref.actor.ppo_mini_batch_size=48",
        f"reward.custom_reward_function.path={ROOT}/examples/arithmetic/reward.py",
        *common(task, out, steps),
    ]


def gpu_overrides(task, out, steps):
    """Return the overrides of verl's config for a run of `steps` steps on one GPU of 80 GB; list of str.

    They are those of scripts/lib/qwen2.5-math.sh, as far as one GPU allows.
    """
    # There is no wheel of flash-attention on PyPI. Without it, PyTorch's attention will do, since all rows
    # have nearly one length.
    without_flash = [
        "actor_rollout_ref.model.use_remove_padding=false",
        "+actor_rollout_ref.model.override_config.attn_implementation=sdpa",
    ]
    return [
        "+recipe=cero",
        "data.max_prompt_length=128",
        f"data.max_response_length={RESPONSE}",
        "data.dataloader_num_workers=0",
        "actor_rollout_ref.actor.ppo_mini_batch_size=24",
        f"reward.custom_reward_function.path={ROOT}/scripts/speed/qwen_shape.py",
        "trainer.n_gpus_per_node=1",
        *([] if find_spec("flash_attn") else without_flash),
        "actor_rollout_ref.model.enable_gradient_checkpointing=true",
        "actor_rollout_ref.actor.strategy=fsdp2",
        "actor_rollout_ref.actor.use_dynamic_bsz=true",
        "actor_rollout_ref.actor.ppo_max_token_len_per_gpu=16384",
        "actor_rollout_ref.actor.use_torch_compile=false",
        "actor_rollout_ref.actor.fsdp_config.use_torch_compile=false",
        "actor_rollout_ref.rollout.name=vllm",
        "actor_rollout_ref.rollout.gpu_memory_utilization=0.5",
        "actor_rollout_ref.rollout.tensor_model_parallel_size=1",
        # CUDA graphs without compilation decode as fast, and the run starts a minute earlier.
        """+actor_rollout_ref.rollout.engine_kwargs.vllm.compilation_config='{"mode":0,"cudagraph_mode":"FULL_DECODE_ONLY"}'""",
        # Fewer processes to start than verl's 8 of each.
        "actor_rollout_ref.rollout.agent.num_workers=2",
        "reward.num_workers=1",
        "transfer_queue.backend.SimpleStorage.num_data_storage_units=2",
        "+ray_kwargs.ray_init.include_dashboard=false",
        *common(task, out, steps),
    ]


def common(task, out, steps):
    """Return the overrides that runs on CPU and GPU share; list of str."""
    return [
        "allocator=cero",
        "trainer.v1.trainer_mode=turns",
        "~hydra.callbacks.cero",  # this callback refuses every trainer_mode but `cero`
        f"data.train_files={task}/train.parquet",
        f"data.val_files={task}/test.parquet",
        "data.train_batch_size=48",
        "data.seed=0",
        f"actor_rollout_ref.model.path={task}/model",
        "actor_rollout_ref.rollout.n=8",
        "actor_rollout_ref.actor.optim.lr=1e-9",
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


# ---- side by side --------------------------------------------------------------------------------


def train(task, out, turns, overrides=overrides, limit=float("inf"), further=()):
    """Run the training and return its figures: a dict of `machine`, `load` and `steps`.

    Each item of `steps` is one step that counts: its arm, seconds, CPU seconds and seconds in the scheduler.

    Parameters
    ----------
    task, out : Path, folders of the task and of the run
    turns : int, steps of each arm that count
    overrides : callable, (task, out, steps) -> list of str
    limit : float, seconds after which the run is ended, with the turns that it has by then
    further : overrides added at the end

    Raises SystemExit if the run failed or was ended before its first turn that counts.
    """
    out.mkdir(parents=True, exist_ok=True)
    fifo = out / "metrics.pipe"
    fifo.unlink(missing_ok=True)
    os.mkfifo(fifo)
    pipe = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    environment = os.environ | {
        "VERL_FILE_LOGGER_PATH": str(fifo),
        "VERL_USE_EXTERNAL_MODULES": "cero.research.speed.turns",
    }
    steps = len(ARMS) * (WARM_UP + turns)
    command = [sys.executable, "-m", "verl.trainer.main_ppo", *overrides(task, out, steps), *further]
    found, load, began = [], [round(os.getloadavg()[0], 1)], time.monotonic()
    # The raw figures of each step are written at once, so that a run that is cut off leaves them.
    with open(out / "train.log", "w") as log, open(out / "steps.jsonl", "w") as raw:
        process = subprocess.Popen(
            command,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
            env=environment,
            start_new_session=True,
        )
        try:
            then, spent_then = time.monotonic(), {}
            for now, line in lines(process, pipe):
                spent = cpu_seconds(process.pid)
                cpu = sum(spent.values()) - sum(spent_then.get(pid, 0.0) for pid in spent)
                found.append(figures_of(line) | {"seconds": now - then, "cpu": cpu})
                print(json.dumps(found[-1]), file=raw, flush=True)
                then, spent_then = now, spent
                if now - began > limit:
                    code, steps = 0, len(ARMS) * (WARM_UP + 1)  # then one turn that counts is enough
                    break
            else:
                code = process.wait()
        finally:
            os.close(pipe)
            fifo.unlink()
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
    found = found[: len(found) // len(ARMS) * len(ARMS)]
    if code or len(found) < steps:
        raise SystemExit(f"exit code {code} after {len(found)} steps; see {out / 'train.log'}")
    load.append(round(os.getloadavg()[0], 1))
    return {"machine": machine(), "load": load, "steps": found[len(ARMS) * WARM_UP :]}


def figures_of(line):
    """Return the figures, a dict, of a line (dict) of verl's file logger."""
    data, arm = line["data"], arm_of(line["step"])
    parts = {key.rpartition("/")[2]: value for key, value in data.items() if key.startswith("cero/time/")}
    # The scheduler has timers in this plugin's arms only, and verl's arm logs no figure of the plugin's.
    assert bool(parts) == (arm != PLAIN) == any(key.startswith("cero/") for key in data), line
    phases = {key: data[f"timing_s/{key}"] for key in PHASES}
    sizes = {
        "tokens": data["perf/total_num_tokens"],
        "response": data["response_length/mean"],
        "memory_gb": data["actor/perf/max_memory_allocated_gb"],
    }
    return {"step": line["step"], "arm": arm, "verl": data["timing_s/step"], **parts, **phases, **sizes}


def machine():
    """Return a dict of what matters of the machine; nothing in it names the machine."""
    gpu = {"gpu": torch.cuda.get_device_name(), "vllm": version("vllm")} if torch.cuda.is_available() else {}
    return (
        {
            "cores": os.cpu_count(),
            "memory_gib": round(psutil.virtual_memory().total / 2**30),
            "python": sys.version.split()[0],
        }
        | {name: version(name) for name in ("verl", "torch", "numpy", "scipy")}
        | gpu
    )


def of(part, arm, key):
    """Return the figure `key` of all steps of an arm: float array, shape (turns,)."""
    return np.array([step[key] for step in part["steps"] if step["arm"] == arm], np.float64)


def scheduler(part, arm):
    """Return the seconds in the scheduler of an arm's steps: float array, shape (turns,)."""
    return sum(of(part, arm, key) for key in PARTS)


def ratio(values, base):
    """Return the ratio of two means and its 95 % interval, for float arrays of shape (turns,).

    The interval is a percentile bootstrap with 9,999 draws of turns.
    """

    def statistic(values, base, axis=-1):
        return np.mean(values, axis=axis) / np.mean(base, axis=axis)

    result = bootstrap((values, base), statistic, paired=True, vectorized=True, method="percentile", rng=0)
    return float(statistic(values, base)), tuple(map(float, result.confidence_interval))


# ---- the page ------------------------------------------------------------------------------------


def table(header, rows):
    """Return a Markdown table."""
    out = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in out) + "\n\n"


def times(value, interval):
    """Return a ratio and its interval as text."""
    return f"{value:.3f} [{interval[0]:.3f}, {interval[1]:.3f}]"


def step_table(part):
    """Return the table of a run's steps, with one row for each arm."""
    rows = []
    for arm in ARMS:
        row = [NAMES[arm]]
        for key, unit in (("seconds", "s"), ("cpu", "s")):
            row.append(f"{np.mean(of(part, arm, key)):.2f} {unit}")
            row.append("1" if arm == PLAIN else times(*ratio(of(part, arm, key), of(part, PLAIN, key))))
        if arm == PLAIN:
            row += [""] * 3
        else:
            spent, beside = scheduler(part, arm), of(part, arm, "background")
            row.append(f"{np.median(spent) * 1e3:.1f} ms")
            row.append(f"{np.median(spent / of(part, arm, 'seconds')):.3%}")
            row.append(f"{np.median(beside) * 1e3:.1f} ms")
        rows.append([*row, of(part, arm, "seconds").size])
    measured = ("step", "times verl's", "CPU time", "times verl's")
    return table(("", *measured, "scheduler", "of the step", "beside it", "steps"), rows)


def gpu_table(part):
    """Return `step_table`, and a table of a step's phases."""
    rows = []
    for arm in ARMS:
        cells = [f"{np.mean(of(part, arm, key)):.1f} s" for key in PHASES]
        tokens, response = np.mean(of(part, arm, "tokens")), np.mean(of(part, arm, "response"))
        memory = np.max(of(part, arm, "memory_gb"))
        rows.append([NAMES[arm], *cells, f"{tokens / 1e3:.0f} k", f"{response:.0f}", f"{memory:.0f} GB"])
    header = ("", *(f"`{key}`" for key in PHASES), "tokens a step", "a response", "actor's peak")
    return step_table(part) + table(header, rows)


def scale_table(part):
    """Return a table of the scheduler's parts at several sizes of the step."""
    cells = []
    for r in part["rows"]:
        total = sum(r[key] for key in PARTS)
        cells.append(
            [f"{r['prompts']:,} x {r['rollouts']}", f"{r['known']:,}"]
            + [f"{r[key] * 1e3:.1f} ms" for key in PARTS]
            + [f"{total * 1e3:.1f} ms", f"{total / 60:.3%}", f"{r['background'] * 1e3:.1f} ms"]
        )
    header = ("prompts x rollouts", "prompts known", *PARTS, "all", "of a step of 60 s", "beside it")
    return table(header, cells)


def page(figures):
    """Return all tables of the section, as Markdown."""
    text = ""
    for key, make in (("run", step_table), ("gpu", gpu_table), ("scale", scale_table)):
        if key in figures:
            part = figures[key]
            m, load = part["machine"], part["load"]
            versions = f"Python {m['python']}, verl {m['verl']}, PyTorch {m['torch']}, NumPy {m['numpy']}"
            if "gpu" in m:
                versions += f", vLLM {m['vllm']}, one {m['gpu']}"
            measured = f"{m['cores']} cores, {m['memory_gib']} GiB, {versions}; "
            measured += f"load average {load[0]} before, {load[1]} after."
            text += f"\n{textwrap.fill(measured, 110)}\n\n"
            text += make(part)
    return text


def scale():
    """Return the figures of the scheduler by itself, at the sizes of `run` and of a real step: a dict."""
    sizes, load = ((48, 8, 480), (1024, 8, 1_000_000)), [round(os.getloadavg()[0], 1)]
    with tempfile.TemporaryDirectory() as folder:
        rows = [at_scale(compose, *size, steps=40, folder=folder) for size in sizes]
    return {"machine": machine(), "load": [*load, round(os.getloadavg()[0], 1)], "rows": rows}


def main():
    """Measure one part, and write its figures and the page."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("part", choices=("run", "gpu", "scale"))
    parser.add_argument("--task", type=Path, default=ROOT / "data" / "arithmetic")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "step_cost")
    parser.add_argument("--turns", type=at_least_one, default=60, help="steps of each trainer that count")
    parser.add_argument("further", nargs="*", help="run, gpu: further Hydra overrides")
    parser.add_argument(
        "--limit", type=above_zero, default=float("inf"), help="gpu: end after so many seconds"
    )
    arguments = parser.parse_intermixed_args()
    figures = json.loads(FIGURES.read_text()) if FIGURES.exists() else {}
    task, out = arguments.task.resolve(), arguments.out.resolve()
    if arguments.part != "scale" and not (task / "train.parquet").is_file():
        parser.error(f"--task {task}: there is no train.parquet; the top of this file says what makes it")
    if arguments.part == "run":
        figures["run"] = train(task, out, arguments.turns, further=arguments.further)
    elif arguments.part == "gpu":
        figures["gpu"] = train(task, out, arguments.turns, gpu_overrides, arguments.limit, arguments.further)
    else:
        figures["scale"] = scale()
    FIGURES.parent.mkdir(parents=True, exist_ok=True)
    FIGURES.write_text(json.dumps(figures) + "\n")
    write_section(PAGE, BEGIN, page(figures), END)


if __name__ == "__main__":
    main()
