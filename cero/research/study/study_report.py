"""What is there to see? The study as Markdown, JSON and a picture of each task."""

import json
import math
from collections import Counter
from pathlib import Path

import numpy as np

from cero.analysis.figures import colours, figure
from cero.research.study.gains import band, curves_by_task, duels, run_results, summarise_contenders
from cero.research.study.plan import REFERENCE, SHIPPED

AXES = (
    ("rollouts", 1e3, "rollouts sampled (thousands)"),
    ("tokens", 1e3, "tokens generated (thousands)"),
    ("seconds", 60, "minutes of training (validation apart)"),
)
METHOD = """\
Every run has the same budget of sampled rollouts; a curve is read up to it. Validations are sampled, so what is read
off one place of a curve (its end; where it reaches a target) is read off the mean of that place and the one an interval
before, for all alike. *Area*: mean accuracy over the budget. *Gain*: mean difference to `{baseline}` at the same seed.
*Ratio*: rollouts to reach what `{baseline}` ends at (same seed), over those that `{baseline}` itself needs; below 1 is
better. Runs that never got there count with the whole budget: with any of them the ratio is a lower bound (≥). *IQM*:
mean of the middle half of the seeds. Intervals: percentile bootstrap over seeds, 95 %; with few seeds they are too
narrow. Seconds depend on the machine and on what else ran on it. [README.md](README.md) has the rest.
"""
TOGETHER = """\
## All tasks and seeds together

`{champion}` against each, a pair for each task and seed that both ran; seeds to tune are among them.

"""


def write_study(curves, folder, champion=SHIPPED):
    """Write report.md, results.json and the pictures into `folder`; returns the paths written.

    champion : label of the contender that is compared with each other one
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    written = [folder / "results.json"]
    written[0].write_text(json.dumps(run_results(curves), indent=1, allow_nan=False) + "\n", encoding="utf-8")
    summaries, by_cell, colour_of = summarise_contenders(curves), curves_by_task(curves), _colour_of(curves)
    text = ["# Does it train better?\n", METHOD.format(baseline=REFERENCE)]

    def section(name, heading, draw, contenders, rows, after=""):
        if not contenders:
            return
        path = folder / f"{name}.png"
        draw(contenders, path, heading, colour_of)
        written.append(path)
        text.append(
            f"## {heading}\n\n![accuracy]({path.name})\n\n{markdown_table(SUMMARY_COLUMNS, map(summary_row, rows))}{after}"
        )

    together = duels(curves, champion) if len(by_cell) > 1 else []
    if together:
        text.append(
            TOGETHER.format(champion=champion)
            + markdown_table(DUEL_COLUMNS, (duel_row(*each) for each in together))
        )
    for (task, split), contenders in by_cell.items():
        ablations = _ablations(contenders)
        mine = [s for s in summaries if (s.task, s.split) == (task, split)]
        rivals = {c: of for c, of in contenders.items() if not of[0].group.startswith("ablation")}
        duel = duels([curve for runs in contenders.values() for curve in runs], champion)
        after = (
            f"\n`{champion}` against each:\n\n{markdown_table(DUEL_COLUMNS, (duel_row(*each) for each in duel))}"
            if duel
            else ""
        )
        name, heading = f"{task}-{split}", f"{task}, seeds to {split}"
        section(name, heading, plot_task, rivals, [s for s in mine if s.contender in rivals], after)
        shown = {label for panel in ablations.values() for label in panel}
        rows = [s for s in mine if s.contender in shown]
        section(f"{name}-ablations", f"{heading}: ablations", plot_ablations, ablations, rows)
    path = folder / "report.md"
    path.write_text("\n".join(text), encoding="utf-8")
    return [path, *written]


def _ablations(contenders):
    """By ablation: its contenders, after the two that they are compared with. dict of dicts of lists; {} if none."""
    names = dict.fromkeys(
        mine[0].group for mine in contenders.values() if mine[0].group.startswith("ablation:")
    )
    reference = {label: contenders[label] for label in (REFERENCE, SHIPPED) if label in contenders}
    return {
        name.partition(":")[2]: reference
        | {label: mine for label, mine in contenders.items() if mine[0].group == name}
        for name in names
    }


# ---- tables --------------------------------------------------------------------------------------

SUMMARY_COLUMNS = (
    "contender", "seeds", "final accuracy", "IQM", "gain", "area", "gain", "ratio", "reached", "rollouts",
    "tokens trained", "s a step",
)  # fmt: skip


def summary_row(summary):
    """The cells of one contender, list of str, as SUMMARY_COLUMNS."""
    s = summary
    bound = "" if s.reached == s.paired else "≥ "
    return [
        s.contender,
        str(s.seeds),
        _percent(s.final),
        _percent(s.final, iqm=True),
        _percent(s.final_gain, sign="+"),
        _percent(s.area),
        _percent(s.area_gain, sign="+"),
        "-" if math.isnan(s.ratio.mean) else f"{bound}{s.ratio.mean:.2f}{_between(s.ratio, 1, '.2f')}",
        f"{s.reached} of {s.paired}" if s.paired else "-",
        f"{s.rollouts.mean:,.0f}",
        "-" if math.isnan(s.tokens_trained.mean) else f"{s.tokens_trained.mean:,.0f}",
        f"{s.step_seconds.mean:.2f}",
    ]


DUEL_COLUMNS = (
    "against",
    "seeds",
    "final accuracy: points more",
    "area: points more",
    "rollouts to its end, its own 1",
)


def duel_row(opponent, summary):
    """The cells of one opponent, list of str, as DUEL_COLUMNS. `summary`: the champion's, with it as the baseline."""
    _, _, _, _, gain, _, area, ratio, *_ = summary_row(summary)
    return [opponent, str(summary.paired), gain, area, ratio]


def _between(estimate, factor, form):
    if math.isnan(estimate.low):
        return ""
    return f" [{factor * estimate.low:{form}}, {factor * estimate.high:{form}}]"


def _percent(estimate, sign="", iqm=False):
    value = estimate.iqm if iqm else estimate.mean
    if math.isnan(value):
        return "-"
    return f"{100 * value:{sign}.1f}{'' if iqm else _between(estimate, 100, sign + '.1f')}"


def markdown_table(header, rows):
    """A Markdown table of lists of str."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def study_table(summaries, title):
    """A rich table of summaries."""
    from rich.table import Table

    out = Table(title=title, title_justify="left")
    for name in SUMMARY_COLUMNS:
        out.add_column(name, justify="left" if name == "contender" else "right", no_wrap=True)
    for summary in summaries:
        out.add_row(*summary_row(summary))
    return out


# ---- pictures ------------------------------------------------------------------------------------


def plot_task(contenders, path, title, colour_of):
    """The main contenders' curves over three axes, and everyone's gain in area.

    contenders : label -> curves; colour_of : label -> colour, of the main ones
    """
    with figure(path, 2, 2, size=(13, 9)) as (fig, axes):
        for axis, (by, unit, label) in zip(axes.flat, AXES, strict=False):
            _curves(axis, contenders, by, unit, colour_of)
            axis.set(xlabel=label, ylabel="held-out accuracy")
        _gains(axes[1, 1], contenders, colour_of)
        fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=8, fontsize=8)
        fig.suptitle(title)


def _colour_of(curves):
    """Main contenders in colour, the same in all pictures, the baseline black; peers, too many, stay grey."""
    runs = Counter(c.contender for c in curves if c.group != "peer" and not c.group.startswith("ablation:"))
    runs.pop(REFERENCE, None)
    main = [label for label, _ in runs.most_common()]  # the most seen get the strongest colours
    return {REFERENCE: "black"} | dict(zip(main, colours(len(main)), strict=True))


def _curves(axis, contenders, by, unit, colour_of):
    peers = [label for label in contenders if label not in colour_of]
    for label, mine in contenders.items():
        x, mean, low, high = band(mine, by)
        if label in peers:
            name = "peers (panel 4)" if label == peers[0] else None
            axis.plot(x / unit, mean, color="0.75", linewidth=0.8, label=name, zorder=1)
            continue
        axis.plot(x / unit, mean, color=colour_of[label], label=label, linewidth=1.5)
        axis.fill_between(x / unit, low, high, color=colour_of[label], alpha=0.12, linewidth=0)


def _gains(axis, contenders, colour_of):
    curves = [curve for mine in contenders.values() for curve in mine]
    summaries = [
        s
        for s in summarise_contenders(curves)
        if s.contender != REFERENCE and not math.isnan(s.area_gain.mean)
    ]
    summaries.sort(key=lambda s: s.area_gain.mean)
    for place, s in enumerate(summaries):
        colour = colour_of.get(s.contender, "0.5")
        axis.plot([100 * s.area_gain.low, 100 * s.area_gain.high], [place, place], color=colour, linewidth=2)
        axis.plot(100 * s.area_gain.mean, place, "o", color=colour, markersize=5)
    axis.axvline(0, color="black", linewidth=0.8)
    axis.set_yticks(range(len(summaries)), [s.contender for s in summaries])
    axis.set(xlabel=f"area: points more than {REFERENCE} (paired by seed, 95 %)")


def plot_ablations(ablations, path, title, colour_of):
    """Accuracy over rollouts, a panel for each ablation.

    ablations : name -> label -> curves; colour_of : label -> colour, of those that are in each panel
    """
    columns = min(3, len(ablations))
    rows = math.ceil(len(ablations) / columns)
    with figure(path, rows, columns, size=(4.6 * columns, 3.6 * rows)) as (fig, axes):
        panels = list(np.ravel(axes))
        for axis, (name, contenders) in zip(panels, ablations.items(), strict=False):
            own = [label for label in contenders if label not in colour_of]
            taken = {colour_of[label] for label in contenders if label in colour_of}
            free = [colour for colour in colours(len(own) + len(taken)) if colour not in taken]
            _curves(axis, contenders, "rollouts", 1e3, colour_of | dict(zip(own, free, strict=False)))
            axis.set(title=name, xlabel=AXES[0][2], ylabel="held-out accuracy")
            axis.legend(fontsize=7)
        for axis in panels[len(ablations) :]:
            axis.remove()
        fig.suptitle(title)
