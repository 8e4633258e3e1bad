"""What did a step's rollouts earn? Got from the queue, told to the allocator, handed on to the estimator."""

import numpy as np
import torch
import transfer_queue as tq

from cero.estimators.advantage import group_outcomes, known_so_far
from cero.estimators.baseline import score_weights
from cero.verl import selection
from cero.verl.estimators import StepContext, compute_cero_advantage, set_context


def plain(column):
    """A non-tensor column as a list; TransferQueue returns it as one of several list-likes."""
    return [getattr(value, "data", value) for value in column]


def fetch(keys, partition_id, settings):
    """(rewards, the agent loop's dicts or None, tokens that the loss counts) of each row; the arrays are float."""
    fields = ["rm_scores"]
    fields += ["extra_fields"] if settings.success.key else []
    fields += ["loss_mask"] if settings.drop_zero_advantage else []
    data = tq.kv_batch_get(keys=keys, partition_id=partition_id, select_fields=fields)
    rewards = data["rm_scores"].sum(dim=1).double().numpy()
    extra_fields = plain(data["extra_fields"]) if settings.success.key else None
    tokens = np.zeros(len(keys))
    if settings.drop_zero_advantage:
        tokens = data["loss_mask"].sum(dim=1).double().numpy()
    return rewards, extra_fields, tokens


def fetch_weights(keys, partition_id):
    """How far each row moves the policy: dict of key -> float. See `cero.estimators.baseline`."""
    data = tq.kv_batch_get(
        keys=keys, partition_id=partition_id, select_fields=["old_log_probs", "response_mask"]
    )
    padded = data.to_padded_tensor()
    weights = score_weights(padded["old_log_probs"].float().numpy(), padded["response_mask"].numpy())
    return dict(zip(keys, weights.tolist(), strict=True))


def observe(record, settings, allocator, rewards, extra_fields, metrics):
    """Tell the allocator what was sampled; note it in the record and in the metrics.

    rewards, extra_fields : of the record's rows, as `fetch` returns them

    Returns
    -------
    (lengths, rewards) : response tokens and reward of each of `record.sampled`, float arrays
    """
    sampled = selection.Rollouts.of_keys(record.keys, record.place)
    rewards = rewards[sampled.rows]
    if settings.success.key is None:
        successes = settings.success.of_rewards(rewards)
    else:
        pairs = zip(rewards, sampled.rows, strict=True)
        successes = np.array([settings.success.of(reward, extra_fields[row]) for reward, row in pairs])
    won, trials, low, high = group_outcomes(successes, sampled.groups, len(record.uids))
    record.won, record.trials, record.sampled, record.successes = won, trials, sampled, successes
    start = 0
    for dispatch in record.dispatches:
        part = slice(start, start := start + dispatch.history_mean.size)
        allocator.settle(dispatch.step, won[part], trials[part])
    known = (values.tolist() for values in known_so_far(successes, sampled.groups, record.round_of(sampled)))
    record.known = dict(zip(sampled.names, zip(*known, strict=True), strict=True))

    lengths = sampled.per_session([tag["response_len"] for tag in record.tags])
    metrics.update(_group_metrics(won, trials, low, high))
    metrics["cero/tokens/sampled"] = float(lengths.sum())
    if record.sequential:
        rounds = record.dispatches[0].step.rounds
        metrics["cero/rounds/mean"], metrics["cero/rounds/max"] = float(rounds.mean()), float(rounds.max())
        metrics["cero/budget/refunded"] = float(record.cap - record.rollouts.sum())
    metrics.update({f"cero/{key}": value for key, value in allocator.metrics().items()})
    return lengths, rewards


def observe_all(record, partition_id, settings, allocator):
    """Fetch and observe what was sampled, where all of it is trained on. Returns the step's metrics of it."""
    rewards, extra_fields, _ = fetch(record.keys, partition_id, settings)
    metrics = {}
    lengths, _ = observe(record, settings, allocator, rewards, extra_fields, metrics)
    everything = np.ones(lengths.size, bool)
    count(record, lengths, everything, everything, metrics)
    return metrics


def count(record, lengths, kept, trained, metrics):
    """Say how many were sampled, `kept` by the rule and are `trained` on: bool arrays, shape (s,)."""
    sampled = record.sampled
    rows = sampled.per_session(np.ones(sampled.session_of_row.size))
    record.counts = {
        "sampled": int(record.rollouts.sum()),
        "kept": int(kept.sum()),
        "trained": int(trained.sum()),
    }
    metrics.update({f"cero/rollouts/{key}": value for key, value in record.counts.items()})
    metrics["cero/tokens/trained"] = float(lengths[trained].sum())
    metrics["cero/rows/dropped_by_selection"] = float(rows[~kept].sum())
    metrics["cero/rows/dropped_as_zero"] = float(rows[kept & ~trained].sum())


def estimator_context(record, settings, keys, baselines=None):
    """The estimator's context for rows with these keys, of what was observed."""
    uids = record.uids
    history_mean = np.concatenate([dispatch.history_mean for dispatch in record.dispatches]).tolist()
    sampled = zip(record.trials.tolist(), record.won.tolist(), strict=True)
    return StepContext(
        history_mean=dict(zip(uids, history_mean, strict=True)),
        keys=list(keys),
        to_success=settings.to_success,
        rollouts_per_prompt=settings.rollouts_per_prompt,
        options=settings.estimator,
        sampled=dict(zip(uids, sampled, strict=True)),
        known=record.known,
        baselines=baselines,
    )


def zero_advantage(record, settings, estimator_is_ours, rewards, kept):
    """Sessions whose advantage will be zero, if only those `kept` count: bool array, shape (s,).

    rewards : of each of `record.sampled`; kept : bool array, shape (s,)
    """
    zero, sampled = np.zeros(kept.size, bool), record.sampled
    groups = sampled.groups[kept]
    if not estimator_is_ours:
        zero[kept] = selection.groups_all_equal(rewards[kept], groups)
        return zero
    uids = np.array(record.uids, dtype=object)[groups]
    keys = [f"{sampled.names[session]}_0" for session in np.flatnonzero(kept)]
    set_context(lambda: estimator_context(record, settings, keys))
    try:
        scores = torch.as_tensor(rewards[kept], dtype=torch.float64).unsqueeze(1)
        advantages, _ = compute_cero_advantage(scores, torch.ones_like(scores), index=uids)
    finally:
        set_context(None)
    zero[kept] = selection.groups_all_zero(advantages.squeeze(1).numpy(), groups)
    return zero


def optimal_baselines(record, settings, baseline, keys, partition_id):
    """Baseline of each session that is trained on, and learn from them.

    keys : of the rows trained on and of padding, whose old log-probs are in the queue
    Returns (dict of "<uid>_<session>" -> float, their mean).
    """
    weight_of = fetch_weights(keys, partition_id)
    trained, successes, keys_of_rows = record.sampled, record.successes, record.keys
    if settings.selects:  # not all of what was sampled
        keys_of_rows = [key for key in keys if key.rsplit("_", 2)[0] in record.place]
        trained = selection.Rollouts.of_keys(keys_of_rows, record.place)
        success_of = dict(zip(record.sampled.names, successes.tolist(), strict=True))
        successes = np.array([success_of[name] for name in trained.names])
    weights = trained.per_session([weight_of[key] for key in keys_of_rows])
    baselines = baseline.of_step(record.ids, trained.groups, successes, weights, record.round_of(trained))
    return dict(zip(trained.names, baselines.tolist(), strict=True)), float(baselines.mean())


def _group_metrics(won, trials, low, high):
    drawn = trials > 0
    share = lambda kind: float((kind & drawn).sum() / max(drawn.sum(), 1))  # noqa: E731
    return {
        "cero/group/signal": share(low < high),
        "cero/group/all_right": share((low == high) & (low == 1)),
        "cero/group/all_wrong": share((low == high) & (low == 0)),
        "cero/group/count": float(drawn.sum()),
        "cero/score/prompt_mean": float((won[drawn] / trials[drawn]).mean()) if drawn.any() else 0.0,
        "cero/rollouts/observed": float(trials.sum()),
    }
