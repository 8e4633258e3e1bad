r"""Download questions with answers from the Hugging Face hub and write them as verl reads them.

    python examples/math/prepare.py --out data/math                                  # DAPO-Math-17k
    python examples/math/prepare.py --out data/math --train math --levels 3 4 5      # MATH, harder levels

It writes train.parquet and one file per validation set, each a data_source of its own: aime24, aime25, amc23,
math500, minerva, olympiad. All have the columns data_source, prompt (messages), ability, reward_model {style,
ground_truth} and extra_info {index, split, source_id}. Validation files also have `__rollout_n__`: how often
verl answers the question when it validates. That is 32 times in the small sets (AIME, AMC) and 4 times in the
large ones, so that verl reports mean@32 and mean@4. A prompt is Qwen2.5-Math's own: its system message, which
asks for \boxed{} (examples/math/reward.py looks for it), and the bare question.

- The hub's DAPO-Math-17k has each question about a hundred times (1.79 million rows). Repeats are dropped by
content.
  Otherwise one "epoch" would visit a question a hundred times, and a budget of rollouts per prompt would mean
  little.
- Questions with more than one answer are dropped: one of the answers is wrong, and nobody knows which.
- Training questions that are word for word in a validation set are dropped.

The loading was never run, because no hub could be reached where this was written. Column names are those of
the data sets' cards and of public code that uses them (MATH-500: problem, answer, unique_id; AIME: problem,
answer, id; AMC and Minerva: question, answer; OlympiadBench: question, context, final_answer, image_1, ...;
MATH: problem, level, solution; DAPO: prompt, reward_model, extra_info). A missing column is an error that
names those there are. Two things are not known: AMC's type of answer (text and numbers are both taken), and
whether every question of DAPO has the wording that is removed here (the number of those without it is
printed). The tolerances that OlympiadBench gives for a few answers (`error`) are not used.
"""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from reward import last_boxed

from cero.cli.arguments import at_least_one

# The system message of Qwen2.5-Math's chat template.
SYSTEM = "Please reason step by step, and put your final answer within \\boxed{}."

# DAPO's own request for another answer format, around every question.
DAPO_BEFORE = (
    "Solve the following math problem step by step. The last line of your response should be of the form "
    "Answer: $Answer (without quotes) where $Answer is the answer to the problem."
)
DAPO_AFTER = 'Remember to put your answer on its own line after "Answer:".'

FIELDS = {
    "data_source": pa.string(),
    "prompt": pa.list_(pa.struct({"role": pa.string(), "content": pa.string()})),
    "ability": pa.string(),
    "reward_model": pa.struct({"style": pa.string(), "ground_truth": pa.string()}),
    "extra_info": pa.struct({"index": pa.int64(), "split": pa.string(), "source_id": pa.string()}),
}
ROLLOUTS = "__rollout_n__"  # verl's name for it


@dataclass(frozen=True)
class Item:
    """A question, its answer (LaTeX without a box), and what the source calls it."""

    question: str
    answer: str
    source_id: str = ""


# ---- one row of a source -> Item, or None where the row has no usable answer ---------------------


def from_dapo(row):
    """Convert a row of DAPO-Math-17k, without that data set's own wording around the question."""
    question = row["prompt"][0]["content"].strip().removeprefix(DAPO_BEFORE).removesuffix(DAPO_AFTER).strip()
    return _item(question, row["reward_model"]["ground_truth"], row["extra_info"]["index"])


def from_math(row, levels=None):
    r"""Convert a row of MATH, or return None if its level is not among `levels` (ints).

    The answer is the last \boxed{} of the solution.
    """
    if levels and row["level"].removeprefix("Level ") not in {str(level) for level in levels}:
        return None
    return _item(row["problem"], last_boxed(row["solution"]))


def from_math500(row):
    return _item(row["problem"], row["answer"], row["unique_id"])


def from_aime24(row):
    return _item(row["problem"], row["answer"], row["id"])


def from_aime25(row):
    return _item(row["problem"], row["answer"], row["id"])


def from_amc23(row):
    return _item(row["question"], row["answer"], row["id"])


def from_minerva(row):
    """Convert a row of Minerva Math, questions of MIT's OpenCourseWare without a number."""
    return _item(row["question"], row["answer"])


def from_olympiad(row):
    """Convert a row of OlympiadBench's open-ended English maths, or return None if it has pictures.

    Several answers become a list.
    """
    if row["image_1"] is not None:
        return None
    question = "\n".join(part for part in (row["context"], row["question"]) if part)
    answer = ", ".join(part.strip().strip("$") for part in row["final_answer"] or [])
    return _item(question, answer, row["id"])


def _item(question, answer, source_id=""):
    if isinstance(answer, float) and answer.is_integer():
        answer = int(answer)
    question, answer = question.strip(), "" if answer is None else str(answer).strip()
    return Item(question, answer, str(source_id)) if question and answer else None


@dataclass(frozen=True)
class Source:
    """A data set on the hub."""

    hub: str  # its name there
    split: str
    convert: callable  # a row -> Item, or None
    data_source: str  # its name in verl's metrics
    subset: str | None = None  # None: it has only one
    samples: int = 4  # how often verl answers each question when it validates


TRAIN = {
    "dapo": Source("BytedTsinghua-SIA/DAPO-Math-17k", "train", from_dapo, "math_dapo"),
    "math": Source("DigitalLearningGmbH/MATH-lighteval", "train", from_math, "math"),
}
SMALL = 32  # samples a question, where there are few questions
VALIDATION = {
    # AIME 2024 has no other split.
    "aime24": Source("HuggingFaceH4/aime_2024", "train", from_aime24, "aime24", samples=SMALL),
    "aime25": Source("math-ai/aime25", "test", from_aime25, "aime25", samples=SMALL),
    "amc23": Source("math-ai/amc23", "test", from_amc23, "amc23", samples=SMALL),
    "math500": Source("HuggingFaceH4/MATH-500", "test", from_math500, "math500"),
    "minerva": Source("math-ai/minervamath", "test", from_minerva, "minerva"),
    "olympiad": Source(
        "Hothan/OlympiadBench", "train", from_olympiad, "olympiad", subset="OE_TO_maths_en_COMP"
    ),
}


# ---- many items ----------------------------------------------------------------------------------


def question_key(question):
    """Return a key that is equal for questions that differ in white space or case only."""
    return " ".join(question.lower().split())


def unique(items):
    """Return the first Item of each question, in order, without questions that have different answers."""
    first, disputed = {}, set()
    for item in items:
        key = question_key(item.question)
        if first.setdefault(key, item).answer != item.answer:
            disputed.add(key)
    return [item for key, item in first.items() if key not in disputed]


def without(items, held_out):
    """Return those of `items` whose question is not in `held_out`."""
    keys = {question_key(item.question) for item in held_out}
    return [item for item in items if question_key(item.question) not in keys]


def messages(question, system=SYSTEM, suffix=""):
    """Return a prompt: a list of messages.

    There is no system message if `system` is empty; the model's template may add its own then.
    """
    asked = [{"role": "user", "content": question + suffix}]
    return [{"role": "system", "content": system}, *asked] if system else asked


def to_row(item, index, data_source, split, samples=None, **wording):
    """Return an Item as a row for verl; `index` is its place in the file, `samples` a Source's, or None."""
    row = {
        "data_source": data_source,
        "prompt": messages(item.question, **wording),
        "ability": "math",
        "reward_model": {"style": "rule", "ground_truth": item.answer},
        "extra_info": {"index": index, "split": split, "source_id": item.source_id},
    }
    return row if samples is None else row | {ROLLOUTS: samples}


def write(items, path, data_source, split, samples=None, **wording):
    """Write Items to a parquet file."""
    rows = [to_row(item, index, data_source, split, samples, **wording) for index, item in enumerate(items)]
    fields = FIELDS if samples is None else FIELDS | {ROLLOUTS: pa.int64()}
    pq.write_table(pa.Table.from_pylist(rows, schema=pa.schema(fields)), path)
    print(f"{path}: {len(rows)} questions" + ("" if samples is None else f", {samples} samples each"))


# ---- the hub -------------------------------------------------------------------------------------


def load(source, **options):
    """Return the Items of a Source, without the rows that have no usable answer.

    Raises
    ------
    SystemExit
        If the hub cannot be reached, or the data set's columns are not those expected.
    """
    from datasets import load_dataset

    try:
        rows = load_dataset(source.hub, source.subset, split=source.split)
    except OSError as error:  # no connection, no such data set, no access: all are OSErrors
        raise SystemExit(
            f"prepare.py: could not load {source.hub} from the Hugging Face hub: {error}\n"
            "This needs a network connection to the hub or to a mirror (HF_ENDPOINT), or a cache (HF_HOME) "
            "that already holds the data set."
        ) from error
    try:
        items = [source.convert(row, **options) for row in rows]
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise SystemExit(
            f"prepare.py: {source.hub} is not laid out as expected ({type(error).__name__}: {error}); it has "
            f"the columns {', '.join(rows.column_names)}. See {source.convert.__name__} in this file."
        ) from error
    kept = [item for item in items if item is not None]
    print(f"{source.hub}: {len(items)} rows, {len(items) - len(kept)} of them left out")
    return kept


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for the parquet files")
    parser.add_argument("--train", choices=TRAIN, default="dapo", help="training set (default: dapo)")
    parser.add_argument(
        "--levels", type=int, nargs="+", choices=range(1, 6), help="only these levels of --train math"
    )
    parser.add_argument(
        "--validation", choices=VALIDATION, nargs="+", default=list(VALIDATION), help="default: all"
    )
    parser.add_argument("--system", default=SYSTEM, help="system message, '' for none (default: %(default)r)")
    parser.add_argument("--suffix", default="", help="what is added to each question (default: nothing)")
    parser.add_argument(
        "--samples", type=at_least_one, help="samples a question in every validation set (default: 32 or 4)"
    )
    return parser


def main(argv=None):
    parser = arguments()
    args = parser.parse_args(argv)
    if args.levels and args.train != "math":
        parser.error("--levels goes with --train math: DAPO-Math-17k has no levels")
    wording = {"system": args.system, "suffix": args.suffix}
    args.out.mkdir(parents=True, exist_ok=True)
    held_out = []
    for name in args.validation:
        source = VALIDATION[name]
        items = load(source)
        write(
            items,
            args.out / f"{name}.parquet",
            source.data_source,
            "test",
            args.samples or source.samples,
            **wording,
        )
        held_out += items
    source = TRAIN[args.train]
    items = load(source, **({"levels": args.levels} if args.levels else {}))
    different = unique(items)
    kept = without(different, held_out)
    print(
        f"training: {len(different)} different questions, "
        f"{len(different) - len(kept)} are in a validation set"
    )
    worded = sum("Answer:" in item.question for item in kept)
    if args.train == "dapo" and worded:
        print(f"warning: {worded} questions still ask for 'Answer:'", file=sys.stderr)
    write(kept, args.out / "train.parquet", source.data_source, "train", **wording)


if __name__ == "__main__":
    main()
