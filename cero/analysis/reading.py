"""How is a file read that may be damaged or another program's, and how is its name shown?"""

import json
import unicodedata
from pathlib import Path


def parse_object(text):
    """Return the JSON object in `text` (str or bytes), a dict.

    Raises ValueError for anything else, brackets nested too deeply for the parser included.
    """
    try:
        found = json.loads(text)
    except RecursionError as error:
        raise ValueError("its brackets are nested too deeply") from error
    if not isinstance(found, dict):
        raise ValueError(f"it is {_kind(found)} instead of a JSON object")
    return found


def read_object(path):
    """Return the JSON object that the file `path` holds, a dict.

    Raises OSError if the file can't be read, ValueError, naming it, if it holds anything else.
    """
    try:
        return parse_object(Path(path).read_bytes())
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _kind(value):
    return {list: "a list", str: "a text", type(None): "null"}.get(type(value), "a number or a truth value")


def one_line(text):
    """Return `text` (anything, by its `str`) as one line that any terminal shows as it is.

    Characters that are none of a line (line ends, escape sequences, bytes that are no UTF-8) are written as
    Python writes them in a string.
    """
    hidden = ("Cc", "Cf", "Cs", "Zl", "Zp")
    text = str(text)
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        each.encode("unicode_escape").decode("ascii") if unicodedata.category(each) in hidden else each
        for each in text
    )


def describe(error):
    """Return an error's message as one line; of an OSError, the file and what the system says of it."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return one_line(f"{error.filename}: {error.strerror}")
    return one_line(error)
