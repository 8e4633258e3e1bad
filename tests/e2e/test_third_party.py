"""An allocator of another package, installed by pip, trains through verl by its own word."""

import pytest
from hearing import STEPS

from cero.analysis.runlog import read_log

pytestmark = [pytest.mark.e2e, pytest.mark.alone]


def test_an_installed_package_trains(lopsided_run):
    steps = read_log(lopsided_run / "checkpoints" / "cero" / "allocations.jsonl")
    assert [step["spent"] for step in steps] == [64 * step for step in range(1, STEPS + 1)]
    assert all(sum(step["rollouts"]) == 64 for step in steps)
    even = [int(prompt, 16) % 2 == 0 for prompt in steps[0]["prompts"]]
    given = {True: set(), False: set()}
    for n, kind in zip(steps[0]["rollouts"], even, strict=True):
        given[kind].add(n)
    assert given[True] and given[False]
    assert max(given[False]) < min(given[True])
