"""The `cero` command: finds its subcommands, the other modules of this folder, and runs one."""

import argparse
import sys
from importlib import import_module

COMMANDS = ("benchmark", "inspect", "regret", "report", "simulate", "study", "watch")


def parser():
    """Return the argument parser, with every subcommand."""
    top = argparse.ArgumentParser(prog="cero", description="Rollout budgets for RL post-training with verl.")
    subparsers = top.add_subparsers(dest="command", required=True)
    for name in COMMANDS:
        command = import_module(f"cero.cli.{name}")
        subparser = subparsers.add_parser(name, help=command.HELP)
        command.add_arguments(subparser)
        subparser.set_defaults(run_command=command.run)
    return top


def main(argv=None):
    """Run the command line; exit with 2 and one line on stderr for input that can't be used."""
    arguments = parser().parse_args(argv)
    try:
        arguments.run_command(arguments)
    except (FileNotFoundError, ValueError) as error:
        print(f"cero {arguments.command}: {error}", file=sys.stderr)
        raise SystemExit(2) from error


if __name__ == "__main__":
    main()
