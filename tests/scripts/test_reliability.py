"""A part of the fuzz and of the soak on every change, and whether both find what is broken on purpose."""

import copy
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from cero import available_allocators, make_allocator
from cero.core.budget import Ledger

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts" / "reliability"))
import fuzz
import soak
from cases import options, parts

CASES = {
    "options": 800,
    "allocators": 600,
    "prompt ids": 600,
    "budgets": 600,
    "ledger": 600,
    "state files": 60,
    "log lines": 80,
}


@pytest.mark.slow
@pytest.mark.parametrize("area", fuzz.AREAS)
def test_fuzz(area):
    row = fuzz.fuzz_area(area, CASES[area], seed=1)
    assert row["cases"] == CASES[area] and row["findings"] == []


@pytest.mark.slow
@pytest.mark.parametrize("name", available_allocators())
def test_soak(name):
    row = soak.soak(name, 60, seed=2)
    assert row["steps"] == 60 and row["finding"] is None


def test_areas_are_all_the_cases():
    assert sum(share for share, _ in fuzz.AREAS.values()) == pytest.approx(1)


def test_the_same_seed_makes_the_same_cases():
    def draws(seed):
        rng = np.random.default_rng(seed)
        return [repr(options.draw_options(rng, "cero")) for _ in range(20)]

    assert draws(3) == draws(3) != draws(4)


# ---- what is broken is found ---------------------------------------------------------------------


def broken(area, count=400):
    return fuzz.fuzz_area(area, count, seed=1)["findings"]


def test_a_refusal_without_a_key_is_found(monkeypatch):
    monkeypatch.setattr("cero.core.budget.is_whole", lambda value: value == int(value))
    assert any("naming a key" in finding["what"] for finding in broken("ledger"))


def test_a_refusal_that_changes_something_is_found(monkeypatch):
    def spend(ledger, rollouts):
        ledger.spent += 1
        raise ValueError("budget")

    monkeypatch.setattr(Ledger, "spend", spend)
    assert any("had changed something" in finding["what"] for finding in broken("ledger"))


def test_rollouts_that_miss_their_budget_are_found(monkeypatch):
    real = parts.round_to_sum
    monkeypatch.setattr(parts, "round_to_sum", lambda *args: real(*args) + 1)
    assert any("another sum" in finding["what"] for finding in broken("budgets"))


@pytest.mark.slow
def test_a_state_that_loses_something_is_found(monkeypatch):
    allocator = type(make_allocator("cero", rollouts_per_prompt=8, epochs=4))
    real = allocator.load_state_dict

    def forgetful(self, state):
        state = copy.deepcopy(state)
        state["table"]["successes"][:] = 0
        real(self, state)

    monkeypatch.setattr(allocator, "load_state_dict", forgetful)
    row = soak.soak("cero", 300, seed=2)
    assert row["finding"] and "resumed run" in row["finding"]


def test_a_killed_run_that_differs_is_found():
    pytest.importorskip("psutil")
    kills = pytest.importorskip("kills")
    record = {key: 0 for key in kills.SAME} | {"rollouts": [4, 4]}
    run = {
        "steps": {1: dict(record), 2: dict(record)},
        "order": [1, 2],
        "validations": [(2, 16)],
        "state": {"ledger": {"spent": 16}, "table": {"a": np.zeros(2)}},
    }
    assert kills.differences(run, copy.deepcopy(run)) == []
    assert kills.differences(run, run | {"validations": []}, [2]) == []
    assert kills.differences(run, run | {"validations": []}, [1]) == ["validations"]
    for change, what in (
        (lambda other: other["order"].append(2), "order"),
        (lambda other: other["steps"].pop(2), "8 rollouts logged, 16 spent"),
        (lambda other: other["steps"][2].update(rollouts=[5, 3]), "step 2: rollouts"),
        (lambda other: other["validations"].append((2, 16)), "validations"),
        (lambda other: other["state"]["table"]["a"].__setitem__(0, 1.0), "state"),
    ):
        other = copy.deepcopy(run)
        change(other)
        assert what in kills.differences(run, other)


def test_what_a_killed_run_logged_is_compared(tmp_path):
    pytest.importorskip("psutil")
    kills = pytest.importorskip("kills")
    log = tmp_path / "checkpoints" / "cero" / "allocations.jsonl"
    assert kills.differences_so_far({"steps": {}}, tmp_path) == []  # killed before it had a log
    log.parent.mkdir(parents=True)
    record = {key: 0 for key in kills.SAME} | {"kind": "step", "step": 1, "rollouts": [4, 4]}
    log.write_text(json.dumps(record) + "\n")
    assert kills.differences_so_far({"steps": {1: record}}, tmp_path) == []
    other = {"steps": {1: record | {"rollouts": [5, 3]}}}
    assert kills.differences_so_far(other, tmp_path) == ["step 1: rollouts"]
