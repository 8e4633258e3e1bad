"""What does verl's TransferQueue hold of a step's rows? No other module reads or writes it."""

from dataclasses import dataclass

import numpy as np
import transfer_queue as tq
from tensordict.tensorclass import NonTensorDataBase

from cero.estimators.baseline import score_weights


@dataclass
class Returned:
    """Hold what came back with each of r rows.

    rewards : float array, shape (r,)
    extra_fields : list of the agent loop's dicts, length r, or None where they are not needed
    tokens : float array, shape (r,): tokens that the loss counts, or zeros where they are not needed
    """

    rewards: np.ndarray
    extra_fields: list | None
    tokens: np.ndarray


def plain(column):
    """Return a non-tensor column as a list; TransferQueue returns one of several list-like types."""
    return [value.data if isinstance(value, NonTensorDataBase) else value for value in column]


def fetch(keys, partition_id, with_extra_fields=False, with_tokens=False):
    """Return what came back with the rows of these `keys` (list of str), as a `Returned`."""
    fields = ["rm_scores"]
    fields += ["extra_fields"] if with_extra_fields else []
    fields += ["loss_mask"] if with_tokens else []
    data = tq.kv_batch_get(keys=keys, partition_id=partition_id, select_fields=fields)
    return Returned(
        rewards=data["rm_scores"].sum(dim=1).double().numpy(),
        extra_fields=plain(data["extra_fields"]) if with_extra_fields else None,
        tokens=data["loss_mask"].sum(dim=1).double().numpy() if with_tokens else np.zeros(len(keys)),
    )


def fetch_weights(keys, partition_id):
    """Return how far each row moves the policy: dict of key -> float (`cero.estimators.baseline`)."""
    data = tq.kv_batch_get(
        keys=keys, partition_id=partition_id, select_fields=["old_log_probs", "response_mask"]
    )
    padded = data.to_padded_tensor()
    weights = score_weights(padded["old_log_probs"].float().numpy(), padded["response_mask"].numpy())
    return dict(zip(keys, weights.tolist(), strict=True))


def scale_advantages(batch, factor):
    """Multiply the advantages of the rows of `batch` (KVBatchMeta) by `factor`; return the new batch."""
    data = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=["advantages"])
    data["advantages"] = data["advantages"] * factor
    return tq.kv_batch_put(keys=batch.keys, partition_id=batch.partition_id, fields=data)


def take_out(batch, stays):
    """Return `batch` (verl's KVBatchMeta) with only the rows for which `stays` (bool array) is true.

    The other rows leave the queue.
    """
    gone = [key for key, stay in zip(batch.keys, stays, strict=True) if not stay]
    batch = batch.select_keys([key for key, stay in zip(batch.keys, stays, strict=True) if stay])
    tq.kv_clear(keys=gone, partition_id=batch.partition_id)
    return batch
