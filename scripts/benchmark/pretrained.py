"""What did a pretrained model learn? Exact success rates of the models that runs left, tables and pictures.

    python scripts/benchmark/pretrained.py collect --remove       # after runs of fewshot-fresh or fewshot-192
    python scripts/benchmark/pretrained.py page PAGE.md

`collect` adds a line to --out for each finished run that has none. It holds the run's steps from its
allocation log, and how well the models that it saved do on held-out questions. That is exact: the probability
of the answer and of the line's end, by one forward pass a question, so no sampling noise is in it. With
--remove the models, 540 MB each, are deleted afterwards. `page` writes the tables between the two comments
BEGIN and END of a page, and the pictures beside the other pictures. The page of results has the runs of
scripts/gpu/train.sh, which are larger.
"""

import argparse
import shutil
import sys
from pathlib import Path

import numpy as np

from cero.analysis.runlog import FILE_NAME, read_log
from cero.cli.main import execute
from cero.research.ceiling import MeanGain
from cero.research.laboratory.results import append, points, read_records
from cero.research.pages import check_section, write_section
from cero.research.study.archive import read_runs
from cero.research.study.study_report import markdown_table
from cero.research.study.tables import make_table

ROOT = Path(__file__).resolve().parents[2]
OUT = ROOT / "docs/results/study/pretrained.jsonl"
IMAGE = ROOT / "docs/images/pretrained.png"
TASKS = ("fewshot-fresh", "fewshot-192")
START = "start"  # stands for a contender: the model before training
REFERENCE = "grpo"
MODEL = Path("actor/huggingface")  # in the folder of a checkpoint
QUESTIONS = 12  # held-out ones of each family
SEED = 5  # of these questions: other ones than in the validation files
PARTS = 3  # of a run, in each of which successes are counted by family
BEGIN, END = (
    "<!-- a pretrained model learns: written by scripts/benchmark/pretrained.py -->",
    "<!-- end of a pretrained model learns -->",
)


# ---- measuring ---------------------------------------------------------------------------------------


def questions():
    """Return held-out questions of all families whose answer is one string: dict of name -> list of pairs."""
    sys.path[:0] = [str(ROOT / "examples/fewshot")]
    from families import FAMILIES
    from prepare import draw_prompts

    rng = np.random.default_rng(SEED)
    return {f.name: draw_prompts(f, rng, QUESTIONS, held_out=True) for f in FAMILIES if not f.working}


def exact_rates(folder, asked):
    """Return each family's mean probability of a right answer: dict of name -> float.

    folder : of a model; asked : of `questions`
    """
    from rates import Model

    model = Model(folder)
    model.torch.set_num_threads(1)
    rates = model.exact([pair for pairs in asked.values() for pair in pairs])
    means = np.reshape(rates, (len(asked), QUESTIONS)).mean(axis=1)
    return {name: round(float(mean), 5) for name, mean in zip(asked, means, strict=True)}


def family_of_prompts(path):
    """Return the family of each prompt of a parquet file: dict of id as logs have it -> name."""
    import pyarrow.parquet as pq

    from cero.verl.identity import row_prompt_id

    return {
        f"{row_prompt_id(row['data_source'], row['prompt'], row['reward_model']['ground_truth']):016x}": row[
            "extra_info"
        ]["family"]
        for row in pq.read_table(path).to_pylist()
    }


def steps_of(records, families):
    """Return what a run's steps did, a JSON-ready dict.

    rollouts, tokens, seconds : of each step
    rate : of each step, the mean over its prompts of the share of rollouts that were right. Where no prompt
    is met twice, it says without bias how well the model does on all prompts
    families : dict of name -> [successes, rollouts] for each of PARTS parts of the run
    """
    rows = [row for row in make_table(records) if row["step"]]
    steps = [record for record in records if record["kind"] == "step"]
    found = {"rollouts": [], "tokens": [], "seconds": [], "rate": [], "families": {}}
    for number, (row, step) in enumerate(zip(rows, steps, strict=True)):
        right, trials = np.array(step["successes"], float), np.array(step["trials"])
        sampled = trials > 0
        found["rollouts"].append(int(row["rollouts"]))
        found["tokens"].append(int(row["tokens"]))
        found["seconds"].append(round(row["seconds"], 1))
        found["rate"].append(round(float((right[sampled] / trials[sampled]).mean()), 5))
        part = number * PARTS // len(steps)
        for prompt, successes, tried in zip(step["prompts"], right, trials, strict=True):
            counts = found["families"].setdefault(families[prompt], [[0, 0] for _ in range(PARTS)])
            counts[part][0] += int(successes)
            counts[part][1] += int(tried)
    return found


def collect(arguments):
    """Add a line for each finished run without one, and one for the model before training."""
    known = {(r["task"], r["contender"], r["seed"]) for r in old_records(arguments.out)}
    asked = None
    for _, _, about in read_runs(arguments.runs):
        key = task, contender, seed = about["task"], about["contender"], about["seed"]
        folder, data = arguments.work / "runs" / "/".join(map(str, key)), arguments.work / "data" / task
        log = folder / "cero" / FILE_NAME
        if task not in TASKS or key in known or not log.is_file():
            continue
        asked = asked or questions()
        if (task, START, 0) not in known:
            known.add((task, START, 0))
            line = {"task": task, "contender": START, "seed": 0}
            append(arguments.out, line | {"exact": {"0": exact_rates(data / "model", asked)}})
        line = {"task": task, "contender": contender, "seed": seed, "overrides": about["overrides"]}
        line |= steps_of(read_log(log), family_of_prompts(data / "train.parquet")) | {"exact": {}}
        models = {int(f.name.rpartition("_")[2]): f / MODEL for f in folder.glob("global_step_*")}
        for step, model in sorted(models.items()):
            # Which tokens end a response is the prepared folder's knowledge.
            shutil.copy(data / "model/generation_config.json", model)
            line["exact"][str(step)] = exact_rates(model, asked)
        append(arguments.out, line)
        print(f"{task}/{contender}/{seed}: measured after steps {', '.join(line['exact'])}", flush=True)
        if arguments.remove:
            for model in models.values():
                shutil.rmtree(model)


def old_records(path):
    """Return the lines that there are: list of dict."""
    return read_records(path) if Path(path).exists() else []


# ---- the page ----------------------------------------------------------------------------------------


def curve(record, start, names):
    """Return (steps, accuracy): of the model before training and of those that a run saved, exact.

    The accuracy is the mean over the families `names`, each counted alike.
    """
    exact = {"0": start["exact"]["0"]} | record["exact"]
    steps = sorted(map(int, exact))
    return steps, [float(np.mean([exact[str(step)][name] for name in names])) for step in steps]


def split_families(records, start):
    """Return the names of families that are trained on, and of those that never are: two lists."""
    trained = {name for record in records for name in record["families"]}
    asked = list(start["exact"]["0"])
    return [n for n in asked if n in trained], [n for n in asked if n not in trained]


def figures(record, start, same, other):
    """Return a run's figures: dict of name -> float.

    right : share of right rollouts while training, the mean over all steps; late : over the last third
    end, area : accuracy on held-out questions of the families that are trained on, at the end, and its mean
    over the run (trapezoids); other : at the end, of the families that never are
    """
    steps, accuracy = curve(record, start, same)
    rate = record["rate"]
    return {
        "right": np.mean(rate),
        "late": np.mean(rate[-(-len(rate) * (PARTS - 1) // PARTS) :]),
        "end": accuracy[-1],
        "area": np.trapezoid(accuracy, steps) / steps[-1],
        "other": curve(record, start, other)[1][-1],
    }


COLUMNS = (
    "contender", "seeds", "right while training", "in the last third", "held-out: end", "held-out: area",
    "other families: end", "end: points more", "area: points more", "tokens", "s a step",
)  # fmt: skip


def table(records):
    """Return a Markdown table of one task's lines; what is more is paired with REFERENCE by seed."""
    start = next(r for r in records if r["contender"] == START)
    runs = by_contender(records)
    same, other = split_families(next(iter(runs.values())), start)
    of_runs = {
        label: {r["seed"]: figures(r, start, same, other) for r in mine} for label, mine in runs.items()
    }
    before = [f"{100 * np.mean([start['exact']['0'][n] for n in names]):.1f}" for names in (same, other)]
    rows = [["before training", "", "", "", before[0], "", before[1], "", "", "", ""]]
    for label, mine in of_runs.items():
        reference = of_runs.get(REFERENCE, {})
        shared = [(mine[seed], reference[seed]) for seed in mine if seed in reference]
        more = [
            points(MeanGain.of(np.array([a[name] - b[name] for a, b in shared]))) for name in ("end", "area")
        ]
        rows.append(
            [
                label,
                str(len(mine)),
                *(
                    f"{100 * np.mean([f[name] for f in mine.values()]):.1f}"
                    for name in ("right", "late", "end", "area", "other")
                ),
                *(more if label != REFERENCE else ["-", "-"]),
                f"{np.mean([sum(r['tokens']) for r in runs[label]]):,.0f}",
                f"{np.mean([np.median(r['seconds']) for r in runs[label]]):.0f}",
            ]
        )
    return markdown_table(COLUMNS, rows)


def by_contender(records):
    """Return the lines of runs: dict of contender -> list by seed."""
    found = {}
    for record in sorted(records, key=lambda r: (r["contender"] != REFERENCE, r["contender"], r["seed"])):
        if record["contender"] != START:
            found.setdefault(record["contender"], []).append(record)
    return found


def draw(path, records):
    """Draw held-out accuracy over rollouts, tokens and seconds, and that of each family at the end."""
    from cero.analysis.figures import colours, figure

    runs = by_contender(records)
    start = next(r for r in records if r["contender"] == START)
    same, _ = split_families(next(iter(runs.values())), start)
    colour_of = dict(zip(runs, ["black", *colours(len(runs))], strict=False))
    panels = [["rollouts", "families"], ["tokens", "families"], ["seconds", "families"]]
    with figure(path, size=(10, 9), mosaic=panels, width_ratios=(1, 1)) as (fig, axes):
        for by in ("rollouts", "tokens", "seconds"):
            for label, mine in runs.items():
                axes[by].plot(*learning(mine, start, same, by), ".-", color=colour_of[label], label=label)
            unit = {"seconds": "minutes of training"}.get(by, by)
            axes[by].set(xlabel=unit, ylabel="% right, held-out questions")
            axes[by].grid(alpha=0.3)
        before = start["exact"]["0"]
        names = sorted(before, key=before.get)
        axis = axes["families"]
        axis.plot([100 * before[name] for name in names], range(len(names)), "|", color="0.5")
        for label, mine in runs.items():
            ends = [r["exact"][max(r["exact"], key=int)] for r in mine]
            means = [100 * np.mean([end[name] for end in ends]) for name in names]
            axis.plot(means, range(len(names)), ".", color=colour_of[label])
        axis.set_yticks(range(len(names)), [n + " *" * (n not in same) for n in names], fontsize=7)
        axis.set(xlabel="% right, held-out questions, at the end; |: before training")
        axis.set_title("each family (*: never trained on)", fontsize=10)
        axis.grid(alpha=0.3)
        axis.set_ylim(-0.7, len(names) - 0.3)
        fig.legend(
            *axes["rollouts"].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False
        )


def learning(records, start, names, by):
    """Return (x, % right) of a contender at the steps that saved a model: means over its seeds."""
    curves = [curve(record, start, names) for record in records]
    spent = [np.concatenate([[0], np.cumsum(r[by])])[c[0]] for r, c in zip(records, curves, strict=True)]
    unit = 60 if by == "seconds" else 1
    return np.mean(spent, axis=0) / unit, 100 * np.mean([c[1] for c in curves], axis=0)


def page(arguments):
    """Write the tables between the page's two comments, and the pictures."""
    check_section(arguments.page, BEGIN, END)
    records = old_records(arguments.out)
    parts = []
    for task in TASKS:
        mine = [r for r in records if r["task"] == task]
        if mine:
            image = arguments.image.with_stem(f"{arguments.image.stem}-{task.rpartition('-')[2]}")
            draw(image, mine)
            parts.append(f"`{task}`\n\n{table(mine)}\n![success over rollouts](../images/{image.name})\n")
    write_section(arguments.page, BEGIN, "\n\n" + "\n".join(parts) + "\n", END)


def main(argv=None):
    """Run one of the two commands."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("collect", formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    command.add_argument("--work", type=Path, default="runs/benchmark", help="of `cero benchmark`")
    command.add_argument("--runs", type=Path, default="docs/results/study", help="--out of `cero benchmark`")
    command.add_argument("--remove", action="store_true", help="delete a model once it is measured")
    command.set_defaults(run_command=collect)
    command = commands.add_parser("page", formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    command.add_argument("page", type=Path, help="a Markdown file with the two comments")
    command.add_argument("--image", type=Path, default=IMAGE)
    command.set_defaults(run_command=page)
    for command in commands.choices.values():
        command.add_argument("--out", type=Path, default=OUT, help="file of JSON lines")
    execute(parser.parse_args(argv), "pretrained.py")


if __name__ == "__main__":
    main()
