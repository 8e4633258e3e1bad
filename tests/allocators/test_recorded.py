"""Rollouts, prices and beliefs are those that were recorded, so that none of them drifts unnoticed.

recorded.json holds, for each case below, a digest of all rollouts of a run and a few of its figures. A case
that is not recorded yet is not checked. To record anew, after a change that is meant to move rollouts:

    python tests/allocators/test_recorded.py

which writes the file; its diff shows the cases that moved.
"""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from cero import available_allocators, make_allocator

FILE = Path(__file__).with_name("recorded.json")
VALUES = ("variance", "variance_hard", "signal", "signal_hard", "knapsack", "inverse_sqrt")
CERO = {
    "response=4": {},
    **{f"value={value}": {"value": value} for value in VALUES},
    **{f"utility={utility}": {"utility": utility, "saturation": 0.7} for utility in ("rational", "log")},
    "averaging=responses": {"averaging": "responses"},
    "averaging=duals": {"averaging": "duals", "anchor": "last"},
    "plain": {"primal": "bang_bang", "step_rule": "plain", "warm_start": False},
    "forgetting=auto": {"forgetting": "auto"},
    "forgetting_unit=step": {"forgetting_unit": "step", "prior": "pooled"},
    "rounding=largest_remainder": {"rounding": "largest_remainder", "n_min": 1},
}
VARIANTS = {
    # With a fixed response, which shows sooner what the others change.
    "cero": {label: {"response": 4.0} | options for label, options in CERO.items()},
    "knapsack": {"exact": {"solver": "exact", "n_min": 0}},
    "variance": {"power=0.5": {"power": 0.5, "prior_a": 0.5}},
    "vip": {"rloo": {"objective": "rloo", "n_min": 2}},
    "vigor": {"growth=round": {"growth": "round", "rounds": 3}},
    "reinforce_ada_seq": {"positive": {"criterion": "positive"}},
    "cero_seq": {"skip": {"skip": 0.5, "n_first": 1, "prior": "pooled"}},
}


def record(name, options):
    """Run 24 steps of 32 out of 120 prompts, repeats included; every fifth budget is left open."""
    allocator = make_allocator(
        name, rollouts_per_prompt=8, epochs=6, seed=7, total_budget=24 * 256, **options
    )
    rates = np.random.default_rng(5).beta(0.5, 0.5, 120)
    rng, digest, launched = np.random.default_rng(11), hashlib.sha256(), 0
    for k in range(24):
        chosen = rng.integers(0, 120, 32)
        outcomes = rng.random((32, 128)) < rates[chosen, None]
        budget = None if k % 5 == 4 and allocator.ledger.left > 1024 else 256 - k % 7
        if allocator.ledger.left < 256:
            break
        step = allocator.begin(chosen.astype(np.uint64), budget)
        counts = step.start()
        flying = {int(prompt): int(counts[prompt]) for prompt in np.flatnonzero(counts)}
        while flying:
            prompt, n = next(iter(flying.items()))
            del flying[prompt]
            first = step.launched[prompt] - n
            answer = step.report(prompt, float(outcomes[prompt, first : first + n].sum()), n)
            flying |= {other: more for other, more in answer.items() if more}
        allocator.settle(step, step.successes, step.trials)
        digest.update(step.launched.astype("<i8").tobytes())
        launched += int(step.launched.sum())
    figures = {key: value for key, value in allocator.metrics().items() if key.split("/")[0] != "n"}
    figures["success_mean"] = float(allocator.success_mean(np.arange(120, dtype=np.uint64)).mean())
    return {"rollouts": launched, "digest": digest.hexdigest()[:16], "figures": figures}


def cases():
    """(case, allocator, options) of all allocators, at their defaults and with the options above."""
    for name in available_allocators():
        for label, options in {"": {}, **VARIANTS.get(name, {})}.items():
            yield f"{name} {label}".strip(), name, options


RECORDED = json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else {}
CASES = [(case, name, options) for case, name, options in cases() if case in RECORDED]


def test_no_case_was_lost():
    assert sorted(case for case, *_ in CASES) == sorted(RECORDED)


@pytest.mark.slow
@pytest.mark.parametrize("case, name, options", CASES, ids=[case for case, *_ in CASES])
def test_as_recorded(case, name, options):
    found, recorded = record(name, options), RECORDED[case]
    assert (found["rollouts"], found["digest"]) == (recorded["rollouts"], recorded["digest"])
    assert found["figures"] == pytest.approx(recorded["figures"], rel=1e-9, abs=1e-12)


if __name__ == "__main__":
    text = json.dumps({case: record(name, options) for case, name, options in cases()}, indent=1)
    FILE.write_text(text + "\n", encoding="utf-8")
