"""`cero watch`: how far is a run?"""

from cero.cli.arguments import at_least_one

HELP = "show the progress of a run while it trains"


def add_arguments(parser):
    parser.add_argument("run", help="the run's folder (verl's trainer.default_local_dir)")
    parser.add_argument("--pid", type=at_least_one, required=True, help="process to wait for, main_ppo's")


def run(arguments):
    from cero.analysis.watch import watch

    watch(arguments.run, arguments.pid)
