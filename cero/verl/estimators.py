"""verl's `algorithm.adv_estimator=cero`: the advantages of `cero.advantage`, on verl's tensors."""

from dataclasses import dataclass

import numpy as np
import torch
from verl.trainer.ppo.core_algos import register_adv_est

from cero.advantage import Groups, advantages


@dataclass
class StepContext:
    """What the estimator needs beside verl's arguments; the trainer sets it before each call, in the same process.

    history_mean : dict of uid -> E[p] before this step's rewards
    keys : TransferQueue keys of the rows, "<uid>_<session>_<output>"
    to_success : callable, rewards -> [0, 1]
    rollouts_per_prompt : int
    options : history, scale, prompt_weight, advantage
    sampled : dict of uid -> (trials, successes) over all rollouts sampled, whether they are trained on or not
    known : dict of "<uid>_<session>" -> (trials, successes) of that prompt up to and including that session's round,
        over all rollouts sampled: what an unbiased baseline may use (`cero.advantage.known_so_far`)
    """

    history_mean: dict
    keys: list
    to_success: object
    rollouts_per_prompt: int
    options: dict
    sampled: dict
    known: dict


_context = None


def set_context(context):
    """Set the context of the next calls (None: there is none)."""
    global _context
    _context = context


def final_rows(keys):
    """Row of the last output of each session, and each row's session.

    A session of a multi-output agent loop has several rows, all with the reward of the last.

    Parameters: keys, list of "<uid>_<session>_<output>" (a pad row's key has other parts and is its own session).
    Returns: (rows, session_of_row), int arrays of shape (sessions,) and (len(keys),).
    """
    last, sessions = {}, []
    for row, key in enumerate(keys):
        parts = key.rsplit("_", 2)
        session, output = (f"{parts[0]}_{parts[1]}", int(parts[2])) if len(parts) == 3 else (key, 0)
        sessions.append(session)
        if session not in last or last[session][0] < output:
            last[session] = (output, row)
    number = {session: i for i, session in enumerate(last)}
    rows = np.array([row for _, row in last.values()], dtype=np.int64)
    return rows, np.array([number[session] for session in sessions], dtype=np.int64)


@register_adv_est("cero")
def compute_cero_advantage(token_level_rewards, response_mask, index=None, config=None, **kwargs):
    """Advantages of shape (rows, tokens), of the kind algorithm.cero.advantage; returned twice (advantages, returns).

    token_level_rewards, response_mask : (rows, tokens); index : uid of each row, object array. Rows whose mask is
    empty (verl's padding) get 0 and count for nothing.

    Raises
    ------
    ValueError
        Without the scheduler (it holds the posteriors), or if a reward is outside cero.success.range.
    """
    if _context is None or len(_context.keys) != len(index):
        raise ValueError(
            "algorithm.adv_estimator=cero needs the posteriors that the scheduler keeps; start with +recipe=cero"
        )
    scores = token_level_rewards.sum(dim=-1).double().cpu().numpy()
    real = response_mask.sum(dim=-1).cpu().numpy() > 0
    rows, session_of_row = final_rows(_context.keys)
    rows = rows[real[rows]]
    uids, groups = np.unique(np.asarray(index, dtype=object)[rows].astype(str), return_inverse=True)
    history = np.array([_context.history_mean[uid] for uid in uids])
    options = dict(_context.options)
    kind = options.pop("advantage")
    if kind == "posterior":
        seen = [_context.known[_context.keys[row].rsplit("_", 1)[0]] for row in rows]
    else:
        seen = [_context.sampled[uids[group]] for group in groups]
    trials, successes = np.array(seen, dtype=np.float64).reshape(-1, 2).T
    by_session = np.zeros(session_of_row.max() + 1 if session_of_row.size else 0)
    by_session[session_of_row[rows]] = advantages(
        kind,
        Groups(_context.to_success(scores[rows]), groups, uids.size, trials, successes),
        history,
        rollouts_per_prompt=_context.rollouts_per_prompt,
        **options,
    )
    result = torch.as_tensor(np.where(real, by_session[session_of_row], 0.0), dtype=token_level_rewards.dtype)
    result = result.to(response_mask.device).unsqueeze(-1) * response_mask
    return result, result
