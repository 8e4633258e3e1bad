"""Is this response right? 1.0 or 0.0, for any text.

Named in verl's configuration as `reward.custom_reward_function.path`, and called as `compute_score` in
several threads.

What counts as an answer: letters and digits only, possibly after working in parentheses, "(bb)ada", equal to
the ground truth character by character. The working isn't judged. Nothing is normalised: "Ada" or "a da" is
another string.
"""

from __future__ import annotations

import re

MAX_LENGTH = 64  # characters; longer texts are no answers to these questions, whatever they say
RESPONSE = re.compile(r"(?:\([^()]*\))?([0-9a-z]+)")


def extract(text: str) -> str | None:
    """Return the answer, or None if the text isn't of the form described above."""
    text = text.strip()
    match = RESPONSE.fullmatch(text) if len(text) <= MAX_LENGTH else None
    return match.group(1) if match else None


def compute_score(
    data_source: str, solution_str: str, ground_truth: str, extra_info: dict | None = None, **kwargs
) -> dict:
    """Judge a response for verl. `score` and `acc` are 0.0 or 1.0; `pred` is the answer, or ""."""
    answer = extract(str(solution_str))
    right = answer is not None and answer == str(ground_truth)
    return {"score": float(right), "acc": float(right), "pred": answer or ""}
