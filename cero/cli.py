"""The `cero` command: finds its subcommands in `cero.commands` and runs one."""

import argparse
import sys
from importlib import import_module
from pkgutil import iter_modules

from cero import commands


def parser():
    """The argument parser, with every subcommand."""
    top = argparse.ArgumentParser(prog="cero", description="Rollout budgets for RL post-training with verl.")
    subparsers = top.add_subparsers(dest="command", required=True)
    for found in iter_modules(commands.__path__):
        command = import_module(f"{commands.__name__}.{found.name}")
        subparser = subparsers.add_parser(found.name, help=command.HELP)
        command.add_arguments(subparser)
        subparser.set_defaults(run_command=command.run)
    return top


def main(argv=None):
    """Run the command line; exits with 2 and one line on stderr for input that can't be used."""
    arguments = parser().parse_args(argv)
    try:
        arguments.run_command(arguments)
    except (FileNotFoundError, ValueError) as error:
        print(f"cero {arguments.command}: {error}", file=sys.stderr)
        raise SystemExit(2) from error


if __name__ == "__main__":
    main()
