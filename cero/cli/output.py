"""How does a command print what it was given: names of files, words of others, what went wrong?"""

import sys
from contextlib import contextmanager

from cero.analysis.reading import describe, one_line


def say(console, text):
    """Print `text` as one line, however long; nothing in it is taken for markup."""
    from rich.text import Text

    console.print(Text(one_line(text)), soft_wrap=True)


def complain(command, message):
    """Print one line on stderr: what is wrong, or what was left out of what `command` shows."""
    print(f"cero {command}: {one_line(message)}", file=sys.stderr)


@contextmanager
def errors_in_one_line(name):
    """Exit with 2 and a line on stderr, that begins with `name`, for OSError or ValueError raised within."""
    try:
        yield
    except (OSError, ValueError) as error:
        print(f"{name}: {describe(error)}", file=sys.stderr)
        raise SystemExit(2) from error


def drawn(draw, path, asked, tell):
    """Call `draw` with `path` and return the picture's path; None where the folder is not to be written.

    asked : whether the user named the path. Then OSError is raised; else it is told, since the picture is
        only a part of what the command shows.
    """
    try:
        return draw(path)
    except OSError as error:
        if asked:
            raise
        tell(f"there is no picture: {error.filename or path}: {error.strerror or error}")
        return None
