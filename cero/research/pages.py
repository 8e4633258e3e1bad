"""How does what was measured get onto a page? It replaces what stands between two comments of it."""

from pathlib import Path


def check_section(page: Path, begin: str, end: str) -> tuple[str, str]:
    """Return what stands before the comment `begin` and behind `end` of a page.

    Raises ValueError unless the page has both once, in this order.
    """
    before, *rest = page.read_text(encoding="utf-8").split(begin)
    after = rest[-1].split(end) if rest else []
    if len(rest) != 1 or len(after) != 2:
        raise ValueError(
            f"{page} has no place for the table: put {begin.strip()} and then {end.strip()} where it "
            "belongs, once each"
        )
    return before, after[1]


def write_section(page: Path, begin: str, text: str, end: str) -> None:
    """Replace what stands between the comments `begin` and `end` of a page by `text`.

    Raises ValueError unless the page has both once, in this order.
    """
    before, after = check_section(page, begin, end)
    page.write_text(before + begin + text + end + after, encoding="utf-8")
