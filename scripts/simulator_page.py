"""Write the tables of docs/results/simulator.md, of what `cero simulate --json` printed.

    python scripts/simulator_page.py runs/simulator       # the folder of scripts/simulator_tables.sh

Each table stands between two comments of the page that name it. Gains are those in area over the first
method's, with half of their 95 % intervals.
"""

import argparse
import json
from pathlib import Path

from cero.cli.main import execute
from cero.research.pages import check_section, write_section
from cero.research.study.study_report import markdown_table

PAGE = Path(__file__).resolve().parents[1] / "docs/results/simulator.md"
# The words of a method's options that all of a table have.
THEN = "/forgetting=0.7/response=2"


def place(name):
    """Return the comments that a table stands between."""
    return f"<!-- table: {name}, by scripts/simulator_page.py -->", f"<!-- end of table: {name} -->"


def named(label):
    """Return a method as the page writes it, without the options that are said in its text."""
    return f"`{label.replace(THEN, '')}`"


def spread(figure, digits=4, sign="+"):
    """Return (mean, low, high) as "mean ±half"."""
    mean, low, high = figure
    return f"{mean:{sign}.{digits}f} ±{(high - low) / 2:.{digits}f}"


def reached(row):
    """Return the rollouts to the target over the first method's, or how many seeds got there."""
    if row["reached"] < 1:
        return f"by {round(row['reached'] * row['seeds'])} of {row['seeds']}"
    return f"{row['ratio'][0]:.2f}x"


def settings(result):
    """Return the table of settings: a row for each preset and budget, a column for each method."""
    labels = list(result["cells"][0]["summary"])
    rows = []
    for cell in result["cells"]:
        first, *others = (cell["summary"][label] for label in labels)
        curves = [
            curve
            for curve in result["curves"]
            if (curve["preset"], curve["budget"], curve["label"])
            == (cell["preset"], cell["budget"], labels[0])
        ]
        start = sum(curve["accuracy"][0] for curve in curves) / len(curves)
        cells = [f"{first['auc'][0]:.3f} ({start:.2f} to {first['final'][0]:.2f})"]
        cells += [f"{spread(row['gain'])}, {reached(row)}" for row in others]
        rows.append([f"{cell['preset']}, {cell['budget']}", *cells])
    return markdown_table(["preset, rollouts a prompt", *map(named, labels)], rows)


def by_method(result, cell_of, first):
    """Return a table with a row for each method and a column for each preset.

    cell_of : function of a summary, for all methods but the first; first : likewise, or None to leave it out
    """
    cells = result["cells"]
    labels = list(cells[0]["summary"])
    rows = []
    for label in labels if first else labels[1:]:
        row = [cell["summary"][label] for cell in cells]
        show = first if label == labels[0] else cell_of
        rows.append([named(label), *map(show, row)])
    return markdown_table(["", *(cell["preset"] for cell in cells)], rows)


def drift(result):
    """Return the table of what drift and cold starts ask for."""
    table = by_method(result, lambda row: spread(row["gain"]), None)
    first = next(iter(result["cells"][0]["summary"])).replace(THEN, "")
    return table.replace(f"`{first}/", "`")


def rules(result):
    """Return the table of every rule."""

    def gain(row):
        text = spread(row["gain"], 3)
        return text if row["reached"] < 1 else f"{text}, {row['ratio'][0]:.2f}x"

    return by_method(result, gain, lambda row: spread(row["auc"], 3, ""))


def check(result):
    """Return the table of predicted beside measured, best measured first."""
    rows = []
    for row in sorted(result["rows"], key=lambda row: -row["gain_measured"]):
        method = f"`{row['contender']}`" + (f" ({row['near']})" if row["near"] else "")
        cells = [f"{row['measured']:.3f}", f"{row['predicted'][0]:.3f}", f"{row['gain_measured']:+.3f}"]
        rows.append([row["name"], method, *cells, spread(row["gain"])])
    head = ("rule there", "method here", "measured", "predicted", "gain measured", "gain predicted")
    return markdown_table(head, rows)


def ranks(result):
    """Return the table of rank correlations."""
    rows = [
        [
            name,
            str(rank["rows"]),
            f"{rank['tau']:.2f} [{rank['tau_low']:.2f}, {rank['tau_high']:.2f}]",
            f"{rank['rho']:.2f}",
        ]
        for name, rank in result["ranks"].items()
    ]
    return markdown_table(("rows", "number", "Kendall's tau", "Spearman's rho"), rows)


# Name of the table -> (file of the folder, what makes it).
TABLES = {
    "presets": ("table-presets.json", settings),
    "budgets": ("table-budgets.json", settings),
    "drift": ("table-drift.json", drift),
    "rules": ("table-rules.json", rules),
    "check": ("table-check.json", check),
    "ranks": ("table-check.json", ranks),
}


def write(arguments):
    """Write every table whose file is there; raises ValueError if none is."""
    found = {name: each for name, each in TABLES.items() if (arguments.folder / each[0]).is_file()}
    if not found:
        raise ValueError(
            f"{arguments.folder} holds none of {', '.join(sorted({f for f, _ in TABLES.values()}))}"
        )
    for name in found:
        check_section(arguments.page, *place(name))
    for name, (file, made_by) in found.items():
        result = json.loads((arguments.folder / file).read_text(encoding="utf-8"))
        first, last = place(name)
        write_section(arguments.page, first, f"\n\n{made_by(result)}\n", last)
    print(f"{len(found)} of {len(TABLES)} tables are written to {arguments.page}")


def main(argv=None):
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where the tables are, as JSON")
    parser.add_argument(
        "--page", type=Path, default=PAGE, help="the page (default: docs/results/simulator.md)"
    )
    parser.set_defaults(run_command=write, command="write")
    execute(parser.parse_args(argv), "simulator_page.py")


if __name__ == "__main__":
    main()
