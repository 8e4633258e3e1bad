"""The `cero` command: finds its subcommands, the other modules of this folder, and runs one."""

import argparse
import os
import sys
from importlib import import_module

from cero.cli.output import errors_in_one_line

COMMANDS = ("benchmark", "inspect", "regret", "report", "simulate", "study", "watch")


def parser():
    """Return the argument parser, with every subcommand."""
    top = argparse.ArgumentParser(prog="cero", description="Rollout budgets for RL post-training with verl.")
    subparsers = top.add_subparsers(dest="command", required=True)
    for name in COMMANDS:
        command = import_module(f"cero.cli.{name}")
        # In full: scripts look for options by name, before they pass them on.
        subparser = subparsers.add_parser(name, help=command.HELP, allow_abbrev=False)
        command.add_arguments(subparser)
        subparser.set_defaults(run_command=command.run)
    return top


def main(argv=None):
    """Run the command line; exit with 2 and one line on stderr for input that can't be used."""
    execute(parser().parse_args(argv))


def execute(arguments, program="cero"):
    """Call `arguments.run_command` with the arguments; exit with 2 and one line on stderr where it can't.

    arguments : of a parser that sets `run_command` and `command`, the name of the subcommand
    program : what the line begins with
    """
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # for names that the terminal's encoding lacks
    with errors_in_one_line(f"{program} {arguments.command}"):
        try:
            arguments.run_command(arguments)
            sys.stdout.flush()
        except BrokenPipeError as error:  # whoever read has seen enough, as `head` does
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            raise SystemExit(1) from error
        except KeyboardInterrupt as error:
            raise SystemExit(130) from error


if __name__ == "__main__":
    main()
