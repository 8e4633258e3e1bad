"""What did a pretrained model learn? Exact success rates of the models that runs left, a table and a picture.

    python scripts/benchmark/pretrained.py collect --remove       # after runs of fewshot-fresh or fewshot-480
    python scripts/benchmark/pretrained.py page docs/results/pretrained.md

`collect` adds a line to --out for each finished run that has none. It holds the run's steps from its
allocation log, and how well the model at its end does on held-out questions. That is exact: the probability
of the answer and of the line's end, by one forward pass a question, so no sampling noise is in it. With
--remove the model's folder, 540 MB, is deleted afterwards. `page` writes the table between two comments of
the page, and the picture beside the other pictures.
"""

import argparse
import shutil
import sys
from pathlib import Path

import numpy as np

from cero.analysis.runlog import FILE_NAME, read_log
from cero.research.laboratory.results import append, read_records
from cero.research.study.archive import read_runs
from cero.research.study.study_report import markdown_table
from cero.research.study.tables import make_table

ROOT = Path(__file__).resolve().parents[2]
OUT = ROOT / "docs/results/study/pretrained.jsonl"
IMAGE = ROOT / "docs/images/pretrained.png"
TASKS = ("fewshot-fresh", "fewshot-480")
START = "start"  # stands for a contender: the model before training
REFERENCE = "grpo"
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
            line = {"task": task, "contender": START, "seed": 0, "exact": exact_rates(data / "model", asked)}
            append(arguments.out, line)
        models = sorted(folder.glob("global_step_*/actor/huggingface"))
        line = {"task": task, "contender": contender, "seed": seed, "overrides": about["overrides"]}
        line |= steps_of(read_log(log), family_of_prompts(data / "train.parquet"))
        if models:
            # Which tokens end a response is the prepared folder's knowledge.
            shutil.copy(data / "model/generation_config.json", models[-1])
            line["exact"] = exact_rates(models[-1], asked)
        append(arguments.out, line)
        print(f"{task}/{contender}/{seed}: {np.mean(list(line.get('exact', {0: np.nan}).values())):.4f}")
        if arguments.remove:
            for model in models:
                shutil.rmtree(model.parents[1])


def old_records(path):
    """Return the lines that there are: list of dict."""
    return read_records(path) if Path(path).exists() else []


# ---- the page ----------------------------------------------------------------------------------------


def summary(records, start, reference):
    """Return the cells of one contender's row, list of str.

    records : its lines; start : of the model before training; reference : dict of seed -> REFERENCE's line
    """
    kinds = split_families(records, start)
    figures = {
        "all": [np.mean(r["rate"]) for r in records],
        "last": [np.mean(r["rate"][-(-len(r["rate"]) * (PARTS - 1) // PARTS) :]) for r in records],
    } | {kind: [mean_of(r["exact"], names) for r in records] for kind, names in kinds.items()}
    pairs = [(r, reference[r["seed"]]) for r in records if r["seed"] in reference]
    more = {
        "all": [np.mean(r["rate"]) - np.mean(b["rate"]) for r, b in pairs],
        "same": [mean_of(r["exact"], kinds["same"]) - mean_of(b["exact"], kinds["same"]) for r, b in pairs],
    }
    return [
        *(f"{100 * np.mean(figures[kind]):.1f}" for kind in ("all", "last", "same", "other")),
        *(with_error(more[kind]) if records[0]["contender"] != REFERENCE else "-" for kind in more),
        f"{np.mean([sum(r['tokens']) for r in records]):,.0f}",
        f"{np.mean([np.median(r['seconds']) for r in records]):.0f}",
    ]


def split_families(records, start):
    """Return the names of families that are trained on ("same") and of those that never are ("other")."""
    trained = {name for record in records for name in record["families"]}
    asked = list(start["exact"])
    return {
        "same": [name for name in asked if name in trained],
        "other": [name for name in asked if name not in trained],
    }


def mean_of(exact, names):
    """Return the mean over families, each counted alike."""
    return float(np.mean([exact[name] for name in names]))


def with_error(differences):
    """Return paired differences of shares in points: their mean, and its standard error if there are two."""
    if not differences:
        return "-"
    points = 100 * np.array(differences)
    error = f" ± {points.std(ddof=1) / np.sqrt(points.size):.1f}" if points.size > 1 else ""
    return f"{points.mean():+.1f}{error}"


COLUMNS = (
    "contender", "seeds", "right while training", "in the last third", "held-out, trained families",
    "held-out, other families", "while training: points more", "held-out: points more", "tokens", "s a step",
)  # fmt: skip


def table(records):
    """Return a Markdown table of one task's lines."""
    start = next(r for r in records if r["contender"] == START)
    runs = by_contender(records)
    reference = {r["seed"]: r for r in runs.get(REFERENCE, [])}
    some = next(iter(runs.values()))
    kinds = split_families(some, start)
    shares = [f"{100 * mean_of(start['exact'], kinds[kind]):.1f}" for kind in ("same", "other")]
    rows = [["before training", "", "", "", *shares, "", "", "", ""]]
    rows += [
        [label, str(len({r["seed"] for r in mine})), *summary(mine, start, reference)]
        for label, mine in runs.items()
    ]
    return markdown_table(COLUMNS, rows)


def by_contender(records):
    """Return the lines of runs: dict of contender -> list by seed."""
    found = {}
    for record in sorted(records, key=lambda r: (r["contender"] != REFERENCE, r["contender"], r["seed"])):
        if record["contender"] != START:
            found.setdefault(record["contender"], []).append(record)
    return found


def draw(path, records):
    """Draw success while training over rollouts, tokens and seconds, and each family's gain."""
    from cero.analysis.figures import colours, figure

    runs = by_contender(records)
    start = next(r for r in records if r["contender"] == START)
    colour_of = dict(zip(runs, ["black", *colours(len(runs))], strict=False))
    panels = [["rollouts", "families"], ["tokens", "families"], ["seconds", "families"]]
    with figure(path, size=(10, 9), mosaic=panels, width_ratios=(1, 1)) as (fig, axes):
        for by in ("rollouts", "tokens", "seconds"):
            for label, mine in runs.items():
                axes[by].plot(*learning(mine, by), color=colour_of[label], label=label)
            unit = {"seconds": "minutes of training"}.get(by, by)
            axes[by].set(xlabel=unit, ylabel="% right while training")
            axes[by].grid(alpha=0.3)
        names = sorted(start["exact"], key=start["exact"].get)
        trained = split_families(next(iter(runs.values())), start)["same"]
        axis = axes["families"]
        axis.plot(
            [100 * start["exact"][n] for n in names], range(len(names)), "|", color="0.5", label="start"
        )
        for label, mine in runs.items():
            means = [100 * np.mean([r["exact"][name] for r in mine]) for name in names]
            axis.plot(means, range(len(names)), ".", color=colour_of[label])
        axis.set_yticks(range(len(names)), [n + " *" * (n not in trained) for n in names], fontsize=7)
        axis.set(xlabel="% right on held-out questions at the end; |: before training")
        axis.set_title("each family (*: never trained on)", fontsize=10)
        axis.grid(alpha=0.3)
        axis.set_ylim(-0.7, len(names) - 0.3)
        fig.legend(
            *axes["rollouts"].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False
        )


def learning(records, by, width=4):
    """Return (x, % right) of a contender: means over its seeds, and over `width` steps at a time."""
    count = min(len(r["rate"]) for r in records)
    rate = np.mean([r["rate"][:count] for r in records], axis=0)
    spent = np.mean([np.cumsum(r[by][:count]) for r in records], axis=0) / (60 if by == "seconds" else 1)
    window = np.ones(width) / width
    return np.convolve(spent, window, "valid"), 100 * np.convolve(rate, window, "valid")


def page(arguments):
    """Write the tables between the page's two comments, and the pictures."""
    text = arguments.page.read_text(encoding="utf-8")
    if not 0 <= text.find(BEGIN) < text.find(END):
        sys.exit(f"{arguments.page} has no place for the table: put {BEGIN} and {END} where it belongs")
    records = old_records(arguments.out)
    parts = []
    for task in TASKS:
        mine = [r for r in records if r["task"] == task]
        if mine:
            image = arguments.image.with_stem(f"{arguments.image.stem}-{task.rpartition('-')[2]}")
            draw(image, mine)
            parts.append(f"`{task}`\n\n{table(mine)}\n![success over rollouts](../images/{image.name})\n")
    before, rest = text.split(BEGIN)
    arguments.page.write_text(
        f"{before}{BEGIN}\n\n{chr(10).join(parts)}\n{END}{rest.split(END)[1]}", encoding="utf-8"
    )


def main(argv=None):
    """Run one of the two commands."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("collect", formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    command.add_argument("--work", type=Path, default="runs/benchmark", help="of `cero benchmark`")
    command.add_argument("--runs", type=Path, default="docs/results/study", help="--out of `cero benchmark`")
    command.add_argument("--remove", action="store_true", help="delete a model once it is measured")
    command.set_defaults(do=collect)
    command = commands.add_parser("page", formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    command.add_argument("page", type=Path, help="a Markdown file with the two comments")
    command.add_argument("--image", type=Path, default=IMAGE)
    command.set_defaults(do=page)
    for command in commands.choices.values():
        command.add_argument("--out", type=Path, default=OUT, help="file of JSON lines")
    arguments = parser.parse_args(argv)
    arguments.do(arguments)


if __name__ == "__main__":
    main()
