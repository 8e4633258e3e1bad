"""The documentation: its generated tables are up to date, its links lead somewhere, its examples run."""

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cero import available_allocators
from cero.core.beta import VALUES
from cero.estimators.advantage import ADVANTAGES
from cero.estimators.keep import KEEP

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
SCRIPT = ROOT / "scripts" / "docs_tables.py"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md")), *sorted((ROOT / "examples").rglob("*.md"))]


@pytest.fixture(scope="module")
def tables():
    spec = importlib.util.spec_from_file_location("docs_tables", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def read(page):
    return (DOCS / page).read_text(encoding="utf-8")


def blocks(page, language):
    """The code blocks of a page in `language`."""
    return re.findall(rf"^```{language}\n(.*?)^```", read(page), re.MULTILINE | re.DOTALL)


# ---- generated tables ------------------------------------------------------------------------------------


def test_tables_are_up_to_date(tables, capsys):
    code = tables.main(["--check"])
    assert code == 0, f"{capsys.readouterr().out}run `{tables.COMMAND}` and commit what it changes"


def test_check_names_the_stale_page_and_changes_nothing(tables, tmp_path, capsys):
    (tmp_path / "good.md").write_text("no table\n")
    stale = tmp_path / "stale.md"
    stale.write_text("<!-- generated: commands -->\nold\n<!-- end -->\n")
    assert tables.main(["--check", "--docs", str(tmp_path)]) == 1
    printed = capsys.readouterr()
    assert str(stale) in printed.out and "good.md" not in printed.out and tables.COMMAND in printed.err
    assert "old" in stale.read_text()
    assert tables.main(["--docs", str(tmp_path)]) == 0
    assert "old" not in stale.read_text() and "cero inspect" in stale.read_text()
    assert tables.main(["--check", "--docs", str(tmp_path)]) == 0


def test_unknown_table_is_refused(tables, tmp_path):
    (tmp_path / "page.md").write_text("<!-- generated: nonsense -->\n<!-- end -->\n")
    with pytest.raises(SystemExit, match="no table is called 'nonsense'"):
        tables.main(["--docs", str(tmp_path)])


def test_every_choice_is_listed():
    allocators, settings = read("reference/allocators.md"), read("reference/settings.md")
    assert sorted(re.findall(r"^\| \[`(\w+)`\]\(#", allocators, re.MULTILINE)) == available_allocators()
    assert set(re.findall(r"^### (\w+)$", allocators, re.MULTILINE)) == set(available_allocators())
    for names, page in ((VALUES, allocators), (ADVANTAGES, settings), (KEEP, settings)):
        assert set(names) <= set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE))


def test_prose_tells_of_allocators_that_there_are():
    told = set(re.findall(r"^\*\*`(\w+)`", read("how-to/choose-an-allocator.md"), re.MULTILINE))
    assert len(told) >= 15 and told <= set(available_allocators())


@pytest.mark.slow
def test_new_allocator_appears_without_an_edit(tmp_path):
    """One file and one yaml, those of the how-to page, in a copy of the repository."""
    for folder in ("cero", "recipe", "docs/reference"):
        shutil.copytree(
            ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"), symlinks=True
        )
    (tmp_path / "scripts").mkdir()
    shutil.copy(SCRIPT, tmp_path / "scripts")
    page = "how-to/add-an-allocator.md"
    (tmp_path / "cero/allocators/foo.py").write_text(blocks(page, "python")[0])
    (tmp_path / "recipe/allocator/foo.yaml").write_text(blocks(page, "yaml")[0])

    def run(*arguments):
        command = [sys.executable, "scripts/docs_tables.py", *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)

    stale = run("--check")
    assert stale.returncode == 1 and "allocators.md" in stale.stdout, stale.stderr
    assert run().returncode == 0 and run("--check").returncode == 0
    text = (tmp_path / "docs/reference/allocators.md").read_text()
    assert "| [`foo`](#foo) | Foo: twice as many rollouts for prompts in between (an example). |" in text
    assert "| `factor` | `2.0` | How many times as many rollouts prompts in between get. |" in text


# ---- what is read out of a yaml --------------------------------------------------------------------------

YAML = """\
# What it is, in one line. cero/allocators/x.py
name: x

# Two lines
# of one comment.
one: 1
two: [1, 2] # its own
three: "a # b" # beside it

four: null
part: # of the part
  five: 5
  # Above.
  six: 6
  seven: 7
"""


def test_comments_belong_to_the_keys_they_stand_at(tables):
    assert tables.entries(YAML) == [
        (["name"], ["x"], ""),
        (["one"], [1], "Two lines of one comment."),
        (["two"], [[1, 2]], "its own"),
        (["three"], ["a # b"], "beside it"),
        (["four"], [None], ""),
        (["part.five"], [5], "of the part"),
        (["part.six", "part.seven"], [6, 7], "Above."),
    ]
    assert tables.about(YAML) == "What it is, in one line."


@pytest.mark.parametrize("name", available_allocators())
def test_every_option_is_described(tables, name):
    text = (tables.ALLOCATORS / f"{name}.yaml").read_text(encoding="utf-8")
    cls = {made: cls for made, _, _, cls in tables.allocator_files()}[name]
    rows = tables.option_rows(
        tables.entries(text), fallback=lambda key: tables.parameter(cls, key), skipped=tables.OF_OTHERS
    )
    assert [keys for keys, _, what in rows if not what] == []


def test_markup_is_escaped(tables):
    assert tables.escaped("E[p] < a | b * c, `x | [y]`") == "E&#91;p] &lt; a \\| b &#42; c, `x \\| [y]`"
    lines = tables.wrapped("word " * 21 + "1 - p and more").splitlines()
    assert lines[1].startswith("p and") and max(map(len, lines)) <= 110


# ---- links and examples ----------------------------------------------------------------------------------


def anchors(text):
    """Anchors of a page's headings, as Python-Markdown's table of contents makes them."""
    found, fence = set(), False
    for line in text.splitlines():
        fence ^= line.startswith("```")
        match = re.match(r"#{1,6} (.+)", line)
        if match and not fence:
            title = re.sub(r"[`*]|\\\(.*?\\\)", "", match[1]).lower()
            found.add(re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", title).strip()))
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    broken = []
    for target in re.findall(r"\]\((?!https?:|mailto:)([^)\s]+)\)", text):
        path, _, anchor = target.partition("#")
        other = (page.parent / path) if path else page
        if not other.exists() or (anchor and anchor not in anchors(other.read_text(encoding="utf-8"))):
            broken.append(target)
    assert broken == []


def test_pages_are_in_the_navigation():
    named = set(re.findall(r": ([\w./-]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE))
    assert named == {page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")}


def test_library_examples_run(capsys):
    names = {}
    for block in blocks("getting-started.md", "python"):
        exec(block, names)
    assert "cero_resolve" in capsys.readouterr().out
    assert names["n"].sum() == 512 and names["step"].launched.sum() <= 512
