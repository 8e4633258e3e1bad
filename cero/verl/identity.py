"""Which prompt is this? An id of its content, the same in every epoch, shuffle, resumed run and file.

Neither of verl's own ids can serve: `uid` is new at each dispatch, and `index` is 0 where the data set has
none. The id is a hash of the data source, the messages (images included) and the expected answer. The same
question with another answer is another prompt. True duplicates are one prompt: they share a posterior and a
price, and each gets its own rollouts. A column `prompt_id` in the data set overrides the hash.
"""

import datetime
import decimal
import fractions
import logging
import numbers
import time
import uuid

import numpy as np
import torch

from cero.core.checks import is_whole, shown
from cero.core.prompts import prompt_id
from cero.estimators.shared import TEXT, WIDTH, slots_of_texts, slots_of_values, stacked, text_of

logger = logging.getLogger(__name__)

ID_COLUMN = "prompt_id"
# Columns of a dispatch batch, taken out before the batch reaches a worker.
IDS = "__cero_ids__"
BUCKETS = "__cero_buckets__"
AUDITED = 100_000  # rows of a data set that `audit` reads at the start of a run, at most

_BYTES = (bytes, bytearray, memoryview)
# What `repr` tells apart, whatever process it is asked in.
_PLAIN = (
    type(None),
    bool,
    int,
    float,
    complex,
    decimal.Decimal,
    fractions.Fraction,
    datetime.date,
    datetime.time,
    datetime.timedelta,
    uuid.UUID,
)


def _canonical(value):
    """Return bytes that are equal exactly when two messages (or answers) are equal, in type and structure.

    Lists, tuples and arrays with equal items are equal: which of them a data set gives depends on its file
    format. Raises ValueError for a value without stable content.
    """
    if isinstance(value, str):
        return b"s" + value.encode("utf-8", "surrogatepass")
    if isinstance(value, _BYTES):
        return b"b" + bytes(value)
    if isinstance(value, np.longdouble | np.clongdouble):
        return b"v" + repr(value).encode()  # which Python has no number for
    if isinstance(value, np.generic | np.ndarray | torch.Tensor):
        return _canonical(value.tolist())  # an array of objects holds addresses; its items have content
    if isinstance(value, _PLAIN):
        try:
            text = repr(value)
        except ValueError:  # Python does not write integers of thousands of digits
            text = hex(value)
        if " at 0x" not in text:  # a subclass that is shown by its address
            return b"v" + text.encode()
    if isinstance(value, dict):
        # Left out, since parquet fills a key that only other rows have with None.
        kept = {_canonical(key): _canonical(item) for key, item in value.items() if item is not None}
        return b"d" + _joined([part for key in sorted(kept) for part in (key, kept[key])])
    if isinstance(value, list | tuple):
        return b"l" + _joined([_canonical(item) for item in value])
    if isinstance(value, set | frozenset):
        return b"e" + _joined(sorted(_canonical(item) for item in value))
    if hasattr(value, "tobytes") and hasattr(value, "mode") and hasattr(value, "size"):  # images of PIL
        return b"a" + _joined([value.mode.encode(), repr(value.size).encode(), value.tobytes()])
    raise ValueError(
        f"a prompt holds a {type(value).__name__}, which has no stable content; "
        f"add a column {ID_COLUMN!r} to the data set"
    )


def _joined(parts):
    """Return all `parts` (list of bytes) as one bytes object, each with its length before it."""
    return b"".join(len(part).to_bytes(8, "little") + part for part in parts)


def row_prompt_id(data_source, messages, answer):
    """Return the id of one row as described above: int in [0, 2**64).

    Raises ValueError for content that has no stable bytes, or that is nested without an end.
    """
    try:
        return prompt_id(_canonical(data_source), _canonical(messages), _canonical(answer))
    except RecursionError:
        raise ValueError(
            "a prompt holds lists within lists, too deep to be read; "
            f"add a column {ID_COLUMN!r} to the data set"
        ) from None


def _answer(reward_model):
    """Return the expected answer in a row's column `reward_model`, or None."""
    return reward_model.get("ground_truth") if isinstance(reward_model, dict) else None


def is_missing(value):
    """Return whether a cell of a table holds nothing: None, nan, or what pandas and decimals have for it."""
    if isinstance(value, decimal.Decimal):
        return value.is_nan()
    missing = value is None or isinstance(value, float | np.floating) and np.isnan(value)
    return bool(missing) or type(value).__name__ in ("NAType", "NaTType")


def given_id(value):
    """Return the id that a row's own value of the column `prompt_id` stands for, or None where it has none.

    Text is hashed. A whole number in [0, 2**64) is the id itself; so is a float that is whole, as a column of
    numbers with gaps has, up to 2**53. None, nan (that of pandas and of decimals, too) and empty text are no
    id.

    Raises
    ------
    ValueError
        For anything else, naming the column and the value.
    """
    if isinstance(value, np.ndarray | torch.Tensor) and value.ndim == 0:
        value = value.tolist()
    if isinstance(value, np.generic):
        value = value.item()
    if is_missing(value) or (isinstance(value, str) and value == ""):
        return None
    if isinstance(value, str):
        return prompt_id(value)
    whole = isinstance(value, numbers.Integral | decimal.Decimal | float) and is_whole(value)
    if whole and 0 <= int(value) < (2**53 if isinstance(value, float) else 2**64):
        return int(value)
    raise ValueError(
        f"the data set's column {ID_COLUMN!r} holds {shown(value)} ({type(value).__name__}); give text or "
        "whole numbers in [0, 2**64), or leave a row without one, which is then known by its content"
    )


def batch_prompt_ids(batch):
    """Return the ids of verl's dispatch batch (TensorDict with `raw_prompt`, ...): uint64, shape (n,).

    Raises ValueError for a value of the column `prompt_id` that is no id, or for content that has none.
    """
    size = len(batch["raw_prompt"]) if "raw_prompt" in batch.keys() else len(batch[ID_COLUMN])
    given = [given_id(value) for value in batch[ID_COLUMN]] if ID_COLUMN in batch.keys() else [None] * size
    if None in given:
        sources = list(batch["data_source"]) if "data_source" in batch.keys() else [None] * size
        rewards = list(batch["reward_model"]) if "reward_model" in batch.keys() else [None] * size
        rows = zip(given, sources, list(batch["raw_prompt"]), map(_answer, rewards), strict=True)
        given = [row_prompt_id(*row) if mine is None else mine for mine, *row in rows]
    return np.array(given, dtype=np.uint64)


def in_row(row, column):
    """Return what a row (any mapping) has in `column`; None where it has nothing.

    A name with dots that is no column itself is a path: extra_info.topic is `topic` of the dict `extra_info`.
    """
    if column in row.keys():
        return row[column]
    first, _, rest = column.partition(".")
    value = row[first] if rest and first in row.keys() else None
    return in_row(value, rest) if isinstance(value, dict) else None


def slots_of_rows(rows, bucket):
    """Return the slots of the rows' buckets: int16 array, shape (n, k), -1 where a row has fewer.

    rows : sequence of mappings; bucket : algorithm.cero.bucket. Raises ValueError, naming the key, if a row
    has nothing in that column.
    """
    values = [_bucket_of(row, bucket) for row in rows]
    if bucket == TEXT:
        return slots_of_texts([text_of(value) for value in values])
    return slots_of_values([_canonical(value) for value in values])


def _bucket_of(row, bucket):
    value = in_row(row, "raw_prompt" if bucket == TEXT else bucket)
    if is_missing(value):
        what = "no raw_prompt" if bucket == TEXT else "nothing there"
        raise ValueError(
            f"algorithm.cero.bucket={bucket}: a row of data.train_files has {what}, only "
            f"{', '.join(map(str, row))}; fill it, name another column, or set algorithm.cero.bucket to null"
        )
    return value


def audited(dataset, names):
    """Return rows (each a dict) of those of the columns `names` that a data set has: AUDITED at most.

    They are evenly spaced. There are none where the data set, unlike verl's, has no rows in `dataframe`.
    """
    rows = getattr(dataset, "dataframe", None)
    names = [name for name in dict.fromkeys(names) if name in getattr(rows, "column_names", ())]
    if not names or not len(rows):
        return []
    return rows.select_columns(names).select(range(0, len(rows), -(-len(rows) // AUDITED)))


def audit(dataset, prompt_key="prompt"):
    """Warn of prompts of a data set that would be taken for one another, or could not be told apart.

    dataset : verl's, or any with rows in `dataframe`; others are not looked at. At most AUDITED rows, evenly
    spaced, are read. prompt_key : column of the messages (verl's data.prompt_key)

    Returns
    -------
    list of str, the warnings, which are logged as well
    """
    columns = getattr(getattr(dataset, "dataframe", None), "column_names", ())
    if prompt_key not in columns:
        return []
    wanted = [prompt_key, "data_source", "reward_model", ID_COLUMN, "extra_info"]
    wanted += [name for name in columns if name.endswith("_kwargs")]  # of tools, interactions, environments
    rows = audited(dataset, wanted)
    content_of, rest_of, without, clash, hidden = {}, {}, 0, [], 0
    for row in rows:
        content = row_prompt_id(row.get("data_source"), row[prompt_key], _answer(row.get("reward_model")))
        given = given_id(row.get(ID_COLUMN))
        without += given is None
        if given is not None:
            if content_of.setdefault(given, content) != content:
                clash.append(row[ID_COLUMN])
            continue
        # The place of a row in its file is no part of its task.
        extra = row.get("extra_info")
        if isinstance(extra, dict):
            extra = {key: value for key, value in extra.items() if key not in ("index", "split")}
        rest = _canonical([extra or None, *(row.get(name) for name in columns if name.endswith("_kwargs"))])
        hidden += rest_of.setdefault(content, rest) != rest
    warnings = []
    if clash:
        warnings.append(
            f"{len(clash)} rows have a {ID_COLUMN} that another question has too, e.g. {clash[0]!r}: they "
            "count as one prompt; make the ids distinct across files, e.g. with the file's name before them"
        )
    if ID_COLUMN in columns and without:
        warnings.append(
            f"{without} of {len(rows)} rows have no {ID_COLUMN}: they are known by their content (source, "
            "messages, answer)"
        )
    if hidden:
        warnings.append(
            f"{hidden} rows have the source, messages and answer of another row and differ from it in "
            "extra_info or columns like tools_kwargs only: they count as one prompt; if these are tasks of "
            f"their own, add a column {ID_COLUMN!r} to the data set"
        )
    for warning in warnings:
        logger.warning("cero: %s", warning)
    return warnings


class CollateWithIds:
    """Collate rows as verl's function `collate` does, and add each prompt's id and, if asked, its buckets.

    This runs where the data is loaded, mostly in other processes and ahead of the step, so that hashing costs
    the step nothing; and the rows are still plain dicts there.

    bucket : algorithm.cero.bucket
    """

    def __init__(self, collate, bucket=None):
        self.collate, self.bucket = collate, bucket
        self.seconds = 0.0  # spent on ids and buckets in this process

    def __call__(self, rows):
        batch = self.collate(rows)
        started = time.perf_counter()
        absent = [None] * len(rows)
        ids = batch_prompt_ids({"data_source": absent, "reward_model": absent} | batch)
        batch[IDS] = torch.from_numpy(ids.view(np.int64))  # torch knows uint64 by name only
        if self.bucket is not None:
            # verl joins batches, so all have the same columns, however long their texts are.
            whole = np.zeros((0, WIDTH if self.bucket == TEXT else 1), np.int16)
            batch[BUCKETS] = torch.from_numpy(stacked([slots_of_rows(rows, self.bucket), whole]))
        self.seconds += time.perf_counter() - started
        return batch
