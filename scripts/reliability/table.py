"""Writes the tables of the page on reliability from what fuzz.py, soak.py and kills.py counted.

    python scripts/reliability/table.py --fuzz runs/fuzz.json --soak runs/soak.json --kills runs/kills

Each replaces what stands on the page between the comments that name it; what is not given stays.
"""

import argparse
import json
import re
from pathlib import Path

from cero.cli.output import errors_in_one_line

PAGE = Path(__file__).resolve().parents[2] / "docs" / "results" / "reliability.md"


def markdown(head, rows):
    """Return a Markdown table of cells, str or int."""
    lines = [head, ["---"] + ["--:"] * (len(head) - 1), *rows]
    return "\n".join(
        "| " + " | ".join(f"{c:,}" if isinstance(c, int) else c for c in line) + " |" for line in lines
    )


def fuzz_table(result):
    """Return the table of what `fuzz.py --out` wrote."""
    rows = [[r["area"], r["cases"], round(r["seconds"]), len(r["findings"])] for r in result["areas"]]
    rows.append(["in all", *(sum(column) for column in list(zip(*rows, strict=True))[1:])])
    return markdown(["area", "cases", "seconds", "findings"], rows)


def soak_table(result):
    """Return the table of what `soak.py --out` wrote."""
    keys = [
        "steps",
        "runs",
        "lost rollouts",
        "steps settled late",
        "steps never settled",
        "rollouts refunded",
    ]
    keys += ["resumes", "resumes from a file", "seconds"]
    rows = [
        [f"`{r['allocator']}`", *(round(r.get(key, 0)) for key in keys), int(r["finding"] is not None)]
        for r in result["allocators"]
    ]
    rows.append(["in all", *(sum(column) for column in list(zip(*rows, strict=True))[1:])])
    return markdown(["allocator", *keys, "findings"], rows)


def kills_table(lines):
    """Return the table of what `kills.py` wrote into kills.jsonl: its lines, list of dict."""
    rows = []
    for words, kind in (("around a checkpoint", "checkpoint"), ("at any moment", "any")):
        mine = [line for line in lines if line["kind"] == kind]
        between = sum(line["begun"] is not None and line["begun"] != line["complete"] for line in mine)
        early = sum(line["complete"] is None for line in mine)
        differ = sum(bool(line["differences"]) for line in mine)
        seconds = round(sum(line["seconds"] for line in mine))
        rows.append([words, len(mine), early, between, seconds, differ])
    rows.append(["in all", *(sum(column) for column in list(zip(*rows, strict=True))[1:])])
    head = ["killed", "kills", "before the first checkpoint was complete", "while one was written", "seconds"]
    return markdown([*head, "in runs that differ"], rows)


def replace(text, name, table):
    """Return the page with a table in the place that is named so."""
    place = re.compile(rf"(<!-- table.py: {name} -->\n).*?(<!-- /table.py -->)", re.DOTALL)
    new, count = place.subn(lambda found: f"{found[1]}\n{table}\n\n{found[2]}", text)
    if count != 1:
        raise ValueError(f"{PAGE} has no place for {name}")
    return new


def main(argv=None):
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fuzz", help="what fuzz.py --out wrote")
    parser.add_argument("--soak", help="what soak.py --out wrote")
    parser.add_argument("--kills", help="the folder of kills.py")
    arguments = parser.parse_args(argv)
    text = PAGE.read_text(encoding="utf-8")
    with errors_in_one_line("table.py"):
        if arguments.fuzz:
            text = replace(text, "fuzz", fuzz_table(json.loads(Path(arguments.fuzz).read_text())))
        if arguments.soak:
            text = replace(text, "soak", soak_table(json.loads(Path(arguments.soak).read_text())))
        if arguments.kills:
            lines = (Path(arguments.kills) / "kills.jsonl").read_text().splitlines()
            text = replace(text, "kills", kills_table([json.loads(line) for line in lines]))
    PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
