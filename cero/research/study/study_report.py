"""How does a study read? As Markdown, as JSON, and as a picture for each task."""

import json
import math
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cero.analysis.figures import colours, figure
from cero.analysis.reading import one_line
from cero.research.study.gains import band, curves_by_task, duels, run_results, summarise_contenders
from cero.research.study.plan import EVEN, REFERENCE, SHIPPED

AXES = {
    "rollouts": (1e3, "rollouts sampled (thousands)"),
    "tokens": (1e3, "tokens generated (thousands)"),
    "seconds": (60, "minutes of training (validation apart)"),
}
PANELS = [["rollouts", "rollouts", "gains"], ["tokens", "seconds", "gains"]]
# A backslash goes on with the same line.
METHOD = """\
Every run has the same budget of sampled rollouts; a curve is read up to it. Validations are sampled, so \
what is read
off one place of a curve (its end; where it reaches a target) is read off the mean of that place and the one \
an interval
before, for all alike. *Area*: mean accuracy over the budget. *Gain*: mean difference to `{reference}` at \
the same seed.
*Ratio*: rollouts to reach what `{reference}` ends at (same seed), over those that `{reference}` itself \
needs; below 1 is
better. Runs that never got there count with the whole budget: with any of them the ratio is a lower bound \
(≥). *IQM*:
mean of the middle half of the seeds. Intervals: percentile bootstrap over seeds, 95 %; with few seeds they \
are too
narrow. *Share of the ceiling*: the gain in area over `{even}`, over what an oracle gains that knows every \
prompt's
success probability (from the laboratory; ± standard error); a dash where that ceiling is unknown or can't \
be told from
zero. *Train accuracy*: on a sample of train questions at the end, where it was measured. Seconds depend on \
the machine
and on what else ran on it. [The study](../study.md) has the rest.
"""
TOGETHER = """\
## All tasks and seeds together

`{champion}` against each, a pair for each task and seed that both ran; seeds to tune are among them.

"""


@dataclass(frozen=True)
class Section:
    """One heading of the report, with its picture and its table.

    name : of the picture, which is study-<name>.png
    draw : `plot_task` or `plot_ablations`; contenders : what `draw` shows
    summaries : of the table's rows
    after : Markdown below the table
    """

    name: str
    heading: str
    draw: Callable
    contenders: dict
    summaries: list
    after: str = ""

    def markdown(self, picture):
        """Return the section's text; `picture` is the address of its picture."""
        table = markdown_table(SUMMARY_COLUMNS, map(summary_row, self.summaries))
        return f"## {self.heading}\n\n![accuracy]({picture})\n\n{table}{self.after}"


def write_study(curves, folder, champion=SHIPPED, images=None, ceilings=None):
    """Write report.md and results.json into `folder`, the pictures into `images`; return the paths written.

    champion : label of the contender that is compared with each other one
    images : folder; None: `folder`
    ceilings : of `gains.read_ceilings`; None: shares of the ceiling stay unknown
    """
    folder = Path(folder)
    images = folder if images is None else Path(images)
    folder.mkdir(parents=True, exist_ok=True)
    colour_of = _colour_of(curves)
    text = ["# Does it train better?\n", METHOD.format(reference=REFERENCE, even=EVEN)]
    together = duels(curves, champion) if len(curves_by_task(curves)) > 1 else []
    if together:
        text.append(TOGETHER.format(champion=champion) + _duel_table(together))
    pictures = []
    for section in _sections(curves, champion, ceilings):
        picture = images / f"study-{section.name}.png"
        section.draw(section.contenders, picture, section.heading, colour_of)
        text.append(section.markdown(Path(os.path.relpath(picture, folder)).as_posix()))
        pictures.append(picture)
    report, results = folder / "report.md", folder / "results.json"
    report.write_text("\n".join(text), encoding="utf-8")
    lines = (json.dumps(result, allow_nan=False) for result in run_results(curves))
    results.write_text("[\n" + ",\n".join(lines) + "\n]\n", encoding="utf-8")
    return [report, results, *pictures]


def _sections(curves, champion, ceilings):
    """Yield a `Section` for each task and split, and one for its ablations if there are any."""
    summaries = summarise_contenders(curves, ceilings=ceilings)
    for (task, split), contenders in curves_by_task(curves).items():
        name, heading = f"{task}-{split}", f"{task}, seeds to {split}"
        mine = [s for s in summaries if (s.task, s.split) == (task, split)]
        rivals = {c: of for c, of in contenders.items() if not of[0].group.startswith("ablation")}
        if rivals:
            met = duels([curve for runs in contenders.values() for curve in runs], champion)
            after = f"\n`{champion}` against each:\n\n{_duel_table(met)}" if met else ""
            rows = [s for s in mine if s.contender in rivals]
            yield Section(name, heading, plot_task, rivals, rows, after)
        ablations = _ablations(contenders)
        if ablations:
            shown = {label for panel in ablations.values() for label in panel}
            rows = [s for s in mine if s.contender in shown]
            yield Section(f"{name}-ablations", f"{heading}: ablations", plot_ablations, ablations, rows)


def _ablations(contenders):
    """Return the contenders of each ablation, after the two to compare with: dict of dicts of lists."""
    names = dict.fromkeys(
        mine[0].group for mine in contenders.values() if mine[0].group.startswith("ablation:")
    )
    compared = {label: contenders[label] for label in (REFERENCE, SHIPPED) if label in contenders}
    return {
        name.partition(":")[2]: compared
        | {label: mine for label, mine in contenders.items() if mine[0].group == name}
        for name in names
    }


# ---- tables --------------------------------------------------------------------------------------

SUMMARY_COLUMNS = (
    "contender", "seeds", "final accuracy", "IQM", "gain", "area", "gain", "share of the ceiling", "ratio",
    "reached", "train accuracy", "rollouts", "tokens trained", "s a step",
)  # fmt: skip
DUEL_COLUMNS = (
    "against",
    "seeds",
    "final accuracy: points more",
    "area: points more",
    "rollouts to its end, its own 1",
)


def summary_row(summary):
    """Return the cells of one contender, list of str, as SUMMARY_COLUMNS."""
    s = summary
    bound = "" if s.reached == s.with_ratio else "≥ "
    return [
        s.contender,
        str(s.seeds),
        _percent(s.final),
        _percent(s.final, iqm=True),
        _percent(s.final_gain, sign="+"),
        _percent(s.area),
        _percent(s.area_gain, sign="+"),
        str(s.share),
        "-" if math.isnan(s.ratio.mean) else f"{bound}{s.ratio.mean:.2f}{_between(s.ratio, 1, '.2f')}",
        f"{s.reached} of {s.with_ratio}" if s.with_ratio else "-",
        _percent(s.train),
        f"{s.rollouts.mean:,.0f}",
        "-" if math.isnan(s.tokens_trained.mean) else f"{s.tokens_trained.mean:,.0f}",
        f"{s.step_seconds.mean:.2f}",
    ]


def duel_row(opponent, summary):
    """Return the cells of one opponent, list of str, as DUEL_COLUMNS.

    summary : the champion's, with this opponent as the reference
    """
    _, _, _, _, gain, _, area, _, ratio, *_ = summary_row(summary)
    return [opponent, str(summary.paired), gain, area, ratio]


def _duel_table(met):
    return markdown_table(DUEL_COLUMNS, (duel_row(*each) for each in met))


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
    """Return a Markdown table of lists of str."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def study_table(summaries, title):
    """Return a rich table of summaries."""
    from rich.table import Table
    from rich.text import Text

    out = Table(title=Text(one_line(title)), title_justify="left")
    for name in SUMMARY_COLUMNS:
        out.add_column(name, justify="left" if name == "contender" else "right", no_wrap=True)
    for summary in summaries:
        out.add_row(*map(Text, map(one_line, summary_row(summary))))
    return out


# ---- pictures ------------------------------------------------------------------------------------


def plot_task(contenders, path, title, colour_of):
    """Draw the main contenders' curves over three axes, and everyone's gain in area.

    contenders : dict of label -> curves; colour_of : dict of label -> colour, of the main ones
    """
    with figure(path, size=(11, 8), mosaic=PANELS, width_ratios=(1, 1, 1.05)) as (fig, axes):
        for by, (_, label) in AXES.items():
            _draw_curves(axes[by], contenders, by, colour_of)
            axes[by].set(xlabel=label, ylabel="held-out accuracy")
        _draw_gains(axes["gains"], contenders, colour_of)
        handles = axes["rollouts"].get_legend_handles_labels()
        fig.legend(*handles, loc="outside lower center", ncols=5, fontsize=9, frameon=False)
        fig.suptitle(title)


def _colour_of(curves):
    """Return the colour of each main contender, the same in all pictures: dict of label -> colour.

    The reference is black. Peers are too many for colours: they stay grey.
    """
    runs = Counter(c.contender for c in curves if c.group != "peer" and not c.group.startswith("ablation:"))
    runs.pop(REFERENCE, None)
    main = [label for label, _ in runs.most_common()]  # the most seen get the strongest colours
    return {REFERENCE: "black"} | dict(zip(main, colours(len(main)), strict=True))


def _draw_curves(axis, contenders, by, colour_of, names=None):
    """Draw mean accuracy over what was spent; intervals of two only, or they would hide each other."""
    unit, _ = AXES[by]
    peers = [label for label in contenders if label not in colour_of]
    for label, mine in contenders.items():
        x, mean, low, high = band(mine, by)
        if label in peers:
            name = "peers (grey on the right)" if label == peers[0] else None
            axis.plot(x / unit, mean, color="0.78", linewidth=0.8, label=name, zorder=1)
            continue
        name = (names or {}).get(label, label)
        axis.plot(x / unit, mean, color=colour_of[label], label=name, linewidth=1.5)
        if label in (REFERENCE, SHIPPED):
            axis.fill_between(x / unit, low, high, color=colour_of[label], alpha=0.15, linewidth=0)
    axis.grid(alpha=0.3)


def _draw_gains(axis, contenders, colour_of):
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
    axis.set_ylim(-0.8, len(summaries) - 0.2)
    axis.set(title=f"Area: points more than {REFERENCE}", xlabel="paired by seed, 95 % intervals")
    axis.grid(alpha=0.3, axis="x")


def plot_ablations(ablations, path, title, colour_of):
    """Draw accuracy over rollouts, a panel for each ablation.

    ablations : dict of name -> label -> curves; colour_of : dict of label -> colour, of those that are in
    each panel
    """
    columns = min(3, len(ablations))
    rows = math.ceil(len(ablations) / columns)
    size = (max(3.2 * columns, 5), 2.3 * rows + 0.6)
    with figure(path, rows, columns, size=size, sharex=True, sharey=True) as (fig, axes):
        panels = list(np.ravel(axes))
        for axis, (name, contenders) in zip(panels, ablations.items(), strict=False):
            own = [label for label in contenders if label not in colour_of]
            taken = {colour_of[label] for label in contenders if label in colour_of}
            free = [colour for colour in colours(len(own) + len(taken)) if colour not in taken]
            # The panel's title has the option: its labels need the value only.
            short = {label: label.removeprefix(f"{name}-") for label in own}
            names = {label: value for label, value in short.items() if value not in contenders}
            shown = colour_of | dict(zip(own, free, strict=False))
            _draw_curves(axis, contenders, "rollouts", shown, names)
            axis.set_title(name, fontsize=10)
            axis.legend(fontsize=7, loc="lower right", labelspacing=0.3)
        for axis in panels[len(ablations) :]:
            axis.remove()
        fig.supxlabel(AXES["rollouts"][1], fontsize=10)
        fig.supylabel("held-out accuracy", fontsize=10)
        fig.suptitle(title)
