"""Why is the plain dual iteration rough, and what does each change to it do? An ablation on fixed utilities.

Rows: the textbook's iteration, the same with each change added, the iteration with all changes ("mended"),
and that with each change taken away. Two modes: "exact" gives every epoch its budget, as verl's steps do;
"own" lets the price decide what an epoch spends, under the run's ledger alone, so that the iteration has to
hold the budget by itself. The page on regret in docs reads the tables.
"""

from dataclasses import asdict, dataclass

import numpy as np

from cero.core.utility import UTILITIES
from cero.research.theory import regret
from cero.research.theory.offline import optimum

MODES = ("exact", "own")
TEXTBOOK = {
    "warm_start": False,
    "step_rule": "plain",
    "primal": "bang_bang",
    "anchor": "equal",
    "averaging": "none",
}
MENDED = {
    "warm_start": True,
    "step_rule": "scaled",
    "primal": "proximal",
    "anchor": "last",
    "averaging": "none",
}
ROWS = {
    "textbook": TEXTBOOK,
    "textbook, steps / 5": TEXTBOOK | {"prompt_step": 0.2, "budget_step": 0.2},
    "+ warm start": TEXTBOOK | {"warm_start": True},
    "+ scaled steps": TEXTBOOK | {"step_rule": "scaled"},
    "+ proximal": TEXTBOOK | {"primal": "proximal"},
    "+ proximal, anchor last": TEXTBOOK | {"primal": "proximal", "anchor": "last"},
    "+ mean of responses": TEXTBOOK | {"averaging": "responses"},
    "+ mean of duals": TEXTBOOK | {"averaging": "duals"},
    "mended": MENDED,
    "- warm start": MENDED | {"warm_start": False},
    "- scaled steps": MENDED | {"step_rule": "plain"},
    "- proximal": MENDED | {"primal": "bang_bang"},
    "- anchor last (default)": MENDED | {"anchor": "equal"},
    "with mean of responses": MENDED | {"averaging": "responses"},
    "with mean of duals": MENDED | {"averaging": "duals"},
    "damped: steps 4, resp. 1": MENDED | {"prompt_step": 4.0, "response": 1.0},
}
SECTIONS = ("+ mean of duals", "- anchor last (default)")  # the table's rules come after these
TRACED = ("textbook", "textbook, steps / 5", "mended", "- anchor last (default)", "damped: steps 4, resp. 1")


@dataclass(frozen=True)
class AblationRecord(regret.RegretRecord):
    """Holds one run and how rough it was; swing, late_swing and jump in rollouts per prompt and epoch.

    row, mode : which line of the ablation
    swing : largest |demand - nbar| of an epoch, demand taken before it is made to cost its budget
    late_swing : the same over the second half of the epochs that took place, after the start
    jump : mean |x_ik - x_i,k-1|, by how much a prompt's rollouts change from one visit to the next
    dry : epochs that could not take place because the ledger could no longer pay n_min to every prompt
    """

    row: str
    mode: str
    swing: float
    late_swing: float
    jump: float
    dry: int


def run_ablation(row, mode, utility, epochs, seed, prompts=512):
    """Run `row` of ROWS in `mode` of MODES.

    Returns (`AblationRecord`, demand of each epoch in rollouts per prompt, float array).
    """
    allocator, values = regret.prepare("cero", utility, epochs, seed, prompts, **ROWS[row])
    demand, rollouts = regret.spend(allocator, epochs, prompts, exact=mode == "exact")
    off = np.abs(demand - allocator.rollouts_per_prompt)
    record = AblationRecord(
        **asdict(regret.measure(allocator, values, utility, epochs, seed, held=demand.size)),
        row=row,
        mode=mode,
        swing=float(off.max()),
        late_swing=float(off[off.size // 2 :].max()),
        jump=float(np.abs(np.diff(rollouts, axis=0)).mean()) if demand.size > 1 else 0.0,
        dry=epochs - demand.size,
    )
    return record, demand


def cliff(utility_name, seed=0, prompts=512, rollouts_per_prompt=8, n_min=2, n_max=32):
    """Return how bang-bang demand depends on the price at the offline optimum, with optimal prompt duals.

    By the KKT conditions every prompt strictly between its bounds has mu_i = lam.

    Returns
    -------
    (tied, above, below): the share of those prompts, and the demand in rollouts per prompt at a price just
    above and just below the optimal one. They are the same for every horizon K, with which the scale grows.
    """
    values = regret.draw_values(prompts, seed)
    best, _ = optimum(
        values,
        prompts * rollouts_per_prompt,
        n_min,
        n_max,
        UTILITIES[utility_name],
        float(rollouts_per_prompt),
    )
    high = (best >= n_max - 1e-6).mean()
    tied = (best > n_min + 1e-6).mean() - high
    return float(tied), float(n_min + high * (n_max - n_min)), float(n_min + (high + tied) * (n_max - n_min))


def mean(records, row, epochs, field):
    """Return the mean over seeds of `field` of the records of one row and horizon."""
    return float(np.mean([getattr(r, field) for r in records if (r.row, r.epochs) == (row, epochs)]))


def as_json(records):
    """Return the records as JSON-ready {"rows": options of each row, "records": [...]}."""
    return {"rows": ROWS, "records": [asdict(record) for record in records]}


def ablation_tables(records):
    """Yield a rich table for each mode and utility: a line for each row, columns for each horizon."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    horizons = sorted({r.epochs for r in records})
    for mode, utility in sorted({(r.mode, r.utility) for r in records}):
        mine = [r for r in records if (r.mode, r.utility) == (mode, utility)]
        title = (
            f"{utility}, {'exact budget in each epoch' if mode == 'exact' else 'own budget under the ledger'}"
        )
        out = Table(
            title=f"{title} (means over seeds)", title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0)
        )
        out.add_column("", no_wrap=True)
        for epochs in horizons:
            for name in (
                f"K={epochs}\nratio",
                "regret",
                "swing",
                "late",
                "jump",
                *(["used", "dry"] * (mode == "own")),
            ):
                out.add_column(name, justify="right", no_wrap=True, vertical="bottom")
        for row in ROWS:
            cells = []
            for epochs in horizons:
                figure = {
                    f: mean(mine, row, epochs, f) for f in ("ratio", "regret", "swing", "late_swing", "jump")
                }
                used = mean(mine, row, epochs, "spent") / mean(mine, row, epochs, "budget")
                cells += [f"{figure['ratio']:.4f}", f"{figure['regret']:,.1f}"]
                cells += [f"{figure[f]:.1f}" for f in ("swing", "late_swing", "jump")]
                cells += [f"{used:.1%}", f"{mean(mine, row, epochs, 'dry'):.0f}"] * (mode == "own")
            out.add_row(row, *cells, end_section=row in SECTIONS)
        yield out


def plot_ablation(records, demands, path):
    """Write the picture (PNG) to `path`: how demand swings (left), and what is missed in either mode.

    demands : dict of row -> demand of each epoch, rollouts per prompt; in mode "own", of the first record's
    utility
    """
    from cero.analysis.figures import figure

    utility, horizons = records[0].utility, sorted({r.epochs for r in records})
    with figure(path, 1, 3, size=(13, 5.6)) as (fig, axes):
        for row, demand in demands.items():
            axes[0].plot(np.arange(1, len(demand) + 1), demand, label=row, linewidth=1.3)
        axes[0].axhline(8, color="gray", linewidth=0.8, linestyle=":")
        title = f"What an epoch asks for ({utility}, own budget)"
        axes[0].set(
            title=title, xlabel="epoch (a line ends where the ledger is dry)", ylabel="rollouts per prompt"
        )
        fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower left", fontsize=8, ncols=3)
        lines = list(ROWS)[::-1]
        for axis, mode in zip(axes[1:], MODES, strict=True):
            mine = [r for r in records if (r.mode, r.utility) == (mode, utility)]
            for epochs, marker in zip(horizons, "osD^v<>p*", strict=False):
                missed = [max(1 - mean(mine, row, epochs, "ratio"), 1e-6) for row in lines]
                axis.semilogx(missed, range(len(lines)), marker, markersize=5, label=f"K = {epochs}")
            axis.axvline(0.01, color="gray", linewidth=0.8, linestyle=":")
            axis.set(
                title=f"Missed of the optimum ({utility}, {mode} budget)",
                xlabel="1 - value / optimum (dotted: 1 %)",
            )
            axis.set_yticks(range(len(lines)), lines if axis is axes[1] else [""] * len(lines))
        fig.legend(
            *axes[1].get_legend_handles_labels(), loc="outside lower right", fontsize=8, ncols=len(horizons)
        )
        for axis in axes:
            axis.grid(alpha=0.3)
            axis.title.set_size(10)
    return path
