"""Do the parts of an allocator keep to a simpler form of themselves? Ids, budgets and ledgers."""

import numpy as np

from cero.core.budget import Ledger, project_to_sum, round_to_sum
from cero.core.prompts import PromptTable, as_prompt_ids, prompt_id

from .damage import odd
from .promises import attempt, need


def id_cases(rng):
    """Yield after each case: ids of any kind, and a table of prompts against a dict."""
    while True:
        table, oracle = PromptTable({"seen": (np.int32, 0)}), {}
        for _ in range(20):
            if rng.integers(2):
                kind = rng.integers(4)
                n = int(rng.integers(0, 30))
                values = rng.integers(0, 2**64, n, dtype=np.uint64) >> np.uint64(rng.integers(0, 64))
                given = values
                if kind == 1:
                    given = values.tolist()
                elif kind == 2:
                    given = [str(value) for value in values.tolist()]
                    values = np.array([prompt_id(text) for text in given], np.uint64)
                elif kind == 3:
                    given = values.astype(object)
                ids = as_prompt_ids(given)
                need(ids.dtype == np.uint64 and np.array_equal(ids, values), "ids are not those given")
                rows = table.rows(ids)
                need(rows.tolist() == [oracle.get(i, -1) for i in ids.tolist()], "a row is another's")
                for value in sorted(set(ids.tolist()) - set(oracle)):
                    oracle[value] = len(oracle)
                rows = table.add(ids)
                need(rows.tolist() == [oracle[i] for i in ids.tolist()], "a row is another's once added")
                need(len(table) == len(oracle), "a table of another size")
            else:
                value = odd(rng)
                ids, error = attempt(lambda value=value: as_prompt_ids(value), ["prompt_ids"])
                need(error is not None or (ids.dtype == np.uint64 and ids.ndim == 1), "ids that are none")
            yield "ids"


def budget_cases(rng):
    """Yield after each case: targets of any size made into rollouts that cost the budget."""
    while True:
        n = int(rng.integers(1, 40))
        n_min = int(rng.integers(0, 5))
        n_max = n_min + int(rng.integers(0, 60))
        budget = int(rng.integers(n * n_min, n * n_max + 1))
        targets = rng.normal(size=n) * 10.0 ** rng.uniform(-3, 12)
        if rng.integers(3) == 0:
            targets = np.round(targets)
        shares = project_to_sum(targets, budget, n_min, n_max)
        need(abs(shares.sum() - budget) <= 1e-6 * max(1, budget), "a projection with another sum")
        rounding = ("systematic", "largest_remainder")[rng.integers(2)]
        counts = round_to_sum(shares, budget, n_min, n_max, rng, rounding)
        need(counts.sum() == budget, "rollouts with another sum")
        need(n_min <= counts.min() and counts.max() <= n_max, "rollouts outside their bounds")
        yield "budgets"


def ledger_cases(rng):
    """Yield after each case: a ledger against two integers."""
    while True:
        value = odd(rng) if rng.integers(3) == 0 else int(rng.integers(0, 1000))
        ledger, error = attempt(lambda value=value: Ledger(value), ["total_budget"])
        if error is not None:
            yield "ledger"
            continue
        spent = 0
        for _ in range(15):
            value = odd(rng) if rng.integers(3) == 0 else int(rng.integers(0, 120))
            call = ("spend", "refund", "check")[rng.integers(3)]
            method = getattr(ledger, call)
            _, error = attempt(
                lambda method=method, value=value: method(value),
                ["spend", "refund", "budget"],
                ledger.state_dict,
            )
            if error is None and call != "check":
                spent += int(value) if call == "spend" else -int(value)
            need(ledger.spent == spent and 0 <= spent, "a ledger that counts wrongly")
            need(ledger.total is None or spent <= ledger.total, "more was spent than there is")
            state = ledger.state_dict()
            if rng.integers(4) == 0:
                state[("spent", "total")[rng.integers(2)]] = odd(rng)
            other = Ledger(ledger.total)
            _, error = attempt(
                lambda other=other, state=state: other.load_state_dict(state), ["ledger"], other.state_dict
            )
            need(error is not None or other.spent >= 0, "a ledger with a debt")
            yield "ledger"
