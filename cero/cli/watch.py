"""`cero watch`: how far is a run?"""

HELP = "show the progress of a run while it trains"


def add_arguments(parser):
    parser.add_argument("run", help="the run's folder (verl's trainer.default_local_dir)")
    parser.add_argument("--pid", type=int, required=True, help="process to wait for: the one of main_ppo")


def run(arguments):
    from cero.analysis.watch import watch

    watch(arguments.run, arguments.pid)
