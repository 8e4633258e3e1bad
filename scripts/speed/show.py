"""How do the figures of the benchmarks read? As Markdown tables and as one picture."""

import textwrap

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from cero.analysis.figures import write_small  # noqa: E402

CERO = "cero: whole step"
PEERS = ("cvxpy, compiled once", "cvxpy, made anew", "knapsack DP", "VIP by SLSQP")
COLOURS = {"cero": "#1b6ca8", "cero_resolve": "#d1711c", "uniform": "#5a8f29"}


def duration(seconds):
    """Return seconds as text with three digits."""
    if seconds < 1:
        return f"{seconds * 1e3:.3g} ms" if seconds < 0.0995 else f"{seconds * 1e3:.0f} ms"
    return f"{seconds:.3g} s" if seconds < 100 else f"{seconds:.0f} s"


def multiple(times):
    """Return a ratio as text with two digits at least."""
    return f"{times:.1f}x" if times < 10 else f"{times:,.0f}x"


def table(header, rows):
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines) + "\n\n"


def measured(part):
    """Return a sentence on the machine, the versions and the load."""
    m, load = part["machine"], part["load"]
    text = (
        f"{m['cores']} cores ({m['cpu']}), {m['memory_gib']} GiB, Python {m['python']}, NumPy {m['numpy']}, "
        f"SciPy {m['scipy']}, cvxpy {m['cvxpy']}; load average {load[0]} before, {load[1]} after."
    )
    return textwrap.fill(text, 110) + "\n\n"


def step_table(part):
    """Return the table of a step's time by allocator, prompts in the table and prompts in the step."""
    rows = [
        (
            r["allocator"],
            f"{r['prompts']:,}",
            f"{r['step']:,}",
            duration(r["median"]),
            duration(r["min"]),
            r["rounds"],
        )
        for r in part["rows"]
    ]
    return table(("allocator", "prompts in the table", "in the step", "median", "fastest", "rounds"), rows)


def candidates_table(part):
    """Return the table of a choice's time by allocator, and by what of it is counted."""
    rows = [
        (r["allocator"], r["what"], f"{r['offered']:,}", f"{r['chosen']:,}")
        + (duration(r["median"]), duration(r["min"]), r["rounds"])
        for r in part["rows"]
    ]
    header = ("allocator", "what", "candidates", "chosen", "median", "fastest", "rounds")
    return table(header, rows)


def state_table(part):
    """Return the table of a checkpoint's time and size."""
    rows = [
        (r["what"], duration(r["median"]), duration(r["min"]), f"{r['file_bytes'] / 1e6:.1f} MB", r["rounds"])
        for r in part["rows"]
    ]
    return table(("one million prompts", "median", "fastest", "on disk", "rounds"), rows)


def memory_table(part):
    """Return the table of bytes for each prompt."""
    rows = [
        (r["allocator"], f"{r['prompts']:,}", r["held"], r["held_most"], r["process"])
        + (duration(r["median"]), duration(r["slowest"]))
        for r in part["rows"]
    ]
    header = ("allocator", "prompts", "bytes a prompt", "at the worst size", "growth of the process's peak")
    return table(header + ("a step of 8,192 new prompts", "the slowest"), rows)


def by_who(part):
    """Return the rows as a dict of (who, step) -> row."""
    return {(r["who"], r["step"]): r for r in part["rows"]}


def peer_table(part):
    """Return the table of other solvers' times, and how many times `cero`'s step they are."""
    rows, cells = by_who(part), []
    sizes = sorted({size for _, size in rows})
    for who in dict.fromkeys(name for name, _ in rows):
        line = [who]
        for size in sizes:
            r = rows[who, size]
            times = r["median"] / rows[CERO, size]["median"]
            more = "" if r.get("converged", True) else f"{r['iterations']} iterations: "
            line.append(more + duration(r["median"]) + ("" if who == CERO else f" ({multiple(times)})"))
        cells.append(line)
    return table(["median, and times `cero`'s step", *(f"{size:,} prompts" for size in sizes)], cells)


def tables(figures):
    """Return all tables, as Markdown."""
    parts = [
        ("A step: `allocate` and `observe`", "allocators", step_table),
        ("A choice among candidates", "candidates", candidates_table),
        ("Beside other solvers", "peers", peer_table),
        ("A checkpoint", "state", state_table),
        ("Memory, and filling the table", "memory", memory_table),
    ]
    text = ""
    for title, name, make in parts:
        part = figures[name]
        text += f"\n## {title}\n\n" + (measured(part) if "machine" in part else "") + make(part)
    return text


def picture(figures, path):
    """Draw the time of a step over the table's size, and beside it the time of `cero` and other solvers."""
    plt.rcParams.update({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False})
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), width_ratios=(1, 1.25))

    rows = figures["allocators"]["rows"]
    for name, colour in COLOURS.items():
        mine = [r for r in rows if r["allocator"] == name and r["step"] == 1024]
        left.plot(
            [r["prompts"] for r in mine], [r["median"] * 1e3 for r in mine], "o-", color=colour, label=name
        )
    left.set(xscale="log", xlabel="prompts in the table", ylabel="milliseconds", ylim=(0, None))
    left.set_title("A step of 1,024 prompts, by the size of the table", loc="left", fontsize=10.5)
    left.set_ylim(0, left.get_ylim()[1] * 1.25)
    left.legend(frameon=False, ncols=3, loc="upper left", columnspacing=1.2, handlelength=1.4)
    left.grid(axis="y", alpha=0.3)

    peers = by_who(figures["peers"])
    sizes = sorted({size for _, size in peers})
    names = (CERO, *PEERS)
    shades = ("#9ecae1", "#4292c6", "#08519c"), ("#cccccc", "#969696", "#555555")
    for k, size in enumerate(sizes):
        for y, who in enumerate(names):
            r, at = peers[who, size], y + (k - 1) * 0.27
            right.barh(at, r["median"], 0.25, color=shades[who != CERO][k])
            times = r["median"] / peers[CERO, size]["median"]
            text = f"{size:,} prompts: {'> ' if r.get('converged') is False else ''}{duration(r['median'])}"
            text += "" if who == CERO else f", {multiple(times)}"
            right.text(r["median"] * 1.15, at, text, va="center", fontsize=7.5)
    right.set(xscale="log", xlabel="seconds (log)", yticks=range(len(names)), yticklabels=names)
    right.set_xlim(1e-4, 3e5)
    right.set_xticks([1e-4, 1e-3, 1e-2, 1e-1, 1, 10, 100])
    right.invert_yaxis()
    right.set_title("A whole step of cero beside other solvers alone", loc="left", fontsize=10.5)
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    plt.close(figure)
    write_small(path, path)
