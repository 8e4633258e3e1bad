"""What did a run do with its rollouts? A summary, a table and a picture from its allocation log."""

import numpy as np

from cero.analysis.figures import figure
from cero.analysis.reading import one_line

MAX_BANDS = 60  # rows of the heat map: prompts are gathered into at most this many bands


def summarise_run(run):
    """Return a run's figures, a JSON-ready dict: steps, rollouts, budget, accuracy, signal, seconds.

    A figure that the log does not tell is None.
    """
    _, accuracy = run.accuracy()
    signal = run.metric("cero/group/signal")
    window = max(1, run.steps.size // 5)
    left = run.metric("cero/budget/total")[-1]
    waited = [run.metric(f"cero/time/{part}") for part in ("allocate", "observe")]
    logged = np.nan_to_num(run.metric("cero/time/log"))  # of the step before, so the first has none
    return {
        "steps": int(run.steps[-1]),
        "rollouts": int(run.spent[-1]),
        "budget": int(left) if np.isfinite(left) else None,
        "prompts": run.prompt_count,
        "rollouts_min": int(min(r.min() for r in run.rollouts)),
        "rollouts_max": int(max(r.max() for r in run.rollouts)),
        "accuracy_before": float(accuracy[0]) if accuracy.size else None,
        "accuracy_after": float(accuracy[-1]) if accuracy.size else None,
        "signal_first": _known(np.mean, signal[:window]),
        "signal_last": _known(np.mean, signal[-window:]),
        "padded_rows": int(_known(np.sum, run.metric("cero/padded_rows")) or 0),
        "step_seconds": _known(np.median, run.metric("timing_s/step")),
        "scheduler_seconds": _known(np.median, sum(waited) + logged),
    }


def _known(figure_of, values):
    """Return `figure_of` (a function of an array) the finite ones of `values`; None if there is none."""
    values = values[np.isfinite(values)]
    return float(figure_of(values)) if values.size else None


def run_table(summary, title="Run"):
    """Return the summary as a rich table."""
    from rich.table import Table
    from rich.text import Text

    def share(value):
        return "-" if value is None else f"{100 * value:.1f} %"

    def seconds(value):
        return "-" if value is None else f"{value:.2f}"

    def milliseconds(value):
        return "-" if value is None else f"{1000 * value:.1f} ms"

    budget = summary["budget"]
    out = Table(title=Text(one_line(title)), title_justify="left", show_header=False)
    out.add_column(style="bold")
    out.add_column(justify="right")
    out.add_row("steps", str(summary["steps"]))
    out.add_row("rollouts spent", f"{summary['rollouts']:,}" + ("" if budget is None else f" of {budget:,}"))
    out.add_row("rollouts per prompt and step", f"{summary['rollouts_min']} to {summary['rollouts_max']}")
    out.add_row(
        "validation accuracy", f"{share(summary['accuracy_before'])} -> {share(summary['accuracy_after'])}"
    )
    out.add_row("groups with signal", f"{share(summary['signal_first'])} -> {share(summary['signal_last'])}")
    out.add_row("padded rows", str(summary["padded_rows"]))
    out.add_row("seconds a step (median)", seconds(summary["step_seconds"]))
    out.add_row("of these in the scheduler", milliseconds(summary["scheduler_seconds"]))
    return out


def plot_run(run, path, title=None):
    """Write the picture (PNG) to `path` and return it: where the rollouts went, and what they bought."""
    with figure(path, 2, 2, size=(11, 7.4), palette=160) as (fig, axes):
        _plot_grid(run, fig, axes[0, 0])
        _plot_spread(run, axes[0, 1])
        _plot_accuracy(run, axes[1, 0])
        _plot_groups(run, axes[1, 1])
        if title:
            fig.suptitle(one_line(title))
    return path


def _plot_grid(run, fig, axis):
    grid, success = run.prompt_epochs()
    order = np.argsort(np.nan_to_num(success, nan=-1.0), kind="stable")
    bands = np.array_split(order, min(MAX_BANDS, order.size))
    with np.errstate(invalid="ignore"):
        seen = np.array([(~np.isnan(grid[band])).sum(axis=0) for band in bands])
        image = np.array([np.nansum(grid[band], axis=0) for band in bands]) / np.where(seen > 0, seen, np.nan)
    shown = axis.imshow(image, aspect="auto", origin="lower", cmap="viridis", interpolation="nearest")
    fig.colorbar(shown, ax=axis, label="rollouts per prompt (mean of the band)")
    rates = [np.nanmean(success[band]) if np.isfinite(success[band]).any() else np.nan for band in bands]
    ticks = np.unique(np.linspace(0, len(bands) - 1, 7).astype(int))
    axis.set_yticks(ticks, [f"{rates[t]:.2f}" for t in ticks])
    epochs = np.unique(run.epochs)
    shown_epochs = np.unique(np.linspace(0, epochs.size - 1, min(epochs.size, 10)).astype(int))
    axis.set_xticks(shown_epochs, epochs[shown_epochs] + 1)
    axis.set(title="Where the rollouts went", xlabel="epoch", ylabel="prompts, by success rate over the run")


def _plot_spread(run, axis):
    spent = run.spent / 1000
    for low, high, label, alpha in ((0, 100, "min to max", 0.15), (10, 90, "10 % to 90 %", 0.3)):
        band = np.array([np.percentile(r, [low, high]) for r in run.rollouts])
        axis.fill_between(
            spent, band[:, 0], band[:, 1], alpha=alpha, color="tab:blue", label=label, linewidth=0
        )
    axis.plot(spent, [np.median(r) for r in run.rollouts], color="tab:blue", label="median")
    axis.plot(spent, [r.mean() for r in run.rollouts], color="black", linestyle=":", label="mean")
    axis.set(
        title="Rollouts per prompt", xlabel="rollouts spent (thousands)", ylabel="rollouts", ylim=(0, None)
    )
    axis.legend(fontsize=8)


def _plot_accuracy(run, axis):
    spent, accuracy = run.accuracy()
    axis.plot(spent / 1000, accuracy, marker="o", markersize=4, color="tab:green", label="validation")
    axis.plot(
        run.spent / 1000,
        run.metric("cero/score/prompt_mean"),
        color="tab:gray",
        linewidth=1,
        alpha=0.6,
        label="training prompts (sampled)",
    )
    axis.set(title="What they bought", xlabel="rollouts spent (thousands)", ylabel="accuracy", ylim=(0, 1))
    axis.legend(fontsize=8)


def _plot_groups(run, axis):
    kinds = (("signal", "tab:blue"), ("all_right", "tab:green"), ("all_wrong", "tab:red"))
    window = np.ones(max(1, run.steps.size // 15))
    smooth = {}
    for kind, _ in kinds:
        values = np.nan_to_num(run.metric(f"cero/group/{kind}"))
        smooth[kind] = np.convolve(values, window, "same") / np.convolve(np.ones_like(values), window, "same")
    axis.stackplot(
        run.spent / 1000,
        *smooth.values(),
        labels=["both outcomes (signal)", "all right", "all wrong"],
        colors=[colour for _, colour in kinds],
        alpha=0.7,
    )
    axis.set(title="Groups", xlabel="rollouts spent (thousands)", ylabel="share of groups", ylim=(0, 1))
    axis.margins(x=0)
    axis.legend(fontsize=8, loc="lower right")
