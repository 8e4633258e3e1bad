"""How does a script write its tables into a page? Between two comments, and nothing else is touched."""

from pathlib import Path


def write_section(page: Path, begin: str, text: str, end: str) -> None:
    """Replace what stands between the comments `begin` and `end` of a page by `text`.

    Raises ValueError if the page has either comment not once.
    """
    parts = page.read_text().split(begin)
    rest = parts[-1].split(end)
    if len(parts) != 2 or len(rest) != 2:
        raise ValueError(f"{page} must have {begin.strip()!r} and then {end.strip()!r} once each")
    page.write_text(parts[0] + begin + text + end + rest[1])
