"""Turns words of the command line into values, for argparse."""


def words(text):
    """A comma list of words, for argparse."""
    return text.split(",")


def numbers(text):
    """A comma list of whole numbers, for argparse."""
    return [int(word) for word in text.split(",")]
