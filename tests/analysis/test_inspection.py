"""What `cero inspect` reads out of states and logs, against figures worked out by hand."""

import json
import subprocess
import sys

import numpy as np
import pytest

from cero import available_allocators, make_allocator
from cero.allocators.rounds import OneRound
from cero.analysis import inspection
from cero.analysis.inspection import as_json, extremes, find_source, inspect, plot_inspection
from cero.analysis.runlog import RunLog
from cero.cli.main import main
from cero.core.state import save_state

IDS = np.array([2**63 + 5, 7, 0xABC, 41], dtype=np.uint64)
HEX = ["8000000000000005", "0000000000000007", "0000000000000abc", "0000000000000029"]


def visited(name, rollouts, successes, **options):
    """An allocator, whatever its rule, that gave IDS so many rollouts in a visit and saw these successes."""
    allocator = make_allocator(name, **(dict(rollouts_per_prompt=8, epochs=5, total_budget=160) | options))
    rows = allocator.table.add(IDS)
    allocator.ledger.spend(sum(rollouts))
    if not allocator.sequential:  # it counts what it gives when it gives it, others at the end of the step
        allocator.table["allocated"][rows] = rollouts
        allocator.table["pending"][rows] = rollouts
    step = OneRound(IDS, rollouts)
    step.start()
    allocator.settle(step, successes, rollouts)
    return allocator


def write_log(path, total=96.0):
    """Two steps over three prompts, the second with a prompt that comes twice and a rollout that failed."""
    log = RunLog(path)
    log.validation(0, 0, {"val-core/x/acc/mean@1": 0.25})
    metrics = {"cero/dual/budget": 0.02} | ({} if total is None else {"cero/budget/total": total})
    log.step(1, 0, 24, 24, HEX[:3], [8, 8, 8], [0, 2.5, 8], [8, 8, 8], metrics)
    metrics = metrics | {"cero/dual/budget": 0.03}
    log.step(2, 1, 24, 48, [HEX[1], HEX[0], HEX[1]], [12, 2, 10], [6, 1, 3], [12, 2, 9], metrics)
    log.validation(2, 48, {"val-core/x/acc/mean@1": 0.5})
    return path


def command(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "cero", *arguments], capture_output=True, text=True, timeout=60
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", available_allocators())
def test_state_of_every_allocator(name, tmp_path, capsys):
    rollouts, successes = [8, 20, 2, 8], [2.5, 20, 0, 4.5]
    allocator = visited(name, rollouts, successes)
    save_state(allocator.state_dict(), tmp_path / "allocator.npz")
    main(["inspect", str(tmp_path / "allocator.npz"), "--json", "--top", "2"])
    figures = json.loads(capsys.readouterr().out)

    assert (figures["kind"], figures["allocator"], figures["prompts"], figures["pending"]) == (
        "state",
        name,
        4,
        0,
    )
    assert figures["options"] == allocator.options()
    assert figures["ledger"] == {"spent": 38, "total": 160, "left": 122}
    # Of 2, 8, 8, 20, interpolated.
    assert figures["rollouts"] == pytest.approx(
        {"mean": 9.5, "min": 2, "p10": 3.8, "p50": 8, "p90": 16.4, "max": 20}
    )
    # The two with 8 rollouts tie; the smaller id goes first.
    assert [(p["id"], p["rollouts"]) for p in figures["most"]] == [(HEX[1], 20), (HEX[3], 8)]
    assert [(p["id"], p["rollouts"]) for p in figures["least"]] == [(HEX[2], 2), (HEX[3], 8)]
    if "posterior_mean" not in allocator.describe().columns:
        assert "histogram" not in figures and "posterior_mean" not in figures["most"][0]
        assert (allocator.success_mean(IDS) == 0.5).all()
    else:
        means = allocator.success_mean(IDS)
        assert [p["posterior_mean"] for p in figures["most"]] == pytest.approx(means[[1, 3]].tolist())
        tenths = np.bincount(np.minimum(means * 10, 9).astype(int), minlength=10)
        assert figures["histogram"]["counts"] == tenths.tolist() and figures["histogram"]["unknown"] == 0

    main(["inspect", str(tmp_path / "allocator.npz"), "--out", str(tmp_path / "sub" / "picture.png")])
    text = capsys.readouterr().out
    assert "38 of 160, 122 left" in text and HEX[1] in text and name in text and "picture.png" in text
    picture = (tmp_path / "sub" / "picture.png").read_bytes()
    assert picture[:8] == b"\x89PNG\r\n\x1a\n" and len(picture) > 3_000


def test_figures_of_cero_by_hand(tmp_path):
    # Beta(1, 1) prior; after s of n: mean (1 + s) / (2 + n), value ab / ((a+b)(a+b+1)), price value x slope.
    allocator = visited("cero", [8, 18, 2, 6], [2.5, 17.5, 0, 3.5], total_budget=None, value="variance")
    allocator.table["slope"][allocator.table.rows(IDS)] = [0.5, 0.25, 1.0, 0.0]
    allocator.price = 0.0625
    save_state(allocator.state_dict(), tmp_path / "allocator.npz")
    figures = as_json(inspect(tmp_path / "allocator.npz"), top=4)
    assert figures["ledger"] == {"spent": 34, "total": None, "left": None}
    assert figures["duals"]["budget_price"] == 0.0625
    # 0 is a slope that was not priced yet: left out of the quantiles.
    assert (figures["duals"]["slopes"]["min"], figures["duals"]["slopes"]["p50"]) == (0.25, 0.5)
    assert figures["duals"]["slopes"]["mean"] == pytest.approx(1.75 / 3)
    first, *_, last = figures["most"]
    value = 18.5 * 1.5 / (20 * 21)
    assert first == {
        "id": HEX[1],
        "rollouts": 18,
        "posterior_mean": pytest.approx(18.5 / 20),
        "strength": pytest.approx(20),
        "value": pytest.approx(value),
        "slope": 0.25,
        "price": pytest.approx(0.25 * value),
    }
    assert last["id"] == HEX[2] and last["posterior_mean"] == pytest.approx(1 / 4) and last["strength"] == 4
    unpriced = figures["most"][2]
    assert unpriced["id"] == HEX[3] and unpriced["slope"] is None
    # Means 0.35, 0.925, 0.25, 0.5625.
    assert figures["histogram"]["counts"] == [0, 0, 1, 1, 0, 1, 0, 0, 0, 1]


def test_visits_where_the_state_has_them(tmp_path):
    allocator = make_allocator("cero_resolve", rollouts_per_prompt=8, epochs=5)
    for prompts in (IDS, IDS[:2]):
        allocator.allocate(prompts)
    save_state(allocator.state_dict(), tmp_path / "allocator.npz")
    figures = as_json(inspect(tmp_path / "allocator.npz"), top=4)
    assert {p["id"]: p["visits"] for p in figures["most"]} == dict(zip(HEX, [2, 2, 1, 1], strict=True))
    assert figures["visits"]["mean"] == 1.5 and figures["pending"] == 48
    assert "duals" not in figures  # its price is of a step, not of the state


def test_columns_come_in_one_order_whatever_the_allocator(tmp_path):
    allocator = make_allocator("cero", rollouts_per_prompt=8, epochs=5, averaging="duals")
    allocator.allocate(IDS)
    save_state(allocator.state_dict(), tmp_path / "allocator.npz")
    assert tuple(inspect(tmp_path).columns) == inspection.COLUMNS


def test_state_with_options_that_are_gone(tmp_path):
    """Saved when every allocator took the options of posteriors and bounds."""
    for name in available_allocators():
        allocator = visited(name, [8] * 4, [1] * 4)
        state = allocator.state_dict()
        gone = {"value": "signal", "n_min": 2, "rounding": "systematic", "prior_a": 2.0, "luck": 7}
        state["options"] = gone | state["options"]
        save_state(state, tmp_path / "allocator.npz")
        found = inspect(tmp_path)
        assert found.summary["options"] == allocator.options()
        np.testing.assert_array_equal(found.columns["rollouts"], [8] * 4)


@pytest.mark.slow
def test_state_without_prompts(tmp_path, capsys):
    for name in available_allocators():
        allocator = make_allocator(name, rollouts_per_prompt=8, epochs=5)
        save_state(allocator.state_dict(), tmp_path / "allocator.npz")
        main(["inspect", str(tmp_path), "--json", "--out", str(tmp_path / "empty.png")])
        figures = json.loads(capsys.readouterr().out)
        assert (
            figures["prompts"] == 0
            and figures["rollouts"] is None
            and figures["most"] == figures["least"] == []
        )
        main(["inspect", str(tmp_path)])
        assert name in capsys.readouterr().out


@pytest.mark.parametrize("total", [96.0, None])
def test_log(tmp_path, capsys, total):
    path = write_log(tmp_path / "allocations.jsonl", total)
    main(["inspect", str(path), "--json", "--top", "1"])
    figures = json.loads(capsys.readouterr().out)
    assert figures["ledger"] == {"spent": 48, "total": total, "left": None if total is None else 48}
    assert (figures["kind"], figures["steps"], figures["last_step"], figures["budget"]) == ("log", 2, 2, 48)
    assert (figures["prompts"], figures["pending"]) == (3, 1)
    assert figures["duals"] == {"budget_price": 0.03}
    assert figures["most"] == [
        {"id": HEX[1], "rollouts": 30, "visits": 3, "trials": 29, "success_rate": pytest.approx(11.5 / 29)}
    ]
    assert figures["least"] == [{"id": HEX[2], "rollouts": 8, "visits": 1, "trials": 8, "success_rate": 1.0}]
    # Rates 1/10, 11.5/29, 1: each bin has its lower edge, the last its upper one too.
    assert figures["histogram"]["of"] == "success_rate"
    assert figures["histogram"]["counts"] == [0, 1, 0, 1, 0, 0, 0, 0, 0, 1]
    main(["inspect", str(path)])
    text = capsys.readouterr().out
    assert ("48 of 96, 48 left" in text) == (total is not None) and "0.397" in text


def test_log_with_prompts_of_which_nothing_came_back(tmp_path):
    log = RunLog(tmp_path / "allocations.jsonl")
    log.step(1, 0, 16, 16, HEX[:2], [8, 8], [0, 4], [0, 8], {})
    figures = as_json(inspect(log.path))
    assert figures["histogram"]["unknown"] == 1 and sum(figures["histogram"]["counts"]) == 1
    assert [p["success_rate"] for p in figures["most"]] == [0.5, None]
    json.dumps(figures, allow_nan=False)


def test_torn_last_line_is_left_out(tmp_path):
    path = write_log(tmp_path / "allocations.jsonl")
    path.write_text(path.read_text() + '{"kind": "step", "st')
    assert as_json(inspect(path))["steps"] == 2


def test_folders(tmp_path):
    run = tmp_path / "run"
    write_log(run / "cero" / "allocations.jsonl")
    assert inspect(run).source == run / "cero" / "allocations.jsonl"
    for step, rollouts in ((2, 2), (10, 10), (30, 30)):
        allocator = visited("uniform", [rollouts] * 4, [0] * 4)
        save_state(allocator.state_dict(), run / f"global_step_{step}" / "cero" / "allocator.npz")
    # Without verl's marker nothing is committed; with it, what it names, whatever lies beside.
    assert inspect(run).summary["kind"] == "log"
    (run / "latest_checkpointed_iteration.txt").write_text("10")
    assert inspect(run).source == run / "global_step_10" / "cero" / "allocator.npz"
    assert inspect(run).columns["rollouts"].tolist() == [10] * 4
    for place in ("global_step_2", "global_step_2/cero", "global_step_2/cero/allocator.npz"):
        assert inspect(run / place).columns["rollouts"].tolist() == [2] * 4
    # A checkpoint from before the plugin was there has no state.
    (run / "latest_checkpointed_iteration.txt").write_text("1")
    assert inspect(run).summary["kind"] == "log"


def test_names_are_those_of_the_adapter():
    pytest.importorskip("omegaconf")
    from cero.verl import resume

    assert (inspection.STATE_FILE, inspection.COMMIT_MARKER) == (resume.STATE_FILE, resume.COMMIT_MARKER)


@pytest.mark.parametrize("count", [0, 1, 7, 50, 400])
def test_extremes_against_a_sort(count):
    rng = np.random.default_rng(count)
    ids = rng.permutation(300).astype(np.uint64)
    rollouts = rng.integers(0, 12, 300).astype(np.int32)
    most, least = extremes(ids, rollouts, count)
    assert most.tolist() == sorted(range(300), key=lambda i: (-rollouts[i], ids[i]))[:count]
    assert least.tolist() == sorted(range(300), key=lambda i: (rollouts[i], ids[i]))[:count]


@pytest.mark.slow
def test_picture_of_many_prompts(tmp_path):
    rng = np.random.default_rng(0)
    allocator = make_allocator("cero", rollouts_per_prompt=8, epochs=5)
    for _ in range(3):
        ids = np.arange(inspection.SCATTER_MAX + 1, dtype=np.uint64)
        n = allocator.allocate(ids)
        allocator.observe(ids, rng.binomial(n, np.linspace(0, 1, ids.size)), n)
    save_state(allocator.state_dict(), tmp_path / "allocator.npz")
    picture = plot_inspection(inspect(tmp_path), tmp_path / "many.png")
    assert picture.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n" and picture.stat().st_size > 10_000


# ---- input that can't be used --------------------------------------------------------------------


def test_nothing_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing at .*gone.*allocator.npz"):
        inspect(tmp_path / "gone")
    with pytest.raises(FileNotFoundError, match="committed checkpoint.*default_local_dir"):
        inspect(tmp_path)
    (tmp_path / "latest_checkpointed_iteration.txt").write_bytes(b"\xff\x00")
    with pytest.raises(ValueError, match="latest_checkpointed_iteration.txt holds.*global_step_N"):
        find_source(tmp_path)


def test_damaged_state(tmp_path):
    path = tmp_path / "allocator.npz"
    save_state(visited("cero", [8] * 4, [1] * 4).state_dict(), path)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match="allocator.npz is damaged.*earlier checkpoint"):
        inspect(path)
    path.write_bytes(data[:500] + bytes(64) + data[564:])
    with pytest.raises(ValueError, match="allocator.npz"):
        inspect(path)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"allocator": "of_tomorrow"}, "of_tomorrow.*choose one of"),
        ({"version": 99}, "version 99"),
        ({"options": {}}, "rollouts_per_prompt is missing"),
        ({"options": None}, "malformed"),
        ({"ledger": {"spent": 3}}, "lacks 'total'"),
        ({"ledger": {"spent": 33, "total": 32}}, "total_budget=32"),
        ({"scalars": {}}, "scalars"),
    ],
)
def test_state_that_fits_no_allocator(tmp_path, change, message):
    path = tmp_path / "allocator.npz"
    save_state(visited("cero", [8] * 4, [1] * 4).state_dict() | change, path)
    with pytest.raises(ValueError, match=f"allocator.npz.*{message}"):
        inspect(path)


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "no training step yet"),
        ('{"kind": "validation", "step": 0, "spent": 0, "metrics": {}}\n', "no training step yet"),
        ("nonsense\n{}\n", "line 1 is not a record"),
        (b"\xff\xfe\n\n", "line 1 is not a record"),
        ('{"kind": "step", "step": 1}\n', "line 1 is no step"),
    ],
)
def test_unusable_log(tmp_path, text, message):
    path = tmp_path / "allocations.jsonl"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=f"allocations.jsonl.*{message}"):
        inspect(path)


@pytest.mark.parametrize(
    "change",
    [
        {"prompts": ["7", "8"]},
        {"prompts": ["z" * 16] * 2},
        {"rollouts": [8]},
        {"trials": [8, [8]]},
        {"spent": None},
        {"metrics": None},
    ],
)
def test_malformed_step(tmp_path, change):
    step = dict(
        epoch=0, budget=16, spent=16, prompts=HEX[:2], rollouts=[8, 8], successes=[0, 4], trials=[8, 8]
    )
    RunLog(tmp_path / "allocations.jsonl").step(**({"step": 1, "metrics": {}} | step | change))
    with pytest.raises(ValueError, match="allocations.jsonl, line 1 is no step"):
        inspect(tmp_path)


@pytest.mark.slow
def test_command_line(tmp_path):
    write_log(tmp_path / "cero" / "allocations.jsonl")
    result = command("inspect", str(tmp_path), "--json", "--out", str(tmp_path / "a.png"))
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["picture"] == str(tmp_path / "a.png") and result.stderr == ""
    result = command("inspect", str(tmp_path / "gone"))
    assert result.returncode == 2 and result.stdout == "" and result.stderr.count("\n") == 1
    assert result.stderr.startswith("cero inspect: ") and "nothing at" in result.stderr
    result = command("inspect", str(tmp_path), "--top", "-1")
    assert result.returncode == 2 and result.stdout == ""
    assert "error: argument --top: '-1' is not a whole number, 0 or more" in result.stderr
