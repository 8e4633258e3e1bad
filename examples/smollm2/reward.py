"""reasoning-gym's verdict on a response: 1.0 or 0.0, for any text.

The data set's own scorer judges, and success is score == 1: several scorers give small credits for garbage
(.01 for any number, a share for the digits appearing somewhere), which would be noise in a success
probability. What is judged is the last number of the response: so small a model rarely answers with the
number alone.
"""

from __future__ import annotations

import re
from functools import cache

NUMBER = re.compile(r"(?<![\d.,])-?\d[\d,]{0,17}(?:\.\d{1,9})?(?!\d)", re.ASCII)
TAIL = 400  # characters from the end in which the answer has to stand; bounds the time on any text


@cache
def _scorer(task: str):
    import reasoning_gym

    return reasoning_gym.create_dataset(task, size=1, seed=0).score_answer


def extract(text: str) -> str:
    """The last number of the text without thousands commas, or ""."""
    found = NUMBER.findall(text[-TAIL:])
    return found[-1].replace(",", "") if found else ""


def compute_score(
    data_source: str, solution_str: str, ground_truth: str, extra_info: dict | None = None, **kwargs
) -> dict[str, float | str]:
    """verl's reward function. `data_source` is "reasoning_gym/<task>"; `score` and `acc` are 0.0 or 1.0."""
    scorer = _scorer(data_source.rsplit("/", 1)[-1])  # an unknown task is a mistake in the data, and raises
    answer = extract(str(solution_str))
    try:
        right = bool(answer) and scorer(answer, {"answer": str(ground_truth)}) == 1
        # gsm_symbolic's scorer overlooks the sign: -24 would pass for 24.
        right = right and answer.startswith("-") == str(ground_truth).startswith("-")
    except Exception:  # some scorers raise on text they did not expect; such a text is not an answer
        right = False
    return {"score": float(right), "acc": float(right), "pred": answer}
