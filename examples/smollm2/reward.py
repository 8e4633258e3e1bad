"""Is this response right, by reasoning-gym's own verdict? 1.0 or 0.0, for any text.

The data set's own scorer judges, and success means a score of exactly 1. Several scorers give small credits
for garbage (0.01 for any number, a share for the digits appearing somewhere), which would be noise in a
success probability. The last number of the response is judged, since so small a model rarely answers with the
number alone.
"""

from __future__ import annotations

import re
from functools import cache

# Commas stand between thousands only, and of more digits than these a number is no answer.
WHOLE = r"(?:\d{1,3}(?:,\d{3}){1,5}|\d{1,18})"
NUMBER = re.compile(rf"(?<![\d.,])[-\u2212]?{WHOLE}(?:\.\d{{1,9}})?(?![\d]|[.,]\d)", re.ASCII)
TAIL = 400  # characters from the end in which the answer has to stand; bounds the time on any text


@cache
def _scorer(task: str):
    import reasoning_gym

    return reasoning_gym.create_dataset(task, size=1, seed=0).score_answer


def extract(text: str) -> str:
    """Return the last number of the text without thousands commas, or ""."""
    found = NUMBER.findall(text[-TAIL:])
    return found[-1].replace(",", "").replace("\u2212", "-") if found else ""


def compute_score(
    data_source: str, solution_str: str, ground_truth: str, extra_info: dict | None = None, **kwargs
) -> dict[str, float | str]:
    """Judge a response for verl. `data_source` is "reasoning_gym/<task>"; the score is 0.0 or 1.0."""
    scorer = _scorer(data_source.rsplit("/", 1)[-1])  # raises for an unknown task: a mistake in the data
    answer = extract(str(solution_str))
    try:
        right = bool(answer) and scorer(answer, {"answer": str(ground_truth)}) == 1
        # gsm_symbolic's scorer overlooks the sign: -24 would pass for 24.
        right = right and answer.startswith("-") == str(ground_truth).startswith("-")
    except Exception:  # some scorers raise on text they did not expect; such a text is not an answer
        right = False
    return {"score": float(right), "acc": float(right), "pred": answer}
