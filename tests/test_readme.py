"""Does the README speak of what there is?"""

import re
from pathlib import Path

from cero import available_allocators
from cero.core.beta import VALUES
from cero.estimators.advantage import ADVANTAGES
from cero.estimators.keep import KEEP

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def row(name):
    """The cell of the row of settings that begins with `name`."""
    (line,) = re.findall(rf"^\| {re.escape(name)} \|.*$", README, re.MULTILINE)
    return set(re.findall(r"`(\w+)`", line.split("|", 2)[2]))


def test_methods_table_lists_every_allocator():
    table = README.split("### Methods, one word each")[1].split("\n\n")[1]
    assert sorted(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == available_allocators()
    weighed = re.findall(r"^\| `\w+` \|[^|]*\|[^|]*\|[^|]*\| `(\w+)`", table, re.MULTILINE)
    assert len(weighed) == len(available_allocators()) and set(weighed) <= set(ADVANTAGES)


def test_settings_table_lists_every_choice():
    assert row("`allocator.value`") == set(VALUES)
    assert row("`algorithm.cero.advantage`") >= set(ADVANTAGES)
    assert row("`cero.keep.rule`") | {"all"} >= set(KEEP)


def test_links_lead_somewhere():
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), (page.name, target)
