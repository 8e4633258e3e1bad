"""Make a second task for two CPU cores: string procedures, a tiny model with latent capability, and a report.

    python examples/letters/prepare.py --out data/letters

writes into --out what examples/arithmetic/prepare.py writes, by the same code: train.parquet, test.parquet,
train_sample.parquet, model/, latent.json, latent.png, stamp.json. Another --seed is another test: the strings
are others, and the families' shares and frequencies are dealt anew. --more adds train questions and changes
no other question. A finished folder made with the same settings is left as it is.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from cero.cli.arguments import at_least_zero

HERE = Path(__file__).resolve().parent
# Questions and reward are this task's own, the rest is shared.
sys.path[:0] = [str(HERE), str(HERE.parent / "arithmetic")]

import folder  # noqa: E402 (it lies in the other example)

WORDS = ("next", "turn", "mirror", "rank", "sort", "swap", "cut", "drop", "count", "move")


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    folder.add_settings(parser, lowest=0.01, steps=1200)
    parser.add_argument(
        "--practice", type=at_least_zero, default=2400, help="further questions, for the warm start only"
    )
    parser.add_argument(
        "--more",
        type=at_least_zero,
        default=0,
        help="further train questions, which the warm start does not see",
    )
    return parser.parse_args(argv)


def make_items(arguments: argparse.Namespace) -> tuple[list, list, list]:
    """Return train, held-out and practice questions. Those of --more come last among the train questions."""
    from items import Item
    from questions import make_families, make_more, make_splits

    def item(family, s: str) -> Item:
        responses = (family.response(s, right=False), family.response(s, right=True))
        return Item(
            family.name, family.question(s), family.right(s), family.slip(s), responses, family.share_of(s)
        )

    families = make_families(arguments.seed, arguments.lowest, arguments.highest)
    splits = make_splits(families, arguments.seed, arguments.train, arguments.test, arguments.practice)
    more = make_more(families, arguments.seed, arguments.more, splits)
    train, test, practice, more = ([item(*drawn) for drawn in split] for split in (*splits, more))
    return train + more, test, practice


def compute_score():
    from reward import compute_score

    return compute_score


TASK = folder.Task(
    data_source="cero/letters",
    ability="strings",
    pieces=(*"abcdefgh", *"0123456789()", *(f" {word} " for word in WORDS), " = "),
    max_response=14,  # the longest is "(abcde)edcbaf<eos>"
    sources=tuple(HERE / name for name in ("prepare.py", "questions.py", "reward.py")),
    make_items=make_items,
    compute_score=compute_score,
)

if __name__ == "__main__":
    folder.prepare(TASK, parse_arguments())
