"""The offline optimum against SciPy and brute force, and the regret against it."""

import itertools
import json

import numpy as np
import pytest
from scipy import optimize

from cero.cli.main import main
from cero.core.beta import variance_value
from cero.core.utility import UTILITIES
from cero.research.theory import ablation
from cero.research.theory.offline import integer_optimum, optimum, total_utility
from cero.research.theory.regret import RegretRecord, draw_values, fix_values, floored, run_regret, slope


@pytest.fixture(params=UTILITIES)
def utility(request):
    return UTILITIES[request.param]


@pytest.mark.parametrize("low, high, budget", [(0, 1000, 300), (10, 60, 300), (20, 40, 250), (5, 30, 200)])
def test_continuous_optimum_is_scipys(utility, low, high, budget):
    values = np.random.default_rng(1).uniform(0.01, 0.25, 8)
    ours, price = optimum(values, budget, low, high, utility, 40.0)
    assert ours.sum() <= budget + 1e-6 and ours.min() >= low and ours.max() <= high
    best = optimize.minimize(
        lambda y: -total_utility(values, y, utility, 40.0),
        np.clip(np.full(8, budget / 8), low, high),
        jac=lambda y: -values * utility.slope(y, 40.0),
        bounds=[(low, high)] * 8,
        constraints={"type": "ineq", "fun": lambda y: budget - y.sum()},
        method="SLSQP",
        options={"maxiter": 1000, "ftol": 1e-14},
    )
    assert total_utility(values, ours, utility, 40.0) == pytest.approx(-best.fun, rel=1e-7)
    free = (ours > low + 1e-6) & (ours < high - 1e-6)
    np.testing.assert_allclose(values[free] * utility.slope(ours[free], 40.0), price, rtol=1e-6)


def test_continuous_optimum_is_brute_force(utility):
    """Against every point of a grid of three prompts' allocations."""
    values, low, high, budget = np.array([0.05, 0.15, 0.24]), 2.0, 30.0, 40.0
    ours, _ = optimum(values, budget, low, high, utility, 10.0)
    first, second = np.meshgrid(np.linspace(low, high, 561), np.linspace(low, high, 561))
    third = np.clip(budget - first - second, low, high)
    grid = np.stack([first, second, third], axis=-1)[first + second + third <= budget + 1e-9]
    gains = (values * utility.value(grid, 10.0)).sum(axis=1)
    best = total_utility(values, ours, utility, 10.0)
    assert gains.max() <= best + 1e-9 and best - gains.max() < 1e-3
    np.testing.assert_allclose(ours, grid[np.argmax(gains)], atol=0.1)


def test_integer_optimum_is_brute_force(utility):
    rng = np.random.default_rng(2)
    for _ in range(5):
        values, budget = rng.uniform(0.01, 0.25, 4), int(rng.integers(4, 20))
        greedy = integer_optimum(values, budget, 1, 6, utility, 4.0)
        best = max(
            total_utility(values, y, utility, 4.0)
            for y in itertools.product(range(1, 7), repeat=4)
            if sum(y) <= budget
        )
        assert greedy.sum() <= budget
        assert total_utility(values, greedy, utility, 4.0) == pytest.approx(best)


def test_integer_optimum_is_next_to_the_continuous_one(utility):
    values = np.random.default_rng(3).uniform(0.01, 0.25, 50)
    whole = integer_optimum(values, 2000, 5, 200, utility, 40.0)
    real, _ = optimum(values, 2000, 5, 200, utility, 40.0)
    assert whole.sum() == 2000
    assert np.abs(whole - real).max() < 2


def test_infeasible_budget():
    with pytest.raises(ValueError, match="budget=3"):
        optimum(np.ones(4), 3, 1, 5, UTILITIES["exp"], 4.0)


def test_fixed_values_are_exact():
    from cero import make_allocator

    allocator = make_allocator("cero", rollouts_per_prompt=8, epochs=5, value="variance")
    ids, values = np.arange(100, dtype=np.uint64), draw_values(100, 0)
    fix_values(allocator, ids, values)
    np.testing.assert_allclose(allocator.values(allocator.table.rows(ids)), values, rtol=1e-12)
    assert variance_value(np.float64(1.0), np.float64(1.0), 8) == pytest.approx(1 / 6)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["exp", "rational"])
def test_regret_of_the_duals_stays_below_sqrt_k(name):
    """The claim's own bound, at 95 %: the fitted slope's interval lies under 0.5."""
    records = [
        run_regret("cero", name, epochs, seed, prompts=128, anchor="last")
        for epochs in (10, 30, 100, 300)
        for seed in (0, 1)
    ]
    assert slope(records)["high"] < 0.5
    assert all(record.spent <= record.budget for record in records)
    assert min(record.ratio for record in records if record.epochs == 300) > 0.99


@pytest.mark.parametrize("name", UTILITIES)
def test_resolving_is_far_closer(name):
    duals, resolved, equal = (
        run_regret(allocator, name, 30, 0, prompts=128, **options)
        for allocator, options in (("cero", {"anchor": "last"}), ("cero_resolve", {}), ("uniform", {}))
    )
    assert resolved.regret < duals.regret / 10 < equal.regret / 10


def test_floored_regrets_are_not_in_the_slope():
    def record(epochs, regret):
        return RegretRecord("a", "exp", epochs, 0, 1e3, 1e3 - regret, regret, 1.0, 0, 0)

    records = [record(epochs, 1 / epochs) for epochs in (10, 100, 1000)]
    assert slope(records)["slope"] == pytest.approx(-1) and slope(records)["floor"] == 0
    low = record(10_000, 1e-13)
    assert floored(low) and slope([*records, low]) == slope(records) | {"floor": 1}
    assert slope([*records[:2], low])["slope"] is None


ABLATED = dict(utility="exp", epochs=40, seed=0, prompts=256)


def test_bang_bang_demand_falls_off_a_cliff():
    """Why the plain iteration is rough: at the optimum most prompts tie with the market price."""
    for name in ("exp", "rational"):
        tied, above, below = ablation.cliff(name)
        assert tied > 0.8 and above < 8 < below and below - above > 20


@pytest.mark.slow
@pytest.mark.parametrize("mode", ablation.MODES)
def test_ablation_never_spends_too_much_and_never_beats_the_optimum(mode):
    for row in ablation.ROWS:
        for utility in ("exp", "rational"):
            record, demand = ablation.run_ablation(row, mode, utility, 10, 0, prompts=64)
            assert record.spent <= record.budget and 0 <= record.regret, row
            assert demand.size + record.dry == 10 and (mode == "own" or record.spent == record.budget)
            assert 2 <= demand.min() and demand.max() <= 32


@pytest.mark.slow
def test_each_mend_does_what_it_is_for():
    def measured(row, mode="exact"):
        return ablation.run_ablation(row, mode, **ABLATED)[0]

    mended, textbook = measured("mended", "own"), measured("textbook", "own")
    assert textbook.late_swing > 5 and textbook.jump > 8
    assert mended.swing < 5 and mended.jump < 2 and mended.dry == 0
    assert measured("- proximal").jump > 10 * measured("mended").jump
    assert measured("- warm start").swing > 20 > 5 > measured("mended").swing
    assert measured("mended").ratio > measured("textbook").ratio + 0.01
    assert measured("damped: steps 4, resp. 1").regret < measured("mended").regret / 10


@pytest.mark.slow
def test_only_the_last_anchor_reaches_the_optimum():
    """An anchor that stays put misses the same share at any horizon."""
    last, equal = (
        ablation.run_ablation(row, "exact", "exp", 300, 0, prompts=128)[0]
        for row in ("mended", "- anchor last (default)")
    )
    assert last.ratio > 0.999 > 0.998 > equal.ratio


@pytest.mark.slow
def test_ablation_command_line(tmp_path, capsys):
    arguments = [
        "regret",
        "--ablation",
        "--epochs",
        "3,5",
        "--seeds",
        "1",
        "--prompts",
        "32",
        "--utilities",
        "exp",
    ]
    main([*arguments, "--out", str(tmp_path / "a.png"), "--json"])
    result = json.loads(capsys.readouterr().out)
    assert len(result["records"]) == len(result["rows"]) * 2 * 2
    assert {"row", "mode", "swing", "late_swing", "jump", "dry", "ratio"} <= set(result["records"][0])
    assert (tmp_path / "a.png").stat().st_size > 10_000
    main([*arguments, "--out", str(tmp_path / "a.png")])
    printed = capsys.readouterr().out
    assert all(row in printed for row in ablation.ROWS) and "exactly at the market" in printed


@pytest.mark.slow
def test_command_line(tmp_path, capsys):
    arguments = ["regret", "--epochs", "5,10,20", "--seeds", "1", "--prompts", "32", "--utilities", "exp"]
    main([*arguments, "--out", str(tmp_path / "r.png"), "--json"])
    result = json.loads(capsys.readouterr().out)
    keys = {
        "allocator",
        "utility",
        "epochs",
        "seed",
        "optimum",
        "value",
        "regret",
        "ratio",
        "spent",
        "budget",
    }
    assert len(result["records"]) == 6 and set(result["records"][0]) == keys
    assert set(result["slopes"]) == {"cero/exp", "cero_resolve/exp"}
    assert (tmp_path / "r.png").stat().st_size > 10_000
    main([*arguments, "--out", str(tmp_path / "r.png")])
    assert "slope" in capsys.readouterr().out
