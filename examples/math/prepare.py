r"""Downloads questions with answers from the Hugging Face hub and writes them as verl reads them.

    python examples/math/prepare.py --out data/math                                  # DAPO-Math-17k
    python examples/math/prepare.py --out data/math --train math --levels 3 4 5      # MATH, harder levels

Writes train.parquet and one file per validation set: math500.parquet, aime24.parquet, amc23.parquet. Columns, the
same in all files: data_source, prompt (messages), ability, reward_model {style, ground_truth} and extra_info {index,
split, source_id}. A prompt is the question and a request for \boxed{}, which examples/math/reward.py looks for.

- DAPO-Math-17k is on the hub with each question about a hundred times (1.79 million rows). Repeats are dropped by
  content, or one "epoch" would visit a question a hundred times and a rollout budget per prompt mean little.
- Questions with more than one answer are dropped: one of the answers is wrong, and we don't know which.
- Training questions that are word for word in a validation set are dropped.

Written where no hub could be reached: the loading was never run. Column names are those of the data sets' cards and of
code that uses them (MATH-500: problem, answer, unique_id; AIME: problem, answer, id; AMC: question, answer, id; MATH:
problem, level, solution; DAPO: prompt, reward_model, extra_info). A column that is missing is an error naming those
there are. Not known: AMC's type of answer (text and numbers are both taken) and whether every question of DAPO
has the wording removed here (the number that hasn't is printed).
"""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from reward import last_boxed

SUFFIX = "\n\nPlease reason step by step, and put your final answer within \\boxed{}."

# DAPO's own request for another answer format, around every question.
DAPO_BEFORE = (
    "Solve the following math problem step by step. The last line of your response should be of the form Answer: "
    "$Answer (without quotes) where $Answer is the answer to the problem."
)
DAPO_AFTER = 'Remember to put your answer on its own line after "Answer:".'

SCHEMA = pa.schema(
    {
        "data_source": pa.string(),
        "prompt": pa.list_(pa.struct({"role": pa.string(), "content": pa.string()})),
        "ability": pa.string(),
        "reward_model": pa.struct({"style": pa.string(), "ground_truth": pa.string()}),
        "extra_info": pa.struct({"index": pa.int64(), "split": pa.string(), "source_id": pa.string()}),
    }
)


@dataclass(frozen=True)
class Item:
    """A question, its answer (LaTeX without a box), and what the source calls it."""

    question: str
    answer: str
    source_id: str = ""


# ---- one row of a source -> Item, or None where the row has no usable answer ------------------------------------


def from_dapo(row):
    """DAPO-Math-17k, in verl's layout already; its own wording around the question is removed."""
    question = row["prompt"][0]["content"].strip().removeprefix(DAPO_BEFORE).removesuffix(DAPO_AFTER).strip()
    return _item(question, row["reward_model"]["ground_truth"], row["extra_info"]["index"])


def from_math(row, levels=None):
    r"""MATH: the answer is the last \boxed{} of the solution. None if its level is not among `levels` (ints)."""
    if levels and row["level"].removeprefix("Level ") not in {str(level) for level in levels}:
        return None
    return _item(row["problem"], last_boxed(row["solution"]))


def from_math500(row):
    return _item(row["problem"], row["answer"], row["unique_id"])


def from_aime24(row):
    return _item(row["problem"], row["answer"], row["id"])


def from_amc23(row):
    return _item(row["question"], row["answer"], row["id"])


def _item(question, answer, source_id=""):
    if isinstance(answer, float) and answer.is_integer():
        answer = int(answer)
    question, answer = question.strip(), "" if answer is None else str(answer).strip()
    return Item(question, answer, str(source_id)) if question and answer else None


@dataclass(frozen=True)
class Source:
    """A data set on the hub: its name there, the split, the conversion of a row, and our data_source."""

    hub: str
    split: str
    convert: callable
    data_source: str


TRAIN = {
    "dapo": Source("BytedTsinghua-SIA/DAPO-Math-17k", "train", from_dapo, "math_dapo"),
    "math": Source("DigitalLearningGmbH/MATH-lighteval", "train", from_math, "math"),
}
VALIDATION = {
    "math500": Source("HuggingFaceH4/MATH-500", "test", from_math500, "math500"),
    "aime24": Source("HuggingFaceH4/aime_2024", "train", from_aime24, "aime24"),  # its only split
    "amc23": Source("math-ai/amc23", "test", from_amc23, "amc23"),
}


# ---- many items -------------------------------------------------------------------------------------------------


def question_key(question):
    """Equal for questions that differ in white space or case only."""
    return " ".join(question.lower().split())


def unique(items):
    """The first of each question, in order, without those that come with different answers. Returns a list."""
    first, disputed = {}, set()
    for item in items:
        key = question_key(item.question)
        if first.setdefault(key, item).answer != item.answer:
            disputed.add(key)
    return [item for key, item in first.items() if key not in disputed]


def without(items, held_out):
    """Those of `items` whose question is not among `held_out`'s. Returns a list."""
    keys = {question_key(item.question) for item in held_out}
    return [item for item in items if question_key(item.question) not in keys]


def to_row(item, index, data_source, split, suffix=SUFFIX):
    """An Item as a row of verl's; `index` is its position in the file."""
    return {
        "data_source": data_source,
        "prompt": [{"role": "user", "content": item.question + suffix}],
        "ability": "math",
        "reward_model": {"style": "rule", "ground_truth": item.answer},
        "extra_info": {"index": index, "split": split, "source_id": item.source_id},
    }


def write(items, path, data_source, split, suffix=SUFFIX):
    """Write Items to a parquet file."""
    rows = [to_row(item, index, data_source, split, suffix) for index, item in enumerate(items)]
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), path)
    print(f"{path}: {len(rows)} questions")


# ---- the hub ----------------------------------------------------------------------------------------------------


def load(source, **options):
    """Items of a Source, rows without a usable answer left out.

    Raises
    ------
    SystemExit
        If the hub cannot be reached, or the data set's columns are not those expected.
    """
    from datasets import load_dataset

    try:
        rows = load_dataset(source.hub, split=source.split)
    except OSError as error:  # no connection, no such data set, no access: all are OSErrors
        raise SystemExit(
            f"prepare.py: could not load {source.hub} from the Hugging Face hub: {error}\n"
            "This needs a network connection to the hub or to a mirror (HF_ENDPOINT), or a cache (HF_HOME) that "
            "already holds the data set."
        ) from error
    try:
        items = [source.convert(row, **options) for row in rows]
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise SystemExit(
            f"prepare.py: {source.hub} is not laid out as expected ({type(error).__name__}: {error}); it has the "
            f"columns {', '.join(rows.column_names)}. See {source.convert.__name__} in this file."
        ) from error
    kept = [item for item in items if item is not None]
    print(f"{source.hub}: {len(items)} rows, {len(items) - len(kept)} of them left out")
    return kept


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for the parquet files")
    parser.add_argument("--train", choices=TRAIN, default="dapo", help="training set (default: dapo)")
    parser.add_argument("--levels", type=int, nargs="+", choices=range(1, 6), help="only these levels of --train math")
    parser.add_argument("--validation", choices=VALIDATION, nargs="+", default=list(VALIDATION), help="default: all")
    parser.add_argument("--suffix", default=SUFFIX, help="what is added to each question (default: %(default)r)")
    return parser


def main(argv=None):
    parser = arguments()
    args = parser.parse_args(argv)
    if args.levels and args.train != "math":
        parser.error("--levels goes with --train math: DAPO-Math-17k has no levels")
    args.out.mkdir(parents=True, exist_ok=True)
    held_out = []
    for name in args.validation:
        source = VALIDATION[name]
        items = load(source)
        write(items, args.out / f"{name}.parquet", source.data_source, "test", args.suffix)
        held_out += items
    source = TRAIN[args.train]
    items = load(source, **({"levels": args.levels} if args.levels else {}))
    different = unique(items)
    kept = without(different, held_out)
    print(f"training: {len(different)} different questions, {len(different) - len(kept)} are in a validation set")
    worded = sum("Answer:" in item.question for item in kept)
    if args.train == "dapo" and worded:
        print(f"warning: {worded} questions still ask for 'Answer:'", file=sys.stderr)
    write(kept, args.out / "train.parquet", source.data_source, "train", args.suffix)


if __name__ == "__main__":
    main()
