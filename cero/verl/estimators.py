"""What does verl's `algorithm.adv_estimator=cero` compute? `cero.estimators.advantage`, on verl's tensors."""

import numpy as np
import torch
from verl.trainer.ppo.core_algos import register_adv_est

from cero.verl.context import current
from cero.verl.sessions import final_rows


@register_adv_est("cero")
def compute_cero_advantage(token_level_rewards, response_mask, index=None, config=None, **kwargs):
    """Return advantages of the kind algorithm.cero.advantage, twice: as verl's advantages and as its returns.

    Parameters
    ----------
    token_level_rewards, response_mask : tensors, shape (rows, tokens)
    index : object array, shape (rows,), the uid of each row

    Returns
    -------
    Two tensors of shape (rows, tokens), with one number for each row on the tokens of its response. Rows
    whose mask is empty (verl's padding) get 0 and do not count.

    Raises
    ------
    ValueError
        Without the scheduler, which holds the posteriors, or if a reward is outside cero.success.range.
    """
    context = current()
    if context is None or len(context.keys) != len(index):
        raise ValueError(
            "algorithm.adv_estimator=cero needs the posteriors that the scheduler keeps; "
            "start with +recipe=cero"
        )
    scores = token_level_rewards.sum(dim=-1).double().cpu().numpy()
    real = response_mask.sum(dim=-1).cpu().numpy() > 0
    rows, session_of_row, names = final_rows(context.keys)
    trained = np.flatnonzero(real[rows])  # sessions with a response
    places = np.array([context.place[names[session]] for session in trained], dtype=np.int64)
    by_session = np.zeros(rows.size)
    by_session[trained] = context.advantages(places, scores[rows[trained]])
    result = torch.as_tensor(np.where(real, by_session[session_of_row], 0.0), dtype=token_level_rewards.dtype)
    result = result.to(response_mask.device).unsqueeze(-1) * response_mask
    return result, result
