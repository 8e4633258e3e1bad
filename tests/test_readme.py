"""The README's Python runs and shows what it says; its links lead somewhere."""

import io
import re
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_library_in_ten_lines():
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    names, shown = {}, io.StringIO()
    with redirect_stdout(shown):
        exec(code, names)
    assert names["rollouts"].tolist() == [8, 8, 8]
    after = np.array(re.findall(r"\d+", shown.getvalue()), dtype=int)
    assert after.sum() == 24 and after.argmax() == 2


def test_prose_is_narrow():
    """README has at most 120 lines; of no page is a line of text wider than 110 characters."""
    assert len(README.splitlines()) <= 120
    pages = [path for path in ROOT.glob("*.md")] + sorted((ROOT / "docs").rglob("*.md"))
    pages += sorted((ROOT / "examples").rglob("*.md"))
    for page in pages:
        if page == ROOT / "docs" / "results" / "study" / "report.md":  # made by `cero study`
            continue
        text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
        lines = [line for line in text.splitlines() if not line.lstrip().startswith(("|", "![", "<"))]
        assert not [line for line in lines if len(line) > 110], page


def test_links_lead_somewhere():
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", README):
        assert (ROOT / target).exists(), target
