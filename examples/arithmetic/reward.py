"""Is this response right? 1.0 or 0.0, for any text.

Named in verl's configuration as `reward.custom_reward_function.path`, and called as `compute_score` in
several threads.

What counts as an answer: one integer in decimal digits, possibly after working in parentheses, "(238)38", and
possibly dressed as "$38$" or "\\boxed{38}". The working isn't judged. An expression is not an answer:
math-verify would evaluate "12+5" and find it equal to 17, but the question asks for the evaluation. Several
numbers are no answer either, since otherwise listing guesses could pay.
"""

from __future__ import annotations

import logging
import re
from functools import lru_cache

from math_verify import ExprExtractionConfig, parse, verify

# math-verify warns on each call that its timeouts are off. They have to be, because they use signal.alarm,
# which fails outside the main thread, and verl calls from worker threads. The form checked below bounds the
# time.
logging.getLogger("math_verify.parser").setLevel(logging.ERROR)
logging.getLogger("math_verify.grader").setLevel(logging.ERROR)

MAX_LENGTH = 64  # characters; longer texts are no answers to these questions, whatever they say
WORKING = re.compile(r"\([^()]*\)")
ANSWER = re.compile(r"(?:\$|\\boxed\{)?(-?[0-9]{1,18})(?:\$|\})?")


def extract(text: str) -> str | None:
    """Return the answer's digits with its sign, or None if the text isn't of the form described above."""
    text = text.strip()
    if len(text) > MAX_LENGTH:
        return None
    working = WORKING.match(text)
    match = ANSWER.fullmatch(text[working.end() :].strip() if working else text)
    return match.group(1) if match else None


@lru_cache(maxsize=65536)
def _equal(answer: str, truth: str) -> bool:
    """Compare two integers by math-verify. It takes 1 ms, so a run's few thousand pairs are remembered."""
    integer = (ExprExtractionConfig(),)
    parsed = [parse(s, extraction_config=integer, parsing_timeout=None) for s in (truth, answer)]
    return bool(verify(*parsed, timeout_seconds=None))


def compute_score(
    data_source: str, solution_str: str, ground_truth: str, extra_info: dict | None = None, **kwargs
) -> dict:
    """Judge a response for verl. `score` and `acc` are 0.0 or 1.0; `pred` is the answer, or ""."""
    answer = extract(str(solution_str))
    right = answer is not None and _equal(answer, str(ground_truth))
    return {"score": float(right), "acc": float(right), "pred": answer or ""}


_equal("0", "0")  # the first call imports and compiles for some 20 ms, which should not happen within a step
