"""The subcommands of `cero`: one module each, with HELP, `add_arguments(parser)` and `run(arguments)`."""


def words(text):
    """A comma list of words, for argparse."""
    return text.split(",")


def numbers(text):
    """A comma list of whole numbers, for argparse."""
    return [int(word) for word in text.split(",")]
