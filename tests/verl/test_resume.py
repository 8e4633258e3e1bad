"""Resume under changed circumstances: each row of the table in docs/how-to/resume.md, by verl's own loop."""

import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from one_process import Bench, Stopped, rows_of

from cero.analysis.runlog import read_log
from cero.core.state import BASELINE_FILE, COMMIT_MARKER, STATE_FILE, STEP_FILE, load_state, save_state
from cero.verl.in_flight import IN_FLIGHT_FILE, Group, InFlight
from cero.verl.preflight import Preflight
from cero.verl.reading import read_settings
from cero.verl.resume import PLAN, check_resume

STOPPED = 7  # the step after which a run is stopped; its newest checkpoint is that of step 6
AT, BATCH, N = 6, 8, 4
SHARE = BATCH * N


@pytest.fixture
def bench(composed, monkeypatch):
    return Bench(composed, monkeypatch)


def steps_of(folder):
    return [record for record in read_log(folder / "cero" / "allocations.jsonl") if record["kind"] == "step"]


def check_sums(folder, trainer, last, batch=BATCH, n=N, exact=True):
    """Look whether the run went through all its steps, each at its share, and whether the sums agree."""
    ledger, steps = trainer.scheduler.allocator.ledger, steps_of(folder)
    assert [line["step"] for line in steps] == list(range(1, last + 1))
    assert sum(sum(line["rollouts"]) for line in steps) == steps[-1]["spent"] == ledger.spent
    for line in steps[AT:]:
        assert len(line["prompts"]) == batch and line["budget"] == batch * n
        assert sum(line["rollouts"]) == batch * n or (not exact and sum(line["rollouts"]) <= batch * n)
    if exact:
        assert ledger.total == ledger.spent == AT * SHARE + (last - AT) * batch * n
        assert steps[-1]["metrics"]["cero/budget/left"] == 0
    saved = load_state(folder / f"global_step_{last}" / STATE_FILE) if last % 3 == 0 else None
    assert saved is None or saved["ledger"] == {"spent": ledger.spent, "total": ledger.total}


CIRCUMSTANCES = [
    ((), 12, 8, 4),
    (("data.train_batch_size=4",), 24, 4, 4),
    (("data.train_batch_size=16", "trainer.total_epochs=4"), 8, 16, 4),
    (("actor_rollout_ref.rollout.n=2",), 12, 8, 2),
    (("actor_rollout_ref.rollout.n=8",), 12, 8, 8),
    (("data.train_batch_size=4", "actor_rollout_ref.rollout.n=8"), 24, 4, 8),
    (("trainer.total_epochs=5",), 20, 8, 4),
    (("trainer.total_epochs=2",), 8, 8, 4),
    (("trainer.total_training_steps=8",), 8, 8, 4),
    (("trainer.total_training_steps=20",), 12, 8, 4),
    (("trainer.total_training_steps=20", "trainer.total_epochs=10"), 20, 8, 4),
]
OTHERS = ("uniform", "cero_resolve", "aero", "cero_seq")


@pytest.mark.slow
@pytest.mark.parametrize(
    "allocator, overrides, last, batch, n",
    [("cero", *case) for case in CIRCUMSTANCES]
    + [(allocator, *CIRCUMSTANCES[i]) for allocator in OTHERS for i in (1, 4, 6)],
)
def test_batch_n_and_epochs(bench, tmp_path, allocator, overrides, last, batch, n):
    """The budget is what is spent plus what is left at the new share, and every step has its share."""
    bench.train(tmp_path, f"allocator={allocator}", stop_after=STOPPED)
    trainer = bench.train(tmp_path, f"allocator={allocator}", *overrides)
    check_sums(tmp_path, trainer, last, batch, n, exact=not trainer.scheduler.allocator.sequential)
    left = (last - AT) * batch * n
    spent = steps_of(tmp_path)[AT - 1]["spent"]
    # What sequential allocators did not launch of past budgets stays in the total, as without a resume.
    assert trainer.scheduler.allocator.ledger.total == AT * SHARE + left >= spent + left
    passes = AT * BATCH / 32 + (last - AT) * batch / 32
    assert trainer.scheduler.allocator.epochs == np.ceil(passes)


@pytest.mark.slow
def test_twice_under_other_settings(bench, tmp_path):
    bench.train(tmp_path, stop_after=4)
    bench.train(tmp_path, "data.train_batch_size=4", stop_after=10)  # from step 3; saved at step 9
    trainer = bench.train(tmp_path, "actor_rollout_ref.rollout.n=8")  # from step 9, in steps of 8 prompts
    assert trainer.scheduler.allocator.ledger.spent == 3 * 32 + 6 * 16 + 3 * 64
    assert trainer.scheduler.allocator.ledger.left == 0
    assert trainer.scheduler.allocator.epochs == np.ceil((3 * 8 + 6 * 4 + 3 * 8) / 32)
    assert (
        sum(sum(line["rollouts"]) for line in steps_of(tmp_path)) == trainer.scheduler.allocator.ledger.spent
    )


@pytest.mark.slow
def test_unchanged_is_as_if_it_had_never_stopped(bench, tmp_path):
    for allocator in ("cero", "aero"):
        whole, stopped = tmp_path / allocator / "whole", tmp_path / allocator / "stopped"
        bench.train(whole, f"allocator={allocator}")
        bench.train(stopped, f"allocator={allocator}", stop_after=STOPPED)
        bench.train(stopped, f"allocator={allocator}")
        for name in (STATE_FILE, BASELINE_FILE) if allocator == "cero" else (STATE_FILE,):
            one, other = (load_state(folder / "global_step_12" / name) for folder in (whole, stopped))
            np.testing.assert_equal(one, other)
        for one, other in zip(steps_of(whole), steps_of(stopped), strict=True):
            assert {**one, "metrics": 0} == {**other, "metrics": 0}
            for key, value in one["metrics"].items():
                assert "time" in key or "timing" in key or other["metrics"][key] == value, key


# ---- nothing left --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "overrides, message",
    [
        (
            ("data.train_batch_size=16",),
            r"global_step_6 is at step 6, and this run would end at step 6: data.train_batch_size=16 makes 2 "
            r"steps of a pass.*trainer.total_epochs=3 .*Nothing would be trained; raise trainer.total_epochs "
            "to 4 or more, or set trainer.val_only=True",
        ),
        (("trainer.total_epochs=1",), "would end at step 4: .*raise trainer.total_epochs to 2 or more, or"),
        (
            ("trainer.total_training_steps=5",),
            "end at step 5: .*raise trainer.total_training_steps above 6, or",
        ),
        (
            ("trainer.total_training_steps=5", "trainer.total_epochs=1"),
            "end at step 4: .*raise trainer.total_epochs to 2 or more and .*total_training_steps above 6",
        ),
    ],
)
@pytest.mark.parametrize("older", [False, True])
def test_nothing_left_is_refused(bench, tmp_path, overrides, message, older):
    """By preflight, before Ray starts, where the data is at hand; else once the trainer has loaded it."""
    bench.train(tmp_path, stop_after=STOPPED)
    if older:
        make_older(tmp_path / "global_step_6")
    pq.write_table(pa.table({"prompt": [""] * 32}), tmp_path / "train.parquet")
    data = f"data.train_files={tmp_path}/train.parquet"
    with pytest.raises(SystemExit, match=message):
        Preflight().on_job_start(config=bench.config(tmp_path, data, *overrides))
    with pytest.raises(ValueError, match=message):
        bench.train(tmp_path, *overrides)
    assert [line["step"] for line in steps_of(tmp_path)] == list(range(1, STOPPED + 1))  # nothing was touched
    config = bench.config(tmp_path, data, "trainer.val_only=true", *overrides)
    check_resume(config, read_settings(config))


@pytest.mark.slow
def test_a_finished_run_may_be_started_again(bench, tmp_path):
    """As a sweep does, of which some jobs are done."""
    bench.train(tmp_path)
    before = steps_of(tmp_path)
    pq.write_table(pa.table({"prompt": [""] * 32}), tmp_path / "train.parquet")
    config = bench.config(tmp_path, f"data.train_files={tmp_path}/train.parquet")
    check_resume(config, read_settings(config))
    trainer = bench.train(tmp_path)
    assert steps_of(tmp_path) == before and trainer.scheduler.allocator.ledger.left == 0
    trainer = bench.train(tmp_path, "trainer.total_epochs=4")
    check_sums(tmp_path, trainer, 16)


# ---- data ----------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("shuffle", ["true", "false"])
@pytest.mark.parametrize(
    "rows, last",
    [
        (rows_of(48), 18),
        (rows_of(24), 9),
        (rows_of(40, first=20), 15),  # some prompts gone, others new
        (rows_of(32)[::-1], 12),
    ],
    ids=["grown", "shrunk", "exchanged", "reordered"],
)
def test_data(bench, tmp_path, rows, last, shuffle):
    bench.train(tmp_path, f"data.shuffle={shuffle}", stop_after=STOPPED)
    known = load_state(tmp_path / "global_step_6" / STATE_FILE)["table"]
    bench.rows = rows
    trainer = bench.train(tmp_path, f"data.shuffle={shuffle}")
    check_sums(tmp_path, trainer, last)
    # What was learned of a prompt stays with its content, wherever its row is now.
    table = trainer.scheduler.allocator.table
    assert table["id"][: known["id"].size].tolist() == known["id"].tolist()
    prompts = {prompt for line in steps_of(tmp_path)[AT:] for prompt in line["prompts"]}
    old = {f"{prompt:016x}" for prompt in known["id"].tolist()}
    gone, allocated = np.array([f"{p:016x}" not in prompts for p in known["id"].tolist()]), table["allocated"]
    np.testing.assert_array_equal(allocated[: gone.size][gone], known["allocated"][gone])
    assert len(table) == len(old | prompts)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_data_smaller_than_what_was_read_of_the_pass(bench, tmp_path, workers):
    """verl's loader fails where it skips what was read. It is refused before that, with a way to go on."""
    more = ("trainer.total_epochs=9", f"data.dataloader_num_workers={workers}")
    bench.train(tmp_path, *more, stop_after=STOPPED)
    bench.rows = rows_of(8)
    pq.write_table(pa.table({"prompt": [""] * 8}), tmp_path / "train.parquet")
    config = bench.config(tmp_path, *more, f"data.train_files={tmp_path}/train.parquet")
    message = (
        "data.pt: 16 prompts of the current pass were read, and data.train_files=.* has 8 now.* Delete that"
    )
    with pytest.raises(SystemExit, match=message):
        Preflight().on_job_start(config=config)
    with pytest.raises(ValueError, match=message):
        bench.train(tmp_path, *more)
    (tmp_path / "global_step_6" / "data.pt").unlink()
    check_resume(config, read_settings(config))
    trainer = bench.train(tmp_path, *more)
    check_sums(tmp_path, trainer, 9)


def test_a_checkpoint_without_a_state_may_start_anew_but_what_was_spent_stays_spent(bench, tmp_path):
    bench.train(tmp_path, stop_after=STOPPED)
    for path in (tmp_path / "global_step_6" / "cero").iterdir():
        path.unlink()
    trainer = bench.train(tmp_path, "cero.on_missing_state=fresh", stop_after=7)
    ledger = trainer.scheduler.allocator.ledger
    assert (ledger.spent, ledger.total) == (7 * BATCH * N, 12 * BATCH * N)


def test_what_has_changed_is_said_with_what_it_was(bench, tmp_path, capsys):
    bench.train(tmp_path, stop_after=STOPPED)
    bench.train(tmp_path, "data.train_batch_size=4", "actor_rollout_ref.rollout.n=2", stop_after=8)
    said = capsys.readouterr().err
    assert "data.train_batch_size=4 (was 8)" in said and "actor_rollout_ref.rollout.n=2 (was 4)" in said


@pytest.mark.parametrize(
    "key, then, now",
    [("dataloader_num_workers", *pair) for pair in ((0, 2), (2, 0), (2, 1), (2, 3))]
    + [("shuffle", True, False), ("shuffle", False, True)],
)
def test_a_loader_that_can_not_go_on_is_refused(bench, tmp_path, key, then, now):
    """torchdata goes on with as many workers in the same order; verl would fail after the engine's start."""
    bench.train(tmp_path, f"data.{key}={then}", stop_after=STOPPED)
    pq.write_table(pa.table({"prompt": [""] * 32}), tmp_path / "train.parquet")
    changed = (f"data.{key}={now}", f"data.train_files={tmp_path}/train.parquet")
    message = rf"data.{key}={now}, and .*data.pt was saved with {then}, .*set it to {then}, or delete"
    with pytest.raises(SystemExit, match=message):
        Preflight().on_job_start(config=bench.config(tmp_path, *changed))
    with pytest.raises(ValueError, match=message):
        bench.train(tmp_path, *changed)
    (tmp_path / "global_step_6" / "data.pt").unlink()
    check_sums(tmp_path, bench.train(tmp_path, *changed), 12)


def test_a_marker_that_names_no_folder_is_refused(bench, tmp_path):
    """verl would start anew, and the log of what is there would be cut."""
    bench.train(tmp_path, stop_after=STOPPED)
    shutil.rmtree(tmp_path / "global_step_6")
    before = (tmp_path / "cero" / "allocations.jsonl").read_text()
    with pytest.raises(
        SystemExit, match=r"names step 6, and there is no global_step_6; .*complete ones: 3\)"
    ):
        Preflight().on_job_start(config=bench.config(tmp_path))
    with pytest.raises(ValueError, match="there is no global_step_6"):
        bench.train(tmp_path)
    assert (tmp_path / "cero" / "allocations.jsonl").read_text() == before
    (tmp_path / COMMIT_MARKER).write_text("3")
    check_sums(tmp_path, bench.train(tmp_path), 12)


def test_a_checkpoint_whose_model_is_gone_is_refused(bench, tmp_path):
    """verl removes the oldest models and leaves the rest of their checkpoints."""
    bench.train(tmp_path, stop_after=STOPPED)
    shutil.rmtree(tmp_path / "global_step_3" / "actor")
    path = ("trainer.resume_mode=resume_path", f"trainer.resume_from_path={tmp_path}/global_step_3")
    message = r"global_step_3 has no model any more .*complete ones: 6\) with trainer.resume_mode=resume_path"
    with pytest.raises(SystemExit, match=message):
        Preflight().on_job_start(config=bench.config(tmp_path, *path))
    Preflight().on_job_start(config=bench.config(tmp_path))


@pytest.mark.parametrize("at, left", [(3, None), (6, 3)])
def test_a_checkpoint_that_is_written_anew_does_not_count_meanwhile(bench, tmp_path, at, left):
    """The marker names the one before, or none, until all of it is there."""
    bench.train(tmp_path, stop_after=STOPPED)
    (tmp_path / COMMIT_MARKER).write_text(str(at))
    seen = []

    def killed(when):
        if when == "saved by the workers":
            seen.append(
                (tmp_path / COMMIT_MARKER).read_text() if (tmp_path / COMMIT_MARKER).exists() else None
            )
            if len(seen) == (1 if at == 3 else 2):
                raise Stopped

    bench.at = killed
    start = ("trainer.resume_mode=disable",)
    if at == 6:
        start = ("trainer.resume_mode=resume_path", f"trainer.resume_from_path={tmp_path}/global_step_3")
        seen.append("")  # the run from step 3 saves step 6 first
    bench.train(tmp_path, *start)
    assert seen[-1] == (None if left is None else str(left))


def leave_in_flight(trainer, checkpoint):
    """Have a checkpoint, of `trainer`'s run, be one of an asynchronous run that had 32 rollouts in flight."""
    state = load_state(checkpoint / STATE_FILE)
    allocator = trainer.settings.make_allocator(3, 12 * SHARE)
    allocator.load_state_dict(state)
    ids, flights = state["table"]["id"][:8], InFlight("text")
    for i, (prompt, count) in enumerate(zip(ids.tolist(), allocator.allocate(ids, 32).tolist(), strict=True)):
        flights.send(f"u{i}", Group(prompt, count, 6, 0.5))
    save_state(allocator.state_dict() | {PLAN: state[PLAN]}, checkpoint / STATE_FILE)
    save_state(flights.state_dict(), checkpoint / IN_FLIGHT_FILE)


def test_a_synchronous_run_takes_back_what_was_in_flight(bench, tmp_path, capsys):
    """An asynchronous checkpoint has rollouts that are spent and not trained on; no queue brings them."""
    leave_in_flight(bench.train(tmp_path, stop_after=STOPPED), tmp_path / "global_step_6")
    Preflight().on_job_start(config=bench.config(tmp_path))
    trainer = bench.train(tmp_path)
    assert "32 rollouts that were under way then are not spent" in capsys.readouterr().err
    check_sums(tmp_path, trainer, 12)


@pytest.mark.parametrize("slashes", ["", "/", "//"])
def test_a_path_to_resume_may_end_with_a_slash(bench, tmp_path, slashes):
    """Shells add one when they complete a folder's name."""
    bench.train(tmp_path, stop_after=STOPPED)
    path = ("trainer.resume_mode=resume_path", f"trainer.resume_from_path={tmp_path}/global_step_6{slashes}")
    check_sums(tmp_path, bench.train(tmp_path, *path), 12)


def test_a_run_that_its_epochs_end_early_says_so(bench, tmp_path, capsys):
    """verl ends at whichever comes first, without a word."""
    bench.train(tmp_path / "a", "trainer.total_training_steps=20", stop_after=1)
    message = "ends at step 12 of trainer.total_training_steps=20, after trainer.total_epochs=3 passes of 4"
    said = capsys.readouterr().err
    assert message in said and "set trainer.total_epochs to 5 or more" in said
    for steps in ("null", "12", "5"):
        bench.train(tmp_path / steps, f"trainer.total_training_steps={steps}", stop_after=1)
    assert "ends at step" not in capsys.readouterr().err


# ---- the allocator and its options ---------------------------------------------------------------


def test_another_allocator_is_refused(bench, tmp_path):
    bench.train(tmp_path, stop_after=STOPPED)
    with pytest.raises(
        SystemExit, match="of allocator 'cero', the run uses 'uniform'; set allocator=cero, or"
    ):
        Preflight().on_job_start(config=bench.config(tmp_path, "allocator=uniform"))


@pytest.mark.parametrize("low, high", [(2, 6), (0, 5), (4, 4), (3, 64)])
def test_other_bounds(bench, tmp_path, capsys, low, high):
    bench.train(tmp_path, "allocator.n_min=1", "allocator.n_max=16", stop_after=STOPPED)
    trainer = bench.train(tmp_path, f"allocator.n_min={low}", f"allocator.n_max={high}")
    check_sums(tmp_path, trainer, 12)
    rollouts = [n for line in steps_of(tmp_path)[AT:] for n in line["rollouts"]]
    assert low <= min(rollouts) <= max(rollouts) <= high
    said = capsys.readouterr().err
    assert f"resumes at step 6 with allocator.n_min={low} (was 1), allocator.n_max={high} (was 16)" in said
    assert "192 rollouts are spent, and 192 are left (steps: 6)" in said


@pytest.mark.slow
@pytest.mark.parametrize(
    "option", ["value=signal", "saturation=0.5", "response=2", "forgetting=0.5", "seed=9", "prior=pooled"]
)
def test_other_options_count_from_then_on(bench, tmp_path, option):
    bench.train(tmp_path, stop_after=STOPPED)
    trainer = bench.train(tmp_path, f"allocator.{option}")
    check_sums(tmp_path, trainer, 12)


@pytest.mark.slow
def test_a_run_that_began_with_a_fixed_response_goes_on_with_auto(bench, tmp_path, capsys):
    bench.train(tmp_path, "allocator.response=4", stop_after=STOPPED)
    trainer = bench.train(tmp_path)
    check_sums(tmp_path, trainer, 12)
    assert "allocator.response=auto (was 4.0)" in capsys.readouterr().err


@pytest.mark.parametrize(
    "option, was",
    [("averaging=duals", "none"), ("averaging=responses", "none"), ("forgetting_unit=step", "visit")],
)
def test_options_that_need_other_columns_are_refused(bench, tmp_path, option, was):
    bench.train(tmp_path, stop_after=STOPPED)
    key, value = option.split("=")
    with pytest.raises(SystemExit, match=rf"Set back what differs.*: allocator\.{key}={value} \(was {was}\)"):
        Preflight().on_job_start(config=bench.config(tmp_path, f"allocator.{option}"))


@pytest.mark.slow
def test_other_estimators_and_selection_count_from_then_on(bench, tmp_path):
    bench.train(tmp_path, stop_after=STOPPED)
    trainer = bench.train(
        tmp_path, "algorithm.adv_estimator=grpo", "allocator.n_min=2", "allocator.baseline=mean"
    )
    check_sums(tmp_path, trainer, 12)
    assert not (tmp_path / "global_step_9" / BASELINE_FILE).exists()


def test_the_budget_of_dynamic_sampling_is_open(bench, tmp_path):
    """verl's filter_groups samples as much as it needs. Resumed without it, the rest has a budget again."""
    bench.train(tmp_path, "allocator=uniform", stop_after=STOPPED)
    state = load_state(tmp_path / "global_step_6" / STATE_FILE)
    state["ledger"] = {"spent": 5 * SHARE, "total": None}
    save_state(state, tmp_path / "global_step_6" / STATE_FILE)
    trainer = bench.train(tmp_path, "allocator=uniform")
    assert trainer.scheduler.allocator.ledger.spent == trainer.scheduler.allocator.ledger.total == 11 * SHARE


# ---- machines ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_another_number_of_gpus_changes_no_allocation(bench, tmp_path):
    """Where verl can load the model, as Megatron's checkpoints allow."""
    lines = []
    for gpus in (1, 2, 4):
        folder = tmp_path / str(gpus)
        bench.train(folder, stop_after=STOPPED)
        trainer = bench.train(folder, f"trainer.n_gpus_per_node={gpus}")
        check_sums(folder, trainer, 12)
        lines.append([(line["prompts"], line["rollouts"]) for line in steps_of(folder)])
    assert lines[0] == lines[1] == lines[2]


def test_another_number_of_gpus_is_refused_where_each_has_its_own_file(bench, tmp_path):
    bench.train(tmp_path, stop_after=STOPPED)
    for rank in range(2):
        (tmp_path / "global_step_6" / "actor" / f"model_world_size_2_rank_{rank}.pt").touch()
    config = bench.config(tmp_path, "trainer.n_gpus_per_node=4", "trainer.nnodes=2")
    message = (
        r"n_gpus_per_node=4 x trainer.nnodes=2 are 8 processes.*global_step_6 was saved by 2.*resume with 2"
    )
    with pytest.raises(SystemExit, match=message):
        Preflight().on_job_start(config=config)
    config = bench.config(tmp_path, "trainer.n_gpus_per_node=2")
    check_resume(config, read_settings(config))


# ---- states of earlier versions ------------------------------------------------------------------


def make_older(checkpoint):
    """Take out of a checkpoint what those of version 0.1.0 did not have."""
    state = load_state(checkpoint / STATE_FILE)
    del state[PLAN]
    save_state(state, checkpoint / STATE_FILE)
    (checkpoint / STEP_FILE).unlink()


@pytest.mark.slow
@pytest.mark.parametrize(
    "overrides, last, batch, n",
    [
        ((), 12, 8, 4),
        (("data.train_batch_size=4",), 24, 4, 4),
        (("actor_rollout_ref.rollout.n=2",), 12, 8, 2),
        (("trainer.total_epochs=5",), 20, 8, 4),
    ],
)
def test_a_state_without_a_plan(bench, tmp_path, overrides, last, batch, n):
    bench.train(tmp_path, stop_after=STOPPED)
    make_older(tmp_path / "global_step_6")
    trainer = bench.train(tmp_path, *overrides)
    check_sums(tmp_path, trainer, last, batch, n)


# What version 0.1.0 wrote for allocator=cero, of two prompts, after 6 steps. Keys, names and types are that
# version's, and no code of today writes it.
PCG64 = {
    "bit_generator": "PCG64",
    "state": {"state": 35399562948360463058890781895381311971, "inc": 87136372517582989555478159403783844777},
    "has_uint32": 0,
    "uinteger": 0,
}
V2_CERO = {
    "format": "cero-allocator",
    "version": 2,
    "allocator": "cero",
    "options": {
        "rollouts_per_prompt": 4,
        "epochs": 3,
        "n_min": 0,
        "n_max": 64,
        "seed": 0,
        "rounding": "systematic",
        "forgetting": 0.9,
        "forgetting_unit": "visit",
        "prior": "fixed",
        "prior_a": 1.0,
        "prior_b": 1.0,
        "value": "signal_hard",
        "utility": "exp",
        "saturation": 1.0,
        "response": 4.0,
        "anchor": "equal",
        "prompt_step": 1.0,
        "budget_step": 1.0,
        "warm_start": True,
        "primal": "proximal",
        "step_rule": "scaled",
        "averaging": "none",
    },
    "ledger": {"spent": 192, "total": 384},
    "rng": PCG64,
    "scalars": {
        "clock": 6,
        "first_successes": 57.6,
        "first_trials": 128.0,
        "retention_1.0": 0.0,
        "retention_0.95": 0.0,
        "retention_0.9": 0.0,
        "retention_0.8": 0.0,
        "retention_0.7": 0.0,
        "retention_0.55": 0.0,
        "retention_0.4": 0.0,
        "retention_0.2": 0.0,
        "price": 0.0625,
        "steps": 6,
    },
}
V2_TABLE = {
    "id": np.array([3, 2**63 + 5], np.uint64),
    "allocated": np.array([8, 11], np.int32),
    "pending": np.array([0, 1], np.int32),
    "slope": np.array([0.36787944117144233, 0.25], np.float64),
    "last": np.array([4.0, 6.5], np.float32),
    "successes": np.array([2.8, 0.0], np.float64),
    "failures": np.array([4.2, 9.5], np.float64),
}


def write_v2(path, meta, table):
    """Write a state as version 0.1.0 did: an uncompressed archive of columns, and the rest as JSON bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {f"table.{name}": column for name, column in table.items()}
    arrays["meta.json"] = np.frombuffer(json.dumps(meta).encode(), np.uint8)
    with path.open("wb") as file:
        np.savez(file, **arrays)


def test_a_state_of_version_0_1_0(bench, tmp_path):
    """If this fails, the format has changed: say how old states are read, or how to convert them."""
    bench.train(tmp_path, stop_after=STOPPED)
    checkpoint = tmp_path / "global_step_6"
    (checkpoint / STEP_FILE).unlink()
    write_v2(checkpoint / STATE_FILE, V2_CERO, V2_TABLE)
    weights = {"format": "cero-baseline", "weights": [5.5, 128.0]}
    columns = {"id": V2_TABLE["id"], "right": np.ones(2, np.float32), "wrong": np.ones(2, np.float32)}
    write_v2(checkpoint / BASELINE_FILE, weights, columns)
    config = bench.config(tmp_path)
    check_resume(config, read_settings(config))
    trainer = bench.train(tmp_path)
    check_sums(tmp_path, trainer, 12)
    table = trainer.scheduler.allocator.table
    assert table["id"][:2].tolist() == [3, 2**63 + 5] and table["allocated"][:2].tolist() == [8, 11]
    # And what is written today has all of it still.
    state = load_state(tmp_path / "global_step_12" / STATE_FILE)
    assert set(V2_CERO) | {"table"} <= set(state) and set(V2_TABLE) <= set(state["table"])
    assert state["version"] == 2 and set(V2_CERO["options"]) <= set(state["options"])


@pytest.mark.parametrize("version", [1, 3, None])
def test_a_state_of_another_format_says_what_to_do(bench, tmp_path, version):
    bench.train(tmp_path, stop_after=STOPPED)
    write_v2(tmp_path / "global_step_6" / STATE_FILE, V2_CERO | {"version": version}, V2_TABLE)
    with pytest.raises(
        SystemExit, match=f"version {version} is not the version 2.*go on with the cero that wrote it"
    ):
        Preflight().on_job_start(config=bench.config(tmp_path))


@pytest.mark.parametrize(
    "plan", [7, {}, {"step": 6}, dict.fromkeys(("step", "last", "prompts", "rollouts", "visited"), -1)]
)
def test_a_damaged_plan_is_refused(bench, tmp_path, plan):
    bench.train(tmp_path, stop_after=STOPPED)
    path = tmp_path / "global_step_6" / STATE_FILE
    save_state(load_state(path) | {PLAN: plan}, path)
    with pytest.raises(ValueError, match="its plan is .*; the file is damaged"):
        bench.train(tmp_path)


def test_a_run_that_validates_an_asynchronous_checkpoint_only(bench, tmp_path):
    """Nothing is left to train, and what was in flight is more than that; it is taken back all the same."""
    leave_in_flight(bench.train(tmp_path, stop_after=STOPPED), tmp_path / "global_step_6")
    trainer = bench.train(tmp_path, "trainer.val_only=True", "trainer.total_epochs=1")
    assert trainer.scheduler.allocator.ledger.spent == AT * SHARE


def test_a_damaged_list_of_what_was_in_flight_is_refused_in_any_mode(bench, tmp_path):
    bench.train(tmp_path, stop_after=STOPPED)
    (tmp_path / "global_step_6" / IN_FLIGHT_FILE).write_bytes(b"nonsense")
    with pytest.raises(SystemExit, match="in_flight.npz"):
        Preflight().on_job_start(config=bench.config(tmp_path))
