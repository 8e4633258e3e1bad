"""Writes the tables of the documentation that say what the yaml files and the code say.

    python scripts/docs_tables.py            rewrite what is between the markers of docs/**/*.md
    python scripts/docs_tables.py --check    change nothing; exit with 1 and name the pages that are stale

A page asks for a table with a pair of markers, and everything between them is replaced:

    <!-- generated: NAME -->
    <!-- end -->

NAME is a key of `TABLES`. A new allocator (one module and one yaml), a new setting of a recipe or a new
option of the command line appears without a change here.
"""

import argparse
import inspect
import re
import sys
import textwrap
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from cero import make_allocator  # noqa: E402
from cero.cli.main import parser as cero_parser  # noqa: E402
from cero.core.beta import VALUES  # noqa: E402
from cero.core.utility import UTILITIES  # noqa: E402
from cero.estimators.advantage import ADVANTAGES  # noqa: E402
from cero.estimators.keep import KEEP  # noqa: E402

RECIPES = ROOT / "recipe"
ALLOCATORS = RECIPES / "allocator"
COMMAND = "python scripts/docs_tables.py"
MARKED = re.compile(r"(<!-- generated: (?P<name>[\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
# What an allocator's yaml says of other parts of the run: shown in the overview, not among its options.
OF_OTHERS = ("name", "adv_estimator", "advantage", "baseline", "keep")


# ---- Markdown --------------------------------------------------------------------------------------------


def escaped(text):
    """Return `text` with what Markdown would take for markup escaped, except inside backticks."""
    parts = str(text).split("`")
    for i, part in enumerate(parts):
        part = part.replace("|", "\\|")
        if i % 2 == 0:
            for character, entity in (("<", "&lt;"), ("[", "&#91;"), ("$", "&#36;")):
                part = part.replace(character, entity)
            part = re.sub(r"(?<!\*)\*(?!\*)", "&#42;", part)
            part = re.sub(r"(?<![\w.])_|_(?![\w.])", "&#95;", part)
        parts[i] = part
    return "`".join(parts)


def wrapped(text):
    """Return a paragraph of Markdown in lines of at most 108 characters.

    No line begins as an item of a list would.
    """
    glued = re.sub(r" (?=(?:[-+*#>]|\d+[.)]) )", "\0", text)
    lines = textwrap.fill(glued, 108, break_long_words=False, break_on_hyphens=False)
    return lines.replace("\0", " ")


def code(value):
    """Return a yaml value as inline code, as one would write it on the command line."""
    text = yaml.safe_dump(value, default_flow_style=True, width=1000).strip().removesuffix("\n...").strip()
    return "`" + text.replace("|", "\\|") + "`"


def markdown(head, rows):
    """Return a Markdown table. Cells are Markdown already; rows are sequences of str."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


# ---- what yaml files say ---------------------------------------------------------------------------------


def uncommented(line):
    """Return a yaml line without its comment, and the comment."""
    quote = None
    for i, character in enumerate(line):
        if quote is not None:
            quote = None if character == quote else quote
        elif character in "'\"":
            quote = character
        elif character == "#" and (i == 0 or line[i - 1].isspace()):
            return line[:i].rstrip(), line[i + 1 :].strip()
    return line.rstrip(), ""


def header(text):
    """Return the first paragraph of the comment that a yaml file begins with, as one line."""
    lines = []
    for line in text.splitlines():
        content, comment = uncommented(line)
        if content or not comment:
            break
        lines.append(comment)
    return " ".join(lines)


def sentences(parts):
    """Return pieces of comments as one line, with a full stop where a piece has no end of its own."""
    ended = [part if part.endswith((".", ":", ";", ",", "?")) else f"{part}." for part in parts[:-1]]
    return " ".join([*ended, *parts[-1:]])


def entries(text):
    """Return the leaves of a yaml text in their order: list of (keys, values, comment).

    keys : dotted keys that share a comment, and values : theirs; comment : str. The comment that the file
    begins with is its header and belongs to no key. A comment above a key is also that of the keys right
    below which have none; one beside a key is that key's; one beside a section is its first key's.
    """
    tree, found, stack = yaml.safe_load(text), [], []  # stack: (indent, key) of the sections around
    above, fresh, begun = [], False, False  # blocks of comment above; whether a key has yet to use them
    block = False  # whether the line before was a comment by itself
    for line in text.splitlines():
        content, comment = uncommented(line)
        if not content:
            if not comment:
                above = []
            elif block:
                above[-1] += f" {comment}"
            else:
                above = [*(above if fresh else []), comment]
            fresh = block = bool(comment)
            continue
        block = False
        if not begun:
            above, fresh, begun = [], False, True
        match = re.match(r"( *)([\w-]+):(.*)$", content)
        if match is None:
            continue  # an item of a list
        indent, key, is_section = len(match[1]), match[2], not match[3].strip()
        stack = [(at, name) for at, name in stack if at < indent]
        path = [name for _, name in stack] + [key]
        if is_section:
            stack.append((indent, key))
            above = (above if fresh else []) + ([comment] if comment else [])
            fresh = bool(above)
            continue
        value = tree
        for name in path:
            value = value[name]
        if found and above and not fresh and not comment:
            found[-1][0].append(".".join(path))
            found[-1][1].append(value)
            continue
        above = above if fresh else []
        found.append(([".".join(path)], [value], sentences(above + ([comment] if comment else []))))
        fresh = False
    return found


def option_rows(found, fallback=None, skipped=()):
    """Return rows (keys, defaults, what it does) of `entries`.

    fallback : callable, key -> str: what a key means where the yaml does not say it; skipped : keys left out
    """
    rows = []
    for keys, values, comment in found:
        if set(keys) <= set(skipped):
            continue
        if not comment and fallback is not None:
            comment = fallback(keys[0])
        rows.append(
            (
                ", ".join(f"`{key}`" for key in keys),
                ", ".join(code(value) for value in values),
                escaped(comment),
            )
        )
    return rows


def recipe_settings(name, sections):
    """Return a table of the leaves of recipe/<name>.yaml in `sections` (None: all but defaults and hydra)."""
    found = entries((RECIPES / f"{name}.yaml").read_text(encoding="utf-8"))
    mine = [
        (keys, values, comment)
        for keys, values, comment in found
        if (keys[0].split(".")[0] in sections if sections else not keys[0].startswith(("defaults", "hydra")))
    ]
    return markdown(("setting", "default", "what it does"), option_rows(mine))


def recipes():
    """Return a table of the recipes."""
    rows = []
    for path in sorted(RECIPES.glob("*.yaml")):
        rows.append((f"`+recipe={path.stem}`", escaped(header(path.read_text(encoding="utf-8")))))
    return markdown(("recipe", "what it is"), rows)


# ---- what the code says ----------------------------------------------------------------------------------


def paragraphs(text):
    """Return the paragraphs of a docstring up to its first section, each as one line."""
    kept = re.split(r"\n\s*\n(?=[A-Z]\w+\n-{3,})", inspect.cleandoc(text or ""))[0]
    return [" ".join(part.split()) for part in re.split(r"\n\s*\n", kept) if part.strip()]


def parameter(cls, name):
    """Return what the docstrings of `cls` and its bases say of the parameter `name`; "" if nothing."""
    for base in cls.__mro__:
        lines = inspect.cleandoc(base.__doc__ or "").splitlines()
        for i, line in enumerate(lines):
            names, colon, kind = line.partition(" : ")
            if colon and re.fullmatch(r"[\w, ]+", names) and name in names.split(", "):
                below = []
                for more in lines[i + 1 :]:
                    if not more.startswith("    "):
                        break
                    below.append(more.strip())
                return f"{kind}. {' '.join(below)}" if below else f"{kind}."
    return ""


def functions(table):
    """Return a table of functions by name: the first line of each docstring."""
    return markdown(
        ("name", "what"), [(f"`{name}`", escaped(paragraphs(f.__doc__)[0])) for name, f in table.items()]
    )


def allocator_files():
    """Yield (name, yaml text, its values, class) of each allocator that has a yaml in this repository."""
    for path in sorted(ALLOCATORS.glob("*.yaml")):
        text = path.read_text(encoding="utf-8")
        made = make_allocator(path.stem, rollouts_per_prompt=8, epochs=10)
        yield path.stem, text, yaml.safe_load(text), type(made)


def about(text):
    """Return what an allocator's yaml says of it, without the path of its module."""
    return re.sub(r"\s*\bcero/[\w/]+\.py\s*$", "", header(text))


def sequential(cls):
    """Return whether allocators of this class decide while a step is sampled."""
    return bool(getattr(cls, "sequential", False))


def allocators():
    """Return a table of the allocators: one row each."""
    rows = []
    for name, text, values, cls in allocator_files():
        estimator = values["adv_estimator"]
        weighed = f"`{estimator}` (verl's)"
        if estimator == "cero":
            kind = str(values.get("advantage", "posterior"))
            kind = values.get(kind.removeprefix("${allocator.").removesuffix("}"), kind)  # another option's
            weighed = f"`{kind}`"
        if "baseline" in values:
            weighed += f", baseline `{values['baseline']}`"
        low = f"{values['n_min']} to" if "n_min" in values else "up to"
        rows.append(
            (
                f"[`{name}`](#{name})",
                escaped(about(text)),
                "within the step" if sequential(cls) else "before sampling",
                f"`{values.get('keep', 'all')}`",
                weighed,
                f"{low} {values['n_max']}",
            )
        )
    head = ("`allocator=`", "what it does", "decides", "kept", "advantage", "rollouts a prompt and step")
    return markdown(head, rows)


def allocator_options():
    """Return a section for each allocator: what its class says, and its options."""
    parts = []
    for name, text, _, cls in allocator_files():
        found = entries(text)
        rows = option_rows(found, fallback=lambda key, cls=cls: parameter(cls, key), skipped=OF_OTHERS)
        parts.append(
            f"### {name}\n\n"
            + "\n\n".join(wrapped(escaped(part)) for part in paragraphs(cls.__doc__))
            + f"\n\nFiles: `{source(cls)}`, `recipe/allocator/{name}.yaml`.\n\n"
            + markdown(("`allocator.`...", "default", "what it does"), rows)
        )
    return "\n".join(parts)


def source(cls):
    """Return the path of a class's module, relative to the repository."""
    return Path(inspect.getfile(cls)).resolve().relative_to(ROOT).as_posix()


# ---- the command line ------------------------------------------------------------------------------------


def subcommands():
    """Return two dicts by subcommand: its parser, and its one-line help."""
    for action in cero_parser()._actions:
        if isinstance(action, argparse._SubParsersAction):
            return action.choices, {choice.dest: choice.help for choice in action._choices_actions}
    raise SystemExit("docs_tables: `cero` has no subcommands")


def commands():
    """Return a table of the subcommands."""
    parsers, helps = subcommands()
    return markdown(
        ("command", "what it does"),
        [(f"[`cero {name}`](#cero-{name})", escaped(helps[name])) for name in parsers],
    )


def command_options():
    """Return a section for each subcommand with its arguments."""
    parsers, helps = subcommands()
    parts = []
    for name, parser in parsers.items():
        rows = []
        for action in parser._actions:
            if isinstance(action, argparse._HelpAction) or action.help == argparse.SUPPRESS:
                continue
            words = action.option_strings or [action.metavar or action.dest]
            names = ", ".join(f"`{word}`" for word in words)
            rows.append((names, default_of(action), escaped(described(action))))
        table = markdown(("argument", "default", "what"), rows)
        parts.append(f"### cero {name}\n\n{escaped(helps[name])}\n\n{table}")
    return "\n".join(parts)


def default_of(action):
    """Return the default of an argument as Markdown: "" for none, or for a switch that is off."""
    if action.required or not action.option_strings:
        return "required"
    if action.default in (None, False, argparse.SUPPRESS):
        return ""
    value = action.default
    return f"`{','.join(map(str, value)) if isinstance(value, list) else value}`"


def described(action):
    """Return the help of an argument, filled in as argparse does, and its choices."""
    text = (action.help or "") % {**vars(action), "prog": "cero"}
    if action.choices:
        text = f"{text} (one of {', '.join(map(str, action.choices))})".strip()
    return text


TABLES = {
    "recipes": recipes,
    "settings-cero": lambda: recipe_settings("cero", ("cero",)),
    "settings-estimator": lambda: recipe_settings("cero", ("algorithm",)),
    "settings-trainer": lambda: recipe_settings("cero", ("trainer", "critic")),
    "settings-cpu": lambda: recipe_settings("cpu", None),
    "settings-cero-cpu": lambda: recipe_settings("cero_cpu", ("cero",)),
    "allocators": allocators,
    "allocator-options": allocator_options,
    "values": lambda: functions(VALUES),
    "utilities": lambda: functions(UTILITIES),
    "advantages": lambda: functions(ADVANTAGES),
    "keep-rules": lambda: functions(KEEP),
    "commands": commands,
    "command-options": command_options,
}


# ---- pages -----------------------------------------------------------------------------------------------


def filled(text, page):
    """Return a page's text with every table made anew.

    Raises
    ------
    SystemExit
        For a marker whose table is not known.
    """

    def table(match):
        name = match["name"]
        if name not in TABLES:
            raise SystemExit(f"{page}: no table is called {name!r}; there are {', '.join(TABLES)}")
        return f"{match[1]}\n{TABLES[name]()}\n{match[3]}"

    return MARKED.sub(table, text)


def main(argv=None):
    """Write the tables, or check them; returns the exit code."""
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("--check", action="store_true", help="change nothing; exit with 1 if stale")
    options.add_argument("--docs", type=Path, default=ROOT / "docs", help="folder of the pages")
    arguments = options.parse_args(argv)
    if not arguments.docs.is_dir():
        options.error(f"--docs {arguments.docs}: there is no such folder")
    stale = []
    for page in sorted(arguments.docs.rglob("*.md")):
        before = page.read_text(encoding="utf-8")
        after = filled(before, page)
        if after != before:
            stale.append(page)
            if not arguments.check:
                page.write_text(after, encoding="utf-8")
    for page in stale:
        print(f"{'stale' if arguments.check else 'rewritten'}: {page}")
    if arguments.check and stale:
        print(f"run `{COMMAND}` and commit what it changes", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
