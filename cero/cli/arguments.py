"""How do words of the command line become values? Types for argparse."""


def words(text):
    """Return a comma list of words as a list of str."""
    return text.split(",")


def numbers(text):
    """Return a comma list of whole numbers as a list of int."""
    return [int(word) for word in text.split(",")]
