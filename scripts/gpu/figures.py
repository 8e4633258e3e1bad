"""What did the runs on the GPU learn? Keeps their figures, and writes the table and the picture of them.

    python scripts/gpu/figures.py keep runs                       # the folder that collect.sh packed
    python scripts/gpu/figures.py page docs/results/pretrained.md

`keep` writes a JSON line for each run with a step into --out, in the order of their names: what its steps
did, and how many held-out questions of each family were right. What --out has of other runs stays. `page`
writes tables between two comments of the page, and a picture for each set of questions beside the other
pictures.
"""

import argparse
import json
import sys
from functools import partial
from pathlib import Path

import numpy as np

from cero.analysis.runlog import FILE_NAME, read_log
from cero.cli.main import execute
from cero.research.pages import check_section, write_section
from cero.research.study.study_report import markdown_table

sys.path[:0] = [str(Path(__file__).resolve().parent)]
import logs  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
OUT = ROOT / "docs/results/gpu/fewshot.jsonl"
IMAGES = ROOT / "docs/images"
ARITHMETIC = ("difference", "double", "product", "sum", "sum-three", "sum-two-digits", "times-ten")
PARTS = ((1, 20), (21, 40))  # steps, first and last, over which the share of right rollouts is taken
HISTORIES = ("never right before", "sometimes", "always")
SMOOTH = 5  # steps of the curve's moving mean
BEGIN, END = (
    "<!-- runs on a GPU: written by scripts/gpu/figures.py -->",
    "<!-- end of runs on a GPU -->",
)
OF_STEPS = {
    "right": "critic/score/mean",
    "rollouts": "cero/rollouts/sampled",
    "trained": "cero/rollouts/trained",
    "tokens": "cero/tokens/sampled",
    "seconds": "timing_s/step",
    "kl": "actor/ppo_kl",
    "gen": "timing_s/gen",
    "update": "timing_s/update_actor",
    "weights": "timing_s/update_weights",
    "allocate": "cero/time/allocate",
    "observe": "cero/time/observe",
}


def is_finite(questions):
    """Return whether the prompts of a set are met again and again: its name is their number."""
    return questions.isdigit()


def read_run(log, device):
    """Return a run's figures, JSON-ready; log : verl's, SET/ARM/SEED/RATE/cero/<experiment>.jsonl."""
    folder = log.parent.parent
    questions, arm, seed, rate = folder.parts[-4:]
    line = {"set": questions, "arm": arm, "seed": int(seed), "rate": float(rate)}
    line |= {"device": device, "held_out": {}}
    line |= {name: [] for name in OF_STEPS}
    for record in logs.read_records(log):
        data = record["data"]
        if "timing_s/step" in data:
            for name, key in OF_STEPS.items():
                line[name].append(float(f"{data[key]:.4g}"))
        if right := logs.held_out(data):
            line["held_out"][str(record["step"])] = {name: round(right[name], 4) for name in sorted(right)}
    if is_finite(questions):
        steps = read_log(log.with_name(FILE_NAME), partial(print, file=sys.stderr))
        line["history"] = by_history(record for record in steps if record["kind"] == "step")
    return line


def by_history(steps):
    """Return what prompts got, and were, that had been right never, sometimes or always: dict of lists.

    steps : records of allocations.jsonl
    returns : for each of HISTORIES [visits, rollouts, right rollouts], of prompts with two rollouts before
    """
    found, known = {name: [0, 0, 0] for name in HISTORIES}, {}
    for step in steps:
        columns = (step[name] for name in ("prompts", "rollouts", "successes", "trials"))
        for prompt, rollouts, right, tried in zip(*columns, strict=True):
            before, of = known.get(prompt, (0, 0))
            if of >= 2:
                name = HISTORIES[0 if before == 0 else 2 if before == of else 1]
                for place, count in enumerate((1, rollouts, int(right))):
                    found[name][place] += count
            known[prompt] = before + int(right), of + int(tried)
    return found


def name_of_run(line):
    """Return what a run is called: set, arm, seed and rate."""
    return line["set"], line["arm"], line["seed"], line["rate"]


def keep(arguments):
    """Write a line for each run below the folders; of other runs, --out keeps what it has."""
    lines = []
    for folder, device in ((arguments.folder, "gpu"), (arguments.cpu, "cpu")):
        files = [] if folder is None else folder.glob("*/*/*/*/cero/*.jsonl")
        lines += [read_run(log, device) for log in sorted(files) if log.name != "allocations.jsonl"]
    lines = [line for line in lines if line["right"]]
    if not lines:
        raise ValueError(f"{arguments.folder}: no run below it, SET/ARM/SEED/RATE, has logged a step")
    before = arguments.out.read_text().splitlines() if arguments.out.exists() else []
    found = {name_of_run(line): line for line in [*map(json.loads, before), *lines]}
    lines = [found[name] for name in sorted(found)]
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text("".join(json.dumps(line) + "\n" for line in lines))
    print(f"{len(lines)} runs, {sum(len(line['right']) for line in lines)} steps")


def spread(values):
    """Return mean and standard error of `values` (list of float) as text, in %; "" of none."""
    if not values:
        return ""
    text = f"{100 * np.mean(values):.1f}"
    return text if len(values) == 1 else f"{text} ± {100 * np.std(values, ddof=1) / len(values) ** 0.5:.1f}"


def held_out(line, step):
    """Return the share of right held-out questions after a step, families counted alike; None if unknown."""
    found = line["held_out"].get(str(step))
    return found and float(np.mean(list(found.values())))


def by_arm(lines):
    """Return lists of lines of the same questions, rate and arm: dict of (set, rate, arm) -> list."""
    found = {}
    # The set without a number, on which each prompt is met once, comes first.
    for line in sorted(lines, key=lambda x: (is_finite(x["set"]), x["set"], x["rate"], x["arm"], x["seed"])):
        found.setdefault((line["set"], line["rate"], line["arm"]), []).append(line)
    return found


def name_of(rate):
    """Return a learning rate as text, as on a command line: 3e-5."""
    digits, _, exponent = f"{rate:.6e}".partition("e")
    return f"{float(digits):g}e{int(exponent)}"


def right_while_training(line, first, last):
    """Return the share of right rollouts in steps `first` to `last`; None of a run that ended before.

    What a step says of it is of the rollouts that are trained on. Where some were left out by their rewards,
    that is no measure, and the answer is None, too.
    """
    selects = line.get("trained", line["rollouts"]) != line["rollouts"]
    return None if selects or len(line["right"]) < last else float(np.mean(line["right"][first - 1 : last]))


def known(values):
    """Return those of the values that are not None: list."""
    return [value for value in values if value is not None]


COLUMNS = (
    "prompts", "learning rate", "arm", "seeds", "rollouts in 20 steps", "held out: after 20 steps",
    "after 40", "right while training: steps 1-20", "21-40", "tokens a rollout", "seconds a step",
)  # fmt: skip


def table(lines):
    """Return a Markdown table of the runs, a row for each arm and rate: means and standard errors."""
    rows = []
    for (questions, rate, arm), mine in by_arm(lines).items():
        after = [known(held_out(line, step) for line in mine) for step in (20, 40)]
        parts = [known(right_while_training(line, *part) for line in mine) for part in PARTS]
        counts = f"{len(mine)}" if len(after[1]) in (0, len(mine)) else f"{len(mine)}, {len(after[1])}"
        first = PARTS[0][1]  # more steps of some would be compared with fewer of others
        tokens = np.mean([sum(line["tokens"][:first]) / sum(line["rollouts"][:first]) for line in mine])
        seconds = [line["seconds"] for line in mine if line["device"] == "gpu"]
        rollouts = np.mean([sum(line["rollouts"][:first]) for line in mine])
        rows.append([questions, name_of(rate), f"`{arm}`", counts, f"{rollouts:,.0f}"])
        rows[-1] += [spread(values) for values in (*after, *parts)]
        rows[-1] += [f"{tokens:.1f}", f"{np.median(np.concatenate(seconds)):.1f}" if seconds else ""]
    return markdown_table(COLUMNS, rows)


def table_of_leads(lines, leader="cero"):
    """Return a Markdown table of how far an arm is ahead of each other after 20 steps, at the same rate.

    Of all seeds, with the standard error of a difference of two means; and of each seed that both have. On a
    finite set nothing is said of training: an allocation that leaves out what is known to be right is right
    more seldom, and not because it has learned less.
    """
    groups, rows = by_arm(lines), []
    for (questions, rate, arm), others in groups.items():
        mine = groups.get((questions, rate, leader), [])
        if arm == leader or not mine:
            continue
        row = [questions, name_of(rate), f"`{arm}`", f"{len(mine)} and {len(others)}"]
        measures = [lambda line: held_out(line, 20), lambda line: right_while_training(line, *PARTS[0])]
        for measure in measures[:1] if is_finite(questions) else measures:
            own, theirs = by_seed(mine, measure), by_seed(others, measure)
            pairs = [100 * (own[seed] - theirs[seed]) for seed in own if seed in theirs]
            row.append(difference(list(own.values()), list(theirs.values())))
            row.append(", ".join(f"{points:+.1f}" for points in pairs))
        rows.append([*row, "", ""][:8])
    names = ("held out", "each pair", "while training", "each pair")
    return markdown_table(("prompts", "learning rate", f"`{leader}` ahead of", "seeds", *names), rows)


def by_seed(lines, measure):
    """Return what is known of each seed: dict of seed -> float."""
    return {line["seed"]: value for line in lines if (value := measure(line)) is not None}


def difference(ours, theirs):
    """Return the difference of two means as text, in points, with its standard error if both have one."""
    if not ours or not theirs:
        return ""
    text = f"{100 * (np.mean(ours) - np.mean(theirs)):+.1f}"
    if min(len(ours), len(theirs)) < 2:
        return text
    squares = sum(np.var(values, ddof=1) / len(values) for values in (ours, theirs))
    return f"{text} ± {100 * squares**0.5:.1f}"


def table_of_kinds(lines):
    """Return a Markdown table of held-out accuracy after 20 steps: arithmetic, and all other families."""
    rows = []
    for (questions, rate, arm), mine in by_arm(lines).items():
        right = family_means(mine, "20")
        kinds = [
            [value for name, value in right.items() if (name in ARITHMETIC) == arithmetic]
            for arithmetic in (True, False)
        ]
        rows.append([questions, name_of(rate), f"`{arm}`", f"{len(mine)}"])
        rows[-1] += [f"{100 * np.mean(values):.1f}" if values else "" for values in kinds]
    return markdown_table(("prompts", "learning rate", "arm", "seeds", "arithmetic", "all others"), rows)


def table_of_histories(lines):
    """Return a Markdown table of what prompts of a finite set got, by whether they had been right before."""
    rows = []
    for (questions, rate, arm), mine in by_arm(lines).items():
        sums = np.sum(
            [[line["history"][name] for name in HISTORIES] for line in mine if "history" in line], 0
        )
        if np.ndim(sums) == 2:
            rows.append([questions, name_of(rate), f"`{arm}`", f"{len(mine)}"])
            rows[-1] += [f"{rollouts / visits:.2f}" if visits else "" for visits, rollouts, _ in sums]
            rows[-1] += [f"{100 * right / rollouts:.0f}" if rollouts else "" for _, rollouts, right in sums]
    first, *others = HISTORIES
    names = (f"rollouts: {first}", *others, f"% right: {first}", *others)
    return markdown_table(("prompts", "learning rate", "arm", "seeds", *names), rows)


def draw(path, lines, begin):
    """Draw the share of right rollouts over rollouts, held-out accuracy, and each family's after 20 steps.

    lines : of one set of questions; an arm with one run is left out
    begin : dict, each family's accuracy before training
    """
    from cero.analysis.figures import colours, figure

    groups = {key[1:]: mine for key, mine in by_arm(lines).items() if len(mine) > 1}
    colour_of = dict(zip(groups, colours(len(groups)), strict=True))
    panels = [["train", "families"], ["held", "families"]]
    with figure(path, size=(10, 8), mosaic=panels) as (fig, axes):
        for (rate, arm), mine in groups.items():
            colour = colour_of[rate, arm]
            steps = max(
                (n for n in (20, 40) if len(known(held_out(line, n) for line in mine)) > 1), default=0
            )
            if not steps:
                continue  # it was not validated then
            mine = [line for line in mine if held_out(line, steps) is not None]
            mean = np.mean([line["right"][:steps] for line in mine], axis=0)
            smooth = np.convolve(mean, np.ones(SMOOTH) / SMOOTH, "valid")
            spent = np.cumsum(mine[0]["rollouts"])[:steps]
            label = f"{arm}, {name_of(rate)} ({len(mine)} seeds)"
            axes["train"].plot(spent[SMOOTH // 2 :][: len(smooth)], 100 * smooth, color=colour, label=label)
            at = [0, *spent[19::20]]
            start = float(np.mean(list(begin.values())))  # of all runs: it is the same model
            after = [[held_out(line, 20 * i) for i in range(1, len(at))] for line in mine]
            curves = np.array([[start, *accuracies] for accuracies in after])
            axes["held"].plot(at, 100 * curves.T, color=colour, alpha=0.35, lw=0.8)
            axes["held"].plot(at, 100 * curves.mean(axis=0), ".-", color=colour)
        axes["train"].set(xlabel="rollouts", ylabel=f"% right while training, mean of {SMOOTH} steps")
        axes["held"].set(xlabel="rollouts", ylabel="% right, held-out questions; thin: each seed")
        names = sorted(begin, key=begin.get)
        axis = axes["families"]
        axis.plot([100 * begin[name] for name in names], range(len(names)), "|", color="0.5")
        for key, mine in groups.items():
            after = family_means(mine, "20")
            dots = [100 * after.get(name, np.nan) for name in names]
            axis.plot(dots, range(len(names)), ".", color=colour_of[key])
        axis.set_yticks(range(len(names)), names, fontsize=7)
        axis.set(xlabel="% right, held-out questions after 20 steps; |: before")
        axis.set_ylim(-0.7, len(names) - 0.3)
        for axis in axes.values():
            axis.grid(alpha=0.3)
        fig.legend(
            *axes["train"].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False
        )


def family_means(lines, step):
    """Return each family's share of right held-out questions, the mean of runs: dict of name -> float."""
    found = [line["held_out"][step] for line in lines if step in line["held_out"]]
    return {name: float(np.mean([one[name] for one in found])) for name in (found[0] if found else ())}


def page(arguments):
    """Write the tables and pictures between the page's two comments, and draw the pictures."""
    check_section(arguments.page, BEGIN, END)
    lines = [json.loads(line) for line in arguments.out.read_text().splitlines()]
    # Runs that ended early are kept, and not shown.
    lines = [line for line in lines if len(line["right"]) >= PARTS[0][1]]
    parts = [table(lines), table_of_leads(lines), table_of_kinds(lines), table_of_histories(lines)]
    begin = family_means(lines, "0")
    if not begin:
        raise ValueError(
            f"{arguments.out}: no run was validated before training; see trainer.val_before_train"
        )
    for questions in dict.fromkeys(key[0] for key, mine in by_arm(lines).items() if len(mine) > 1):
        image = arguments.images / f"pretrained-{questions}.png"
        draw(image, [line for line in lines if line["set"] == questions], begin)
        parts.append(f"![learning over rollouts, {questions}](../images/{image.name})\n")
    write_section(arguments.page, BEGIN, "\n\n" + "\n".join(parts) + "\n", END)


def main(argv=None):
    """Run one of the two commands."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("keep", help="write the runs' figures as JSON lines")
    command.add_argument("folder", type=Path)
    command.add_argument("--cpu", type=Path, help="a folder of runs that RECIPE=cero_cpu trained")
    command.set_defaults(run_command=keep)
    command = commands.add_parser("page", help="write the tables and the pictures")
    command.add_argument("page", type=Path, help="a Markdown file with the two comments")
    command.add_argument("--images", type=Path, default=IMAGES, help="folder of pictures")
    command.set_defaults(run_command=page)
    for command in commands.choices.values():
        command.add_argument("--out", type=Path, default=OUT, help="file of JSON lines")
    execute(parser.parse_args(argv), "figures.py")


if __name__ == "__main__":
    main()
