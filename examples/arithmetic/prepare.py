"""Make what the quickstart trains on: questions, a tiny model with latent capability, and a report.

    python examples/arithmetic/prepare.py --out data/arithmetic

writes into --out

    train.parquet, test.parquet   questions in verl's layout
    train_sample.parquet          the first 240 train questions, to validate on
    model/                        a Llama of 0.4M parameters with its tokenizer, warm-started in half a minute
    latent.json, latent.png       its success probabilities on the train prompts
    stamp.json                    what it was made with

A finished folder made with the same settings is left as it is; see folder.py.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import folder  # noqa: E402 (it lies beside this file, which need not be on the path)


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    folder.add_settings(parser)
    parser.add_argument("--mixed", action="store_true", help="in half of the families the slip shows working")
    parser.add_argument(
        "--practice", action="store_true", help="the warm start sees all other questions, too"
    )
    return parser.parse_args(argv)


def make_items(arguments: argparse.Namespace) -> tuple[list, list, list]:
    """Return train and held-out questions, and with --practice all others for the warm start only."""
    from items import Item
    from questions import make_families, make_splits

    families = make_families(arguments.seed, arguments.lowest, arguments.highest, arguments.mixed)

    def item(f: int, n: int) -> Item:
        family = families[f]
        responses = (family.response(n, right=False), family.response(n, right=True))
        answers = (str(family.right(n)), str(family.slip(n)))
        return Item(family.name, family.question(n), *answers, responses, family.share)

    splits = make_splits(families, arguments.seed, arguments.train, arguments.test)
    train, test = ([item(f, n) for f, n in zip(s.family.tolist(), s.n.tolist(), strict=True)] for s in splits)
    asked = {(each.family, each.question) for each in train + test}
    every = [item(f, n) for f, family in enumerate(families) for n in family.operands().tolist()]
    practice = (
        [each for each in every if (each.family, each.question) not in asked] if arguments.practice else []
    )
    return train, test, practice


def compute_score():
    from reward import compute_score

    return compute_score


TASK = folder.Task(
    data_source="cero/arithmetic",
    ability="math",
    pieces=(*"0123456789+-*^()", " mod ", " = "),
    max_response=8,  # the longest is "(792)92<eos>"
    sources=tuple(HERE / name for name in ("prepare.py", "questions.py", "reward.py")),
    make_items=make_items,
    compute_score=compute_score,
)

if __name__ == "__main__":
    folder.prepare(TASK, parse_arguments())
