"""Which prompt is this? A content id that survives epochs, shuffles, resumes and several files.

verl's `uid` is fresh at each dispatch and its `index` is 0 where the data set has none, so neither will do.
The id hashes the data source, the messages (images included) and the expected answer: the same question with
another answer is another prompt; true duplicates are one prompt, sharing posterior and price, each with its
own rollouts. A column `prompt_id` in the data set overrides it.
"""

import time

import numpy as np
import torch

from cero.core.prompts import as_prompt_ids, prompt_id

ID_COLUMN = "prompt_id"
IDS = "__cero_ids__"  # column of a dispatch batch that no worker sees


_BYTES, _PLAIN, _SEQUENCES = (bytes, bytearray), (type(None), bool, int, float, np.generic), (list, tuple)


def _canonical(value):
    """Bytes that are equal exactly when two messages (or answers) are: types and structure are kept apart."""
    if isinstance(value, str):
        return b"s" + value.encode("utf-8", "surrogatepass")
    if isinstance(value, _BYTES):
        return b"b" + bytes(value)
    if isinstance(value, _PLAIN):
        return b"v" + repr(value.item() if isinstance(value, np.generic) else value).encode()
    if isinstance(value, dict):
        # None entries are how parquet fills keys that other rows have.
        parts = [
            p for k in sorted(value) if value[k] is not None for p in (_canonical(k), _canonical(value[k]))
        ]
        return b"d" + _joined(parts)
    if isinstance(value, _SEQUENCES):
        return b"l" + _joined([_canonical(item) for item in value])
    if hasattr(value, "tobytes") and hasattr(value, "size"):  # PIL images and arrays
        kind = getattr(value, "mode", None) or str(getattr(value, "dtype", ""))
        return b"a" + _joined(
            [kind.encode(), repr(getattr(value, "shape", value.size)).encode(), value.tobytes()]
        )
    raise ValueError(
        f"a prompt holds a {type(value).__name__}, which has no stable content; "
        f"add a column {ID_COLUMN!r} to the data set"
    )


def _joined(parts):
    return b"".join(len(part).to_bytes(8, "little") + part for part in parts)


def row_prompt_id(data_source, messages, answer):
    """Id of one row; see the module's text. Returns int in [0, 2**64)."""
    return prompt_id(_canonical(data_source), _canonical(messages), _canonical(answer))


def batch_prompt_ids(batch):
    """Ids of a dispatch batch of verl's (TensorDict with `raw_prompt`, ...); uint64, shape (len(batch),)."""
    if ID_COLUMN in batch.keys():
        return as_prompt_ids([value if isinstance(value, str) else int(value) for value in batch[ID_COLUMN]])
    size = len(batch)
    sources = list(batch["data_source"]) if "data_source" in batch.keys() else [None] * size
    rewards = list(batch["reward_model"]) if "reward_model" in batch.keys() else [None] * size
    answers = [reward.get("ground_truth") if isinstance(reward, dict) else None for reward in rewards]
    rows = zip(sources, list(batch["raw_prompt"]), answers, strict=True)
    return np.array([row_prompt_id(*row) for row in rows], dtype=np.uint64)


class CollateWithIds:
    """A collate function of verl's, and each prompt's id.

    Where the data is loaded, mostly by other processes and ahead of the step, its rows are still plain dicts.
    """

    def __init__(self, collate):
        self.collate, self.seconds = collate, 0.0  # spent on ids in this process

    def __call__(self, rows):
        batch = self.collate(rows)
        started = time.perf_counter()
        absent = [None] * len(rows)
        ids = batch_prompt_ids({"data_source": absent, "reward_model": absent} | batch)
        batch[IDS] = torch.from_numpy(ids.view(np.int64))  # torch knows uint64 by name only
        self.seconds += time.perf_counter() - started
        return batch
