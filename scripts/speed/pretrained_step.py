"""What does a training step of a pretrained model cost on a CPU, and what is the least it can cost?

    python scripts/speed/pretrained_step.py rates [--threads 1,2]
    python scripts/speed/pretrained_step.py steps [--variants packed,bypass] [--steps 5]
    python scripts/speed/pretrained_step.py page

`rates` measures how many floating-point operations a second the machine does: in the products of matrices
that the model of examples/fewshot consists of, and in the model itself, forward and backward, without verl.

`steps` trains on fresh few-shot questions, 64 prompts x 1 rollout a step, once for each of VARIANTS. The
first step doesn't count. Figures of each step are appended to steps.jsonl in the run's folder as they come. A
run that is finished is not repeated. All variants have the same prompts in the same order.

`page` writes the figures into docs/results/speed/pretrained_step.json, and the tables of
docs/results/speed.md; the other two end with it.
"""

import argparse
import json
import os
import shutil
import statistics
import sys
import time
from pathlib import Path

import torch

from cero.cli.arguments import at_least_one, counts, words_of

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

import step_cost  # noqa: E402

from cero.research.pages import write_section  # noqa: E402
from cero.research.speed.steps import FILE_NAME, PHASES, phases_of, watch  # noqa: E402
from cero.research.study.plan import make_run, read_contenders, read_tasks  # noqa: E402
from cero.research.study.runner import RunFailed, Runner  # noqa: E402

RESULTS = ROOT / "docs" / "results"
FIGURES, PAGE = RESULTS / "speed" / "pretrained_step.json", RESULTS / "speed.md"
BEGIN = "<!-- a pretrained model: written by scripts/speed/pretrained_step.py -->\n"
END = "<!-- end of a pretrained model -->\n"
TASK, CONTENDER, SEED = "fewshot-fresh", "even-n1", 0
AGREEMENT = "training/rollout_actor_probs_pearson_corr"
OLD = "algorithm.rollout_correction.bypass_mode={}"  # whether log-probs are the engine's, not computed anew
PACK = "actor_rollout_ref.model.use_remove_padding={}"
TOKENS = "actor_rollout_ref.actor.ppo_max_token_len_per_gpu={}"  # of a micro-batch


def settings(bypass, pack, tokens):
    """Return the overrides of a variant; list of str."""
    return [OLD.format(bypass), PACK.format(pack), TOKENS.format(tokens)]


# What is tried: (what it is called, threads of each process, overrides).
VARIANTS = {
    "padded": ("rows padded, micro-batches of 1,024 tokens", 2, settings("false", "false", 1024)),
    "packed": ("rows packed, without padding", 2, settings("false", "true", 1024)),
    "bypass": ("packed, `bypass_mode`", 2, settings("true", "true", 1024)),
    "bypass-512": ("the same, micro-batches of 512 tokens", 2, settings("true", "true", 512)),
    "bypass-2048": ("the same, micro-batches of 2,048 tokens", 2, settings("true", "true", 2048)),
    "one": ("packed, `bypass_mode`, one thread", 1, settings("true", "true", 1024)),
}
WARM_UP = 1  # steps at the start that don't count
ROWS, COLUMNS = 16, 48  # of the micro-batch with which the model's rates are measured
LEAST_SECONDS = 3.0  # for which a rate is measured


# ---- rates ---------------------------------------------------------------------------------------


def rate(work, flops):
    """Return the floating-point operations a second of `work`, a callable that does `flops` of them."""
    work()  # not counted
    began, times = time.perf_counter(), 0
    while time.perf_counter() - began < LEAST_SECONDS:
        work()
        times += 1
    return flops * times / (time.perf_counter() - began)


def model_rates(folder, threads):
    """Return the rates of a model on `threads` threads: a dict of name to operations a second.

    Operations are counted as is usual, 2 a parameter and token forward, and 4 backward. An embedding's
    look-up costs nothing, but here the head shares its weights, so all parameters count.
    """
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(threads)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    count, tokens = parameters(model), ROWS * COLUMNS
    config = model.config
    ids = torch.randint(config.vocab_size, (ROWS, COLUMNS))
    found = {}
    for name, width in (("hidden", config.intermediate_size), ("vocabulary", config.vocab_size)):
        left, right = torch.randn(tokens, config.hidden_size), torch.randn(config.hidden_size, width)
        found[f"product with {name}"] = rate(
            lambda left=left, right=right: left @ right, 2 * left.numel() * width
        )

    def forward():
        with torch.no_grad():
            model(ids, use_cache=False)

    def both():
        model(ids, labels=ids, use_cache=False).loss.backward()
        model.zero_grad()

    found["forward"] = rate(forward, 2 * count * tokens)
    found["forward and backward"] = rate(both, 6 * count * tokens)
    return found


def parameters(model):
    """Return the number of parameters, each tensor counted once."""
    return sum(each.numel() for each in {id(each): each for each in model.parameters()}.values())


def prepared():
    """Return (the planned run without its variant, its runner), with the task's folder made."""
    task = read_tasks(ROOT / "scripts" / "benchmark" / "tasks.yaml")[TASK]
    contender = read_contenders(ROOT / "scripts" / "benchmark" / "pretrained.yaml")[0][CONTENDER]
    runner = Runner(ROOT / "runs", ROOT / "runs" / "benchmark", root=ROOT)
    runner.prepare(task)
    return make_run(task, contender, SEED, "tune"), runner


def measure_rates(out, threads):
    """Write the rates on each number of threads into `out`; threads : list of int."""
    from transformers import AutoConfig, AutoModelForCausalLM

    run, runner = prepared()
    folder = runner.data(run.task) / "model"
    with torch.device("meta"):
        count = parameters(AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder)))
    found = {"parameters": count, "tokens": ROWS * COLUMNS, "load": round(os.getloadavg()[0], 1)}
    found["threads"] = {str(number): model_rates(folder, number) for number in threads}
    out.mkdir(parents=True, exist_ok=True)
    (out / "rates.json").write_text(json.dumps(found) + "\n")


# ---- steps ---------------------------------------------------------------------------------------


def figures_of(line):
    """Return the figures, a dict, of a line (dict) of verl's file logger."""
    data = line["data"]
    found = phases_of(line)
    found |= {"prompt": data["prompt_length/mean"], "response": data["response_length/mean"]}
    # How well the trainer's probabilities agree with the engine's: 1 if rows don't see each other in a pack.
    # With bypass_mode the trainer computes none beforehand.
    if AGREEMENT in data:
        found["agreement"] = data[AGREEMENT]
    return found


def measure_steps(out, variants, steps):
    """Train `steps` steps with each variant that is not finished in `out`."""
    run, runner = prepared()
    for name in variants:
        folder = out / name
        if (folder / "done.json").exists():
            continue
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        about, threads, further = VARIANTS[name]
        own = [
            f"trainer.total_training_steps={steps}",
            "trainer.val_before_train=false",
            "trainer.test_freq=-1",
        ]
        own += [
            "trainer.logger=[file]",
            f"trainer.default_local_dir={folder}",
            f"hydra.run.dir={folder}/hydra",
        ]
        words = [
            word for word in runner.words(run) if not word.startswith(("trainer.default_local", "hydra."))
        ]
        print(f"{time.strftime('%H:%M:%S')} {about}", flush=True)
        load = [os.getloadavg()[0]]
        try:
            watch(
                [*words, *further, *own], ROOT, folder, figures_of, steps, {"OMP_NUM_THREADS": str(threads)}
            )
        except RunFailed as error:
            print(f"{time.strftime('%H:%M:%S')} failed: {error}", file=sys.stderr, flush=True)
            continue
        load.append(os.getloadavg()[0])
        (folder / "done.json").write_text(json.dumps({"load": [round(each, 1) for each in load]}) + "\n")


# ---- the page ------------------------------------------------------------------------------------


def collect(out):
    """Return the figures of all that is finished in `out`, beside those that the page has: a dict."""
    found = json.loads(FIGURES.read_text()) if FIGURES.exists() else {}
    found["machine"] = step_cost.machine()
    if (out / "rates.json").exists():
        found["rates"] = json.loads((out / "rates.json").read_text())
    for name in VARIANTS:
        if (out / name / "done.json").exists():
            lines = [json.loads(line) for line in (out / name / FILE_NAME).read_text().splitlines()]
            found.setdefault("steps", {})[name] = {
                **json.loads((out / name / "done.json").read_text()),
                "lines": [{key: round(value, 3) for key, value in line.items()} for line in lines],
            }
    return found


def rates_table(rates):
    """Return the table of rates, in 10^9 operations a second."""
    names = list(next(iter(rates["threads"].values())))
    rows = [
        [
            f"{threads} thread{'s' if int(threads) > 1 else ''}",
            *(f"{found[name] / 1e9:.0f}" for name in names),
        ]
        for threads, found in rates["threads"].items()
    ]
    return step_cost.table(("10^9 operations a second", *names), rows)


def steps_table(steps, rates):
    """Return the table of steps: mean seconds of those that count, and what they are of 6ND."""
    best = max(found["forward and backward"] for found in rates["threads"].values())
    rows = []
    for name, part in steps.items():
        lines = part["lines"][WARM_UP:]
        mean = {key: statistics.mean(line[key] for line in lines) for key in lines[0]}
        floor = 6 * rates["parameters"] * mean["tokens"] / best
        phases = [f"{mean[key]:.1f} s" for key in PHASES]
        rows.append(
            [VARIANTS[name][0], f"{mean['seconds']:.1f} s", *phases, f"{mean['cpu']:.0f} s"]
            + [f"{mean['tokens']:,.0f}", f"{floor:.1f} s", f"{mean['update_actor'] / floor:.2f}", len(lines)]
        )
    header = ("64 rollouts", "a step", *(f"`{key}`" for key in PHASES), "CPU time", "tokens")
    return step_cost.table((*header, "6ND", "update / 6ND", "steps"), rows)


def write_page(out):
    """Write the figures of what is finished in `out`, and the page's tables."""
    figures = collect(out)
    FIGURES.write_text(json.dumps(figures, separators=(",", ":")) + "\n")
    m = figures["machine"]
    text = f"\n{m['cores']} cores, {m['memory_gib']} GiB, verl {m['verl']}, PyTorch {m['torch']}.\n\n"
    if "rates" in figures:
        text += rates_table(figures["rates"])
        if "steps" in figures:
            text += steps_table(figures["steps"], figures["rates"])
    write_section(PAGE, BEGIN, text, END)


def main():
    """Measure one part, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("part", choices=("rates", "steps", "page"))
    parser.add_argument("--threads", type=counts, default=[1, 2], help="rates: comma list (default: 1,2)")
    parser.add_argument(
        "--variants", type=words_of(VARIANTS), default=list(VARIANTS), help="steps: comma list (default: all)"
    )
    parser.add_argument(
        "--steps", type=at_least_one, default=5, help="of each variant, of which the first doesn't count"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "pretrained_step")
    arguments = parser.parse_args()
    if arguments.steps <= WARM_UP:
        parser.error(f"--steps={arguments.steps} must be more than {WARM_UP}, which don't count")
    out = arguments.out.resolve()
    if arguments.part == "rates":
        measure_rates(out, arguments.threads)
    elif arguments.part == "steps":
        measure_steps(out, arguments.variants, arguments.steps)
    write_page(out)


if __name__ == "__main__":
    main()
