"""Which prompt is this? An id of its content, the same in every epoch, shuffle, resumed run and file.

Neither of verl's own ids can serve: `uid` is new at each dispatch, and `index` is 0 where the data set has
none. The id is a hash of the data source, the messages (images included) and the expected answer. The same
question with another answer is another prompt. True duplicates are one prompt: they share a posterior and a
price, and each gets its own rollouts. A column `prompt_id` in the data set overrides the hash.
"""

import time

import numpy as np
import torch

from cero.core.prompts import as_prompt_ids, prompt_id

ID_COLUMN = "prompt_id"
IDS = "__cero_ids__"  # column of a dispatch batch, taken out before the batch reaches a worker


_BYTES, _PLAIN, _SEQUENCES = (bytes, bytearray), (type(None), bool, int, float, np.generic), (list, tuple)


def _canonical(value):
    """Return bytes that are equal exactly when two messages (or answers) are equal, in type and structure.

    Raises ValueError for a value without stable content.
    """
    if isinstance(value, str):
        return b"s" + value.encode("utf-8", "surrogatepass")
    if isinstance(value, _BYTES):
        return b"b" + bytes(value)
    if isinstance(value, _PLAIN):
        return b"v" + repr(value.item() if isinstance(value, np.generic) else value).encode()
    if isinstance(value, dict):
        # Left out, since parquet fills a key that only other rows have with None.
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
    """Return all `parts` (list of bytes) as one bytes object, each with its length before it."""
    return b"".join(len(part).to_bytes(8, "little") + part for part in parts)


def row_prompt_id(data_source, messages, answer):
    """Return the id of one row as described above: int in [0, 2**64)."""
    return prompt_id(_canonical(data_source), _canonical(messages), _canonical(answer))


def batch_prompt_ids(batch):
    """Return the ids of verl's dispatch batch (TensorDict with `raw_prompt`, ...): uint64, shape (n,)."""
    if ID_COLUMN in batch.keys():
        return as_prompt_ids([value if isinstance(value, str) else int(value) for value in batch[ID_COLUMN]])
    size = len(batch)
    sources = list(batch["data_source"]) if "data_source" in batch.keys() else [None] * size
    rewards = list(batch["reward_model"]) if "reward_model" in batch.keys() else [None] * size
    answers = [reward.get("ground_truth") if isinstance(reward, dict) else None for reward in rewards]
    rows = zip(sources, list(batch["raw_prompt"]), answers, strict=True)
    return np.array([row_prompt_id(*row) for row in rows], dtype=np.uint64)


class CollateWithIds:
    """Collate rows as verl's function `collate` does, and add each prompt's id.

    This runs where the data is loaded, mostly in other processes and ahead of the step, so that hashing costs
    the step nothing; and the rows are still plain dicts there.
    """

    def __init__(self, collate):
        self.collate, self.seconds = collate, 0.0  # seconds spent on ids in this process

    def __call__(self, rows):
        batch = self.collate(rows)
        started = time.perf_counter()
        absent = [None] * len(rows)
        ids = batch_prompt_ids({"data_source": absent, "reward_model": absent} | batch)
        batch[IDS] = torch.from_numpy(ids.view(np.int64))  # torch knows uint64 by name only
        self.seconds += time.perf_counter() - started
        return batch
