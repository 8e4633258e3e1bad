"""Do allocators learn from steps that overlap: in portions, with weights, and with rollouts taken back?"""

import numpy as np
import pytest

from cero import available_allocators, make_allocator
from cero.allocators.registry import allocator_class

UPFRONT = [name for name in available_allocators() if not allocator_class(name).sequential]
IDS = np.arange(6, dtype=np.uint64)


def begun(name, **options):
    allocator = make_allocator(name, rollouts_per_prompt=4, epochs=2, total_budget=96, **options)
    return allocator, allocator.allocate(IDS, 24)


@pytest.mark.parametrize("name", UPFRONT)
def test_outcomes_come_in_portions_and_in_any_order(name):
    """In portions or at once: rollouts are spent once, and each outcome is accepted once."""
    whole, counts = begun(name)
    parts, again = begun(name)
    assert counts.tolist() == again.tolist()
    won = counts / 2
    whole.observe(IDS, won, counts)
    for some in (IDS[4:], IDS[:1], IDS[1:4]):
        parts.observe(some, won[some.astype(int)], counts[some.astype(int)])
    assert whole.table["pending"].sum() == parts.table["pending"].sum() == 0
    assert whole.ledger.spent == parts.ledger.spent == 24
    with pytest.raises(ValueError, match="observe each rollout once"):
        parts.observe(IDS[:1], [0.0], [1])
    if whole.beliefs is not None and whole.beliefs.forgetting != "auto" and whole.beliefs.prior == "fixed":
        np.testing.assert_allclose(whole.success_mean(IDS), parts.success_mean(IDS), rtol=1e-12)


@pytest.mark.parametrize("name", UPFRONT)
def test_weights(name):
    """All weights 1 change nothing; smaller ones make the beliefs weaker, and nothing else."""
    plain, counts = begun(name)
    full, half = begun(name)[0], begun(name)[0]
    plain.observe(IDS, counts, counts)
    full.observe(IDS, counts, counts, np.ones(6))
    half.observe(IDS, counts, counts, np.full(6, 0.5))
    assert plain.success_mean(IDS).tolist() == full.success_mean(IDS).tolist()
    if plain.beliefs is not None:
        given = counts > 0
        assert (half.success_mean(IDS)[given] < plain.success_mean(IDS)[given]).all()
    assert half.table["pending"].sum() == 0 and half.ledger.spent == 24


@pytest.mark.parametrize("weights", [[0.0] * 6, [1.5] * 6, [1.0] * 5, [float("nan")] * 6])
def test_weights_that_are_none(weights):
    allocator, counts = begun("cero")
    with pytest.raises(ValueError, match=r"weights=.* one number in \(0, 1\]"):
        allocator.observe(IDS, counts, counts, weights)
    assert allocator.table["pending"].sum() == 24


@pytest.mark.parametrize("name", UPFRONT)
def test_rollouts_are_taken_back(name):
    allocator, counts = begun(name)
    allocator.withdraw([0, 1, 1], [counts[0], 1, counts[1] - 1] if counts[1] else [counts[0], 0, 0])
    left = 24 - int(counts[:2].sum())
    assert allocator.ledger.spent == allocator.table["pending"].sum() == left
    assert allocator.table["allocated"].sum() == left
    with pytest.raises(ValueError, match="can't be taken back"):
        allocator.withdraw([0], [1])
    with pytest.raises(ValueError, match="can't be taken back"):
        allocator.withdraw([77], [1])
    assert allocator.ledger.spent == left
    allocator.allocate(IDS, 24)
