"""What did the runs on the GPU learn? Keeps their figures, and writes the table and the picture of them.

    python scripts/gpu/figures.py keep runs                       # the folder that collect.sh packed
    python scripts/gpu/figures.py page docs/results/pretrained.md

`keep` writes a JSON line for each run with a step into --out, in the order of their names: what its steps
did, and how many held-out questions of each family were right. `page` writes the table between two comments
of the page, and the picture beside the other pictures.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np

from cero.cli.main import execute
from cero.research.pages import check_section, write_section
from cero.research.study.study_report import markdown_table

sys.path[:0] = [str(Path(__file__).resolve().parent)]
import logs  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
OUT = ROOT / "docs/results/gpu/fewshot.jsonl"
IMAGE = ROOT / "docs/images/pretrained-gpu.png"
PARTS = ((1, 20), (21, 40))  # steps, first and last, over which the share of right rollouts is taken
SMOOTH = 5  # steps of the curve's moving mean
BEGIN, END = (
    "<!-- runs on a GPU: written by scripts/gpu/figures.py -->",
    "<!-- end of runs on a GPU -->",
)
OF_STEPS = {
    "right": "critic/score/mean",
    "rollouts": "cero/rollouts/trained",
    "tokens": "cero/tokens/sampled",
    "seconds": "timing_s/step",
    "kl": "actor/ppo_kl",
    "gen": "timing_s/gen",
    "update": "timing_s/update_actor",
    "weights": "timing_s/update_weights",
    "allocate": "cero/time/allocate",
    "observe": "cero/time/observe",
}


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
    return line


def keep(arguments):
    """Write a line for each run below the folders."""
    lines = []
    for folder, device in ((arguments.folder, "gpu"), (arguments.cpu, "cpu")):
        files = [] if folder is None else folder.glob("*/*/*/*/cero/*.jsonl")
        lines += [read_run(log, device) for log in sorted(files) if log.name != "allocations.jsonl"]
    lines = [line for line in lines if line["right"]]
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
    """Return lists of lines of the same arm and rate: dict of (arm, rate) -> list."""
    found = {}
    for line in sorted(lines, key=lambda line: (line["rate"], line["arm"], line["seed"])):
        found.setdefault((line["arm"], line["rate"]), []).append(line)
    return found


COLUMNS = (
    "learning rate", "arm", "seeds", "held out: after 20 steps", "after 40",
    "right while training: steps 1-20", "21-40", "seconds a step",
)  # fmt: skip


def table(lines):
    """Return a Markdown table of the runs, a row for each arm and rate: means and standard errors."""
    rows = []
    for (arm, rate), mine in by_arm(lines).items():
        after = [[x for line in mine if (x := held_out(line, step)) is not None] for step in (20, 40)]
        parts = [
            [float(np.mean(line["right"][a - 1 : b])) for line in mine if len(line["right"]) >= b]
            for a, b in PARTS
        ]
        counts = f"{len(mine)}" if len(after[1]) in (0, len(mine)) else f"{len(mine)}, {len(after[1])}"
        seconds = [line["seconds"] for line in mine if line["device"] == "gpu"]
        texts = [spread(values) for values in (*after, *parts)]
        rows.append([f"{rate:.0e}".replace("e-0", "e-"), f"`{arm}`", counts, *texts])
        rows[-1].append(f"{np.median(np.concatenate(seconds)):.1f}" if seconds else "")
    return markdown_table(COLUMNS, rows)


def draw(path, lines):
    """Draw the share of right rollouts over rollouts, held-out accuracy, and each family's after 20 steps."""
    from cero.analysis.figures import colours, figure

    groups = {key: mine for key, mine in by_arm(lines).items() if len(mine) > 1}
    colour_of = dict(zip(groups, colours(len(groups)), strict=True))
    panels = [["train", "families"], ["held", "families"]]
    with figure(path, size=(10, 8), mosaic=panels) as (fig, axes):
        for key, mine in groups.items():
            steps = max(n for n in (20, 40) if sum(len(line["right"]) >= n for line in mine) > 1)
            mine = [line for line in mine if len(line["right"]) >= steps]
            mean = np.mean([line["right"][:steps] for line in mine], axis=0)
            smooth = np.convolve(mean, np.ones(SMOOTH) / SMOOTH, "valid")
            spent = np.cumsum(mine[0]["rollouts"])[:steps]
            label = f"{key[0]}, {key[1]:.0e}".replace("e-0", "e-") + f" ({len(mine)} seeds)"
            axes["train"].plot(
                spent[SMOOTH // 2 :][: len(smooth)], 100 * smooth, color=colour_of[key], label=label
            )
            points = []  # of the mean: a run may lack the validation before training
            for step in range(0, steps + 1, 20):
                known = [x for line in mine if (x := held_out(line, step)) is not None]
                points.append((0 if step == 0 else spent[step - 1], 100 * np.mean(known)))
            for line in mine:
                own = [(at, held_out(line, 20 * i)) for i, (at, _) in enumerate(points)]
                own = [(at, 100 * y) for at, y in own if y is not None]
                axes["held"].plot(*zip(*own, strict=True), color=colour_of[key], alpha=0.35, lw=0.8)
            axes["held"].plot(*zip(*points, strict=True), ".-", color=colour_of[key])
        axes["train"].set(xlabel="rollouts", ylabel=f"% right while training, mean of {SMOOTH} steps")
        axes["held"].set(xlabel="rollouts", ylabel="% right, held-out questions; thin: each seed")
        begin = family_means(lines, "0")
        names = sorted(begin, key=begin.get)
        axis = axes["families"]
        axis.plot([100 * begin[name] for name in names], range(len(names)), "|", color="0.5")
        for key, mine in groups.items():
            after = family_means(mine, "20")
            axis.plot([100 * after[name] for name in names], range(len(names)), ".", color=colour_of[key])
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
    return {name: float(np.mean([one[name] for one in found])) for name in found[0]}


def page(arguments):
    """Write the table between the page's two comments, and the picture."""
    check_section(arguments.page, BEGIN, END)
    lines = [json.loads(line) for line in arguments.out.read_text().splitlines()]
    # Runs that ended early are kept, and not shown.
    lines = [line for line in lines if len(line["right"]) >= PARTS[0][1]]
    draw(arguments.image, lines)
    picture = f"![learning over rollouts](../images/{arguments.image.name})"
    write_section(arguments.page, BEGIN, f"\n\n{table(lines)}\n{picture}\n\n", END)


def main(argv=None):
    """Run one of the two commands."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("keep", help="write the runs' figures as JSON lines")
    command.add_argument("folder", type=Path)
    command.add_argument("--cpu", type=Path, help="a folder of runs that RECIPE=cero_cpu trained")
    command.set_defaults(run_command=keep)
    command = commands.add_parser("page", help="write the table and the picture")
    command.add_argument("page", type=Path, help="a Markdown file with the two comments")
    command.add_argument("--image", type=Path, default=IMAGE)
    command.set_defaults(run_command=page)
    for command in commands.choices.values():
        command.add_argument("--out", type=Path, default=OUT, help="file of JSON lines")
    execute(parser.parse_args(argv), "figures.py")


if __name__ == "__main__":
    main()
