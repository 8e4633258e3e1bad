"""What does a question look like to the warm start, to verl and to the report? Shared by such tasks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Item:
    """One question with the two responses that compete."""

    family: str
    question: str
    answer: str  # the right one, as the reward function gets it
    slip: str  # the wrong one
    responses: tuple[str, str]  # in full, working included: (slip, right)
    share: float  # of the right response in the second part of the warm start


def known_forms(item: Item) -> list[str]:
    """Return the forms of the right response that either procedure can lead to, sorted.

    They are the right response in full, the bare answer, and the answer after the working of either
    procedure. The reward function accepts the answer after any other working, too.
    """
    workings = [text[: text.index(")") + 1] for text in item.responses if text.startswith("(")]
    return sorted({item.responses[1], item.answer, *(working + item.answer for working in workings)})


def make_rows(items: list[Item], split: str, data_source: str, ability: str) -> list[dict]:
    """Return one dict per question, as verl's RLHFDataset reads it."""
    return [
        {
            "data_source": data_source,
            "prompt": [{"role": "user", "content": item.question}],
            "ability": ability,
            "reward_model": {"style": "rule", "ground_truth": item.answer},
            "extra_info": {
                "split": split,
                "index": i,
                "family": item.family,
                "slip": item.slip,
                "forms": known_forms(item),
            },
        }
        for i, item in enumerate(items)
    ]


def write_parquet(rows: list[dict], path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(rows), path)
