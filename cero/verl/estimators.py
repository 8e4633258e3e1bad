"""verl's `algorithm.adv_estimator=cero`: the advantages of `cero.estimators.advantage`, on verl's tensors."""

from dataclasses import dataclass

import numpy as np
import torch
from verl.trainer.ppo.core_algos import register_adv_est

from cero.estimators.advantage import Groups, advantages


@dataclass
class StepContext:
    """What the estimator needs beside verl's arguments.

    history_mean : dict of uid -> E[p] before this step's rewards
    keys : TransferQueue keys of the rows, "<uid>_<session>_<output>"
    to_success : callable, rewards -> [0, 1]
    rollouts_per_prompt : int
    options : history, scale, prompt_weight, advantage
    sampled : dict of uid -> (trials, successes) over all rollouts sampled, whether they are trained on or not
    known : dict of "<uid>_<session>" -> (trials, successes) of that prompt up to and including that session's
    round,
        over all rollouts sampled: what an unbiased baseline may use
        (`cero.estimators.advantage.known_so_far`)
    baselines : dict of "<uid>_<session>" -> baseline of `cero.estimators.baseline`; None: the estimator's own
    """

    history_mean: dict
    keys: list
    to_success: object
    rollouts_per_prompt: int
    options: dict
    sampled: dict
    known: dict
    baselines: dict | None = None


_context_of = None


def set_context(context_of):
    """Say where the next calls, in this process, get their context from (None: there is none).

    context_of : callable, () -> StepContext; called when verl has fetched what it needs itself
    """
    global _context_of
    _context_of = context_of


def final_rows(keys):
    """Row of the last output of each session, each row's session, and the sessions' names.

    A session of a multi-output agent loop has several rows, all with the reward of the last.

    Parameters: keys, list of "<uid>_<session>_<output>". Returns: (rows, session_of_row, names), int arrays
    of shape (sessions,) and (len(keys),), list of "<uid>_<session>".
    """
    place, rows, outputs, sessions = {}, [], [], []
    for row, key in enumerate(keys):
        name, _, output = key.rpartition("_")
        output = int(output)
        session = place.setdefault(name, len(rows))
        if session == len(rows):
            rows.append(row)
            outputs.append(output)
        elif outputs[session] < output:
            rows[session], outputs[session] = row, output
        sessions.append(session)
    return np.array(rows, dtype=np.int64), np.array(sessions, dtype=np.int64), list(place)


@register_adv_est("cero")
def compute_cero_advantage(token_level_rewards, response_mask, index=None, config=None, **kwargs):
    """Advantages of shape (rows, tokens), of the kind algorithm.cero.advantage; returned twice (advantages, returns).

    token_level_rewards, response_mask : (rows, tokens); index : uid of each row, object array. Rows whose
    mask is empty (verl's padding) get 0 and count for nothing.

    Raises
    ------
    ValueError
        Without the scheduler (it holds the posteriors), or if a reward is outside cero.success.range.
    """
    scores = token_level_rewards.sum(dim=-1).double().cpu().numpy()
    context = None if _context_of is None else _context_of()
    if context is None or len(context.keys) != len(index):
        raise ValueError(
            "algorithm.adv_estimator=cero needs the posteriors that the scheduler keeps; start with +recipe=cero"
        )
    real = response_mask.sum(dim=-1).cpu().numpy() > 0
    rows, session_of_row, names = final_rows(context.keys)
    rows = rows[real[rows]]
    uid_of_row = [str(index[row]) for row in rows]
    uids = sorted(set(uid_of_row))
    place = {uid: i for i, uid in enumerate(uids)}
    groups = np.array([place[uid] for uid in uid_of_row], dtype=np.int64)
    history = np.array([context.history_mean[uid] for uid in uids])
    options = dict(context.options)
    kind = options.pop("advantage")
    if kind == "posterior":
        seen = [context.known[names[session]] for session in session_of_row[rows]]
    else:
        seen = [context.sampled[uid] for uid in uid_of_row]
    trials, successes = np.array(seen, dtype=np.float64).reshape(-1, 2).T
    baseline = None
    if context.baselines is not None:
        baseline = np.array([context.baselines[names[session]] for session in session_of_row[rows]])
    by_session = np.zeros(session_of_row.max() + 1 if session_of_row.size else 0)
    by_session[session_of_row[rows]] = advantages(
        kind,
        Groups(context.to_success(scores[rows]), groups, len(uids), trials, successes, baseline),
        history,
        rollouts_per_prompt=context.rollouts_per_prompt,
        **options,
    )
    result = torch.as_tensor(np.where(real, by_session[session_of_row], 0.0), dtype=token_level_rewards.dtype)
    result = result.to(response_mask.device).unsqueeze(-1) * response_mask
    return result, result
