"""How do many simulated curves read? As tables for the terminal and as a picture."""

import numpy as np

from cero.research.simulation.experiments import curves_by_setting, summarise_methods, t_interval

COLUMNS = 3  # panels beside each other
LINES = 8  # methods that a panel of lines can show; more are shown as dots


def spread(figure, sign=""):
    """Return (mean, low, high) as "mean ±half"; an interval that is nan is left out."""
    mean, low, high = figure
    half = "" if np.isnan(high - low) else f" ±{(high - low) / 2:.4f}"
    return f"{mean:{sign}.4f}{half}"


def reached(row):
    """Return the rollouts to the target and their ratio to the first method's, in words.

    Where not all seeds got there, return how many did.
    """
    if row["reached"] < 1:
        return f"by {round(row['reached'] * row['seeds'])} of {row['seeds']} seeds"
    ratio = row["ratio"][0]
    return f"{row['reach'][0] / 1000:.0f}k" + ("" if np.isnan(ratio) else f" ({ratio:.2f}x)")


def summary_table(summary, title, target=None):
    """Return the summary of one setting as a rich table."""
    from rich.table import Table

    out = Table(title=title, title_justify="left")
    goal = "its final accuracy" if target is None else f"{target:g}"
    for name in (
        "method",
        "area under curve",
        "gain over the first",
        "share of the ceiling",
        "final",
        f"rollouts to {goal}",
        "signal",
    ):
        left = name == "method"
        out.add_column(name, justify="left" if left else "right", overflow="fold" if left else "ellipsis")
    for place, (label, row) in enumerate(summary.items()):
        out.add_row(
            label,
            spread(row["auc"]),
            spread(row["gain"], "+") if place else "",
            str(row["share"]),
            f"{row['final'][0]:.4f}",
            reached(row),
            f"{row['signal']:.0%}",
        )
    return out


def settings_table(summaries, title):
    """Return many settings as one rich table.

    It has the area of the first method, and the gain and the rollouts' ratio of the others.

    summaries : dict of (preset, budget) -> summary
    """
    from rich.table import Table

    labels = list(next(iter(summaries.values())))
    names = [f"{preset}, {budget}" for preset, budget in summaries]
    lines = []
    for summary in summaries.values():
        gains = [f"{spread(summary[label]['gain'], '+')}\n{reached(summary[label])}" for label in labels[1:]]
        lines.append([spread(summary[labels[0]]["auc"]), *gains])
    corner, heads, sides = "preset, rollouts a prompt", labels, names
    if len(labels) > len(names):  # a table is better long than wide
        corner, heads, sides, lines = (
            "method",
            names,
            labels,
            [list(column) for column in zip(*lines, strict=True)],
        )
    out = Table(title=title, title_justify="left", show_lines=True)
    out.add_column(corner, overflow="fold")
    for head in heads:
        out.add_column(head, justify="right", overflow="fold")
    for side, line in zip(sides, lines, strict=True):
        out.add_row(side, *line)
    return out


def plot_curves(curves, path, title):
    """Write the picture (PNG) to `path` and return `path`.

    Of one setting it shows accuracy, gain and signal over rollouts; of many, a panel of gains for each. Lines
    are means over seeds, shades their 95 % intervals; gains are paired by seed with the first method's. Of
    more than LINES methods only the gains in area are shown, as dots.
    """
    from cero.analysis.figures import figure

    of_cells = curves_by_setting(curves)
    if len({curve.label for curve in curves}) > LINES:
        return _dots(of_cells, path, title)
    panels = 3 if len(of_cells) == 1 else len(of_cells)
    columns = min(COLUMNS, panels)
    rows = -(-panels // columns)
    with figure(path, rows, columns, size=(4.0 * columns, 3.0 * rows + 0.7)) as (fig, axes):
        axes = np.atleast_1d(axes).ravel()
        for axis, (cell, mine) in zip(axes, of_cells.items(), strict=False):
            if len(of_cells) == 1:
                _lines(axes[0], mine, "accuracy", "Mean success probability", intervals=False)
                _lines(axes[1], mine, "gain", f"The same, minus that of {mine[0].label}")
                _lines(axes[2], mine, "signal", "Share of groups with both rewards")
            else:
                row = summarise_methods(mine)[mine[0].label]
                start = np.mean([curve.accuracy[0] for curve in mine])
                _lines(axis, mine, "gain", f"{cell[0]}, {cell[1]} a prompt")
                axis.set_ylabel(f"gain ({mine[0].label}: {start:.2f} to {row['final'][0]:.2f})", fontsize=9)
        for axis in axes[panels:]:
            axis.axis("off")
        handles, labels = axes[0].get_legend_handles_labels()
        columns = max(1, min(len(labels), 5, 150 // (max(map(len, labels)) + 6)))
        fig.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False)
        fig.suptitle(title)
    return path


def _dots(of_cells, path, title):
    from cero.analysis.figures import figure

    labels = list(dict.fromkeys(curve.label for mine in of_cells.values() for curve in mine))
    columns = min(4, len(of_cells))
    rows = -(-len(of_cells) // columns)
    with figure(path, rows, columns, size=(2.2 + 3.2 * columns, rows * (1.2 + 0.24 * len(labels)))) as (
        fig,
        axes,
    ):
        axes = np.atleast_1d(axes).ravel()
        for place, (axis, (cell, mine)) in enumerate(zip(axes, of_cells.items(), strict=False)):
            summary = summarise_methods(mine)
            for y, label in enumerate(labels[1:]):
                mean, low, high = summary[label]["gain"]
                color = "tab:green" if low > 0 else "tab:red" if high < 0 else "tab:gray"
                axis.errorbar(mean, y, xerr=[[mean - low], [high - mean]], fmt="o", color=color, markersize=4)
            axis.axvline(0, color="black", linewidth=0.8)
            axis.set_ylim(len(labels) - 1.5, -0.5)
            axis.set_yticks(range(len(labels) - 1), labels[1:] if place % columns == 0 else [], fontsize=8)
            axis.set_title(f"{cell[0]}, {cell[1]} a prompt", fontsize=10)
            axis.set_xlabel(f"gain in area over {labels[0]}", fontsize=8)
            axis.locator_params(axis="x", nbins=5)
            axis.tick_params(axis="x", labelsize=8)
            axis.grid(alpha=0.3)
        for axis in axes[len(of_cells) :]:
            axis.axis("off")
        fig.suptitle(title)
    return path


def _lines(axis, curves, what, title, intervals=True):
    baseline = {curve.seed: curve for curve in curves if curve.label == curves[0].label}
    for label in dict.fromkeys(curve.label for curve in curves):
        mine = [curve for curve in curves if curve.label == label]
        x = np.mean([curve.rollouts for curve in mine], axis=0) / 1000
        if what == "signal":
            x, values = x[1:], np.array([curve.signal for curve in mine])
        else:
            values = np.array([curve.accuracy for curve in mine])
            if what == "gain":
                # At the same number of rollouts, whatever an epoch costs.
                values = values - [
                    np.interp(curve.rollouts, baseline[curve.seed].rollouts, baseline[curve.seed].accuracy)
                    for curve in mine
                ]
        (line,) = axis.plot(x, values.mean(axis=0), label=label, linewidth=1.6)
        if intervals and len(mine) > 1:
            _, low, high = np.array([t_interval(column) for column in values.T]).T
            axis.fill_between(x, low, high, color=line.get_color(), alpha=0.15, linewidth=0)
    axis.set_title(title, fontsize=11)
    axis.set_xlabel("rollouts spent (thousands)")
    axis.grid(alpha=0.3)
