"""Is this response right? 1.0 or 0.0, for any text.

Named in verl's configuration as `reward.custom_reward_function.path`, called as `compute_score` in several
threads. What is judged is the response's first line, all of it: a response that goes on after the answer,
with another one or with words, is wrong. Numbers are compared as numbers ("28,080" is 28080), all else
without regard to case and spacing; but where the case is what was asked for, it counts. Punctuation at the
end is overlooked. In families with working, what follows the line's last "=" is judged, or the line itself
where there is none; the working is not.
"""

from __future__ import annotations

import re
from decimal import Decimal

WITH_WORKING = ("two-steps",)
WITH_CASE = ("upper-case",)
MAX_LENGTH = 200  # characters; longer lines are no answers to these questions, whatever they say
NUMBER = re.compile(r"[-+]?(?:\d{1,3}(?:,\d{3}){1,5}|\d{1,18})(?:\.\d{1,9})?", re.ASCII)


def extract(text: str, working: bool = False, case: bool = False) -> str:
    """Return the answer that a response gives, "" if none; in lower case, unless `case` counts."""
    line = text.split("\n", 1)[0]
    if len(line) > MAX_LENGTH:
        return ""
    if working:
        line = line.rpartition("=")[2]
    return folded(line, case).rstrip(" .,;:!?")


def folded(text: str, case: bool) -> str:
    """Return a text with single spaces, and in lower case unless `case` counts."""
    text = " ".join(text.split())
    return text if case else text.casefold()


def number(text: str) -> Decimal | None:
    """Return the number that the text is, None if it is none."""
    return Decimal(text.replace(",", "")) if NUMBER.fullmatch(text) else None


def compute_score(
    data_source: str, solution_str: str, ground_truth: str, extra_info: dict | None = None, **kwargs
) -> dict[str, float | str]:
    """Return `score` and `acc`, 0.0 or 1.0, and `pred`, the answer found.

    `data_source` is "fewshot/<family>".
    """
    family = data_source.rsplit("/", 1)[-1]
    answer = extract(str(solution_str), family in WITH_WORKING, family in WITH_CASE)
    truth = folded(str(ground_truth), family in WITH_CASE)
    wanted = number(truth)
    right = answer == truth if wanted is None else number(answer) == wanted
    return {"score": float(right), "acc": float(right), "pred": answer}
