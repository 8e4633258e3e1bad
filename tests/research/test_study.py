"""The study's machinery: plans, runs of a stand-in for verl, tables, the commands."""

import hashlib
import json
import os
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from cero.cli.main import main
from cero.research.study import runner as runner_module
from cero.research.study.archive import RECORDS, TABLES, pack, packed_records, read_runs
from cero.research.study.curves import read_curves
from cero.research.study.plan import chosen, lookup, make_runs, read_contenders, read_tasks
from cero.research.study.runner import RunFailed, Runner
from cero.research.study.tables import COLUMNS, make_table, read_table, write_table

pytest.importorskip("yaml")

ROOT = Path(__file__).parents[2]
STUDY = ROOT / "docs" / "results" / "study"

TASKS = """
common: [trainer.logger=console, "data.seed={seed}"]
tasks:
  sums:
    about: a stand-in
    prepare: python -c "import pathlib, sys; pathlib.Path(sys.argv[1]).mkdir(exist_ok=True)" {data}
    seeds: {tune: [0, 1], confirm: [10]}
    overrides:
      - data.train_files={data}/train.parquet
      - data.train_batch_size=2
      - actor_rollout_ref.rollout.n=5
      - trainer.total_training_steps=4
      - trainer.test_freq=2
  spare: {about: "", prepare: "true", in_study: false, seeds: {tune: [0]}, overrides: [
      data.train_batch_size=1, actor_rollout_ref.rollout.n=1, trainer.total_training_steps=1,
      trainer.test_freq=1]}
"""
CONTENDERS = """
groups: {main: [tune, confirm], peer: [tune, confirm], ablation: [tune]}
contenders:
  grpo: {about: baseline, group: main, overrides: [allocator=uniform]}
  cero: {about: this one, group: main, overrides: [allocator=cero]}
ablations:
  n_max:
    "16": {about: fewer, overrides: [allocator.n_max=16]}
"""
# Writes what the project's trainer would. `stub=` in the overrides makes it misbehave.
STUB = """
import os, subprocess, sys, time
from cero.analysis.runlog import RunLog
options = dict(word.lstrip("+").split("=", 1) for word in sys.argv[1:])
how = options.get("stub", "")
if how == "fails":
    print("noise"); print("ValueError: no good"); print("more noise"); sys.exit(3)
if how == "hangs":
    orphan = subprocess.Popen(["sleep", "600"], start_new_session=True)
    print(orphan.pid, flush=True); time.sleep(600)
if how == "leaves":
    code = "import subprocess as s; print(s.Popen(['sleep', '600'], start_new_session=True).pid, flush=True)"
    subprocess.Popen([sys.executable, "-c", code]).wait()
log = RunLog(os.path.join(options["trainer.default_local_dir"], "cero", "allocations.jsonl"))
steps, rollouts = int(options["trainer.total_training_steps"]), 30 if how == "greedy" else 10
slope = 0.02 if options["allocator"] == "cero" else 0.01
log.validation(0, 0, {"val-core/x/acc/mean@4": 0.4})
for step in range(1, steps + 1 if how != "short" else 2):
    spent = step * rollouts
    if step % int(options["trainer.test_freq"]) == 0:
        accuracy = {"val-core/x/acc/mean@4": 0.4 + slope * spent, "val-core/x/acc/best@4/mean": 1.0}
        log.validation(step, spent, accuracy)
    log.step(step, 0, 10, spent, ["a", "b"], [rollouts // 2] * 2, [1.0, 2.0], [rollouts // 2] * 2,
        {"timing_s/step": 2.0, "cero/tokens/sampled": 7.0 * rollouts, "cero/tokens/trained": 3.0,
         "cero/group/signal": 1.0, "cero/group/count": 2.0},
        sampled=rollouts, kept=rollouts, trained=rollouts)
    if how == "greedy":
        time.sleep(0.3)
"""


@pytest.fixture
def files(tmp_path):
    """Paths of a tasks.yaml and a contenders.yaml."""
    (tmp_path / "tasks.yaml").write_text(TASKS)
    (tmp_path / "contenders.yaml").write_text(CONTENDERS)
    return tmp_path / "tasks.yaml", tmp_path / "contenders.yaml"


@pytest.fixture
def runner(tmp_path):
    (tmp_path / "main_ppo.py").write_text(STUB)
    return Runner(
        tmp_path / "out",
        tmp_path / "work",
        [sys.executable, tmp_path / "main_ppo.py"],
        root=tmp_path,
        poll=0.05,
        grace=0.5,
    )


def plan(files, *more, contender="grpo", seed=0):
    """One run of the files' plan, with further overrides."""
    path = files[1]
    path.write_text(CONTENDERS.replace("[allocator=uniform]", f"[{', '.join(('allocator=uniform', *more))}]"))
    contenders, groups = read_contenders(path)
    runs = make_runs([read_tasks(files[0])["sums"]], [contenders[contender]], groups, seeds=[seed])
    return runs[0]


# ---- tables --------------------------------------------------------------------------------------


def step_record(**more):
    metrics = {"timing_s/step": 3.0, "timing_s/gen": 2.0, "timing_s/agent_loop/min": 1.0}
    record = {
        "kind": "step", "step": 1, "epoch": 0, "budget": 8, "spent": 8, "prompts": ["a", "b", "c"],
        "rollouts": [4, 4, 0], "successes": [4, 2, 0], "trials": [4, 4, 0],
        "metrics": metrics | {"cero/group/signal": 0.5, "cero/group/count": 2.0},
    }  # fmt: skip
    metrics = record["metrics"] | more.pop("metrics", {})
    return record | more | {"metrics": metrics}


def test_table_of_a_step():
    validation = {"kind": "validation", "step": 1, "spent": 8, "metrics": {
        "val-core/x/acc/mean@4": 0.5, "val-core/y/acc/mean@4": 0.7, "val-core/y/acc/best@4/mean": 1.0,
    }}  # fmt: skip
    first = validation | {"step": 0, "spent": 0}
    counted = {"cero/tokens/sampled": 40.0, "cero/tokens/trained": 25.0}
    before, row = make_table([first, validation, step_record(sampled=8, trained=5, metrics=counted)])
    assert row["accuracy"] == pytest.approx(0.6) and before["accuracy"] == pytest.approx(0.6)
    counted = {
        "step": 1,
        "rollouts_spent": 8,
        "rollouts": 8,
        "rollouts_trained": 5,
        "groups": 2,
        "signal": 0.5,
    }
    assert {key: row[key] for key in counted} == counted
    assert (row["tokens"], row["tokens_trained"], row["seconds"], row["seconds_gen"]) == (40, 25, 3, 2)
    assert not any("agent_loop" in column for column in row)


def test_table_without_counts():
    """Older logs: what was sampled was trained on; tokens from verl's mean length, or unknown."""
    row = make_table([step_record()])[0]
    assert (
        row["rollouts"] == row["rollouts_trained"] == 8
        and np.isnan(row["tokens"])
        and np.isnan(row["accuracy"])
    )
    row = make_table([step_record(metrics={"response_length/mean": 5.0})])[0]
    assert row["tokens"] == row["tokens_trained"] == 40


def test_table_of_dynamic_sampling():
    """Filtered groups never come back: they count as rollouts, and as tokens of the usual length."""
    record = step_record(
        rollouts=[4, 4, 4], trials=[4, 0, 0], sampled=12, trained=4, spent=12,
        metrics={"cero/tokens/sampled": 20.0, "cero/tokens/trained": 20.0, "cero/group/signal": 1.0,
                 "cero/group/count": 1.0},
    )  # fmt: skip
    row = make_table([record])[0]
    assert (row["rollouts"], row["rollouts_trained"], row["tokens"], row["tokens_trained"]) == (12, 4, 60, 20)
    assert row["signal"] == pytest.approx(1 / 3)


def test_table_round_trip(tmp_path):
    rows = make_table([step_record(step=step, spent=8 * step) for step in (1, 2)])
    write_table(tmp_path / "a" / "0.csv", rows, {"seed": 0})
    assert json.loads((tmp_path / "a" / "0.json").read_text()) == {"seed": 0}
    table = read_table(tmp_path / "a" / "0.csv")
    assert table["rollouts_spent"].tolist() == [8, 16] and np.isnan(table["accuracy"]).all()
    assert list(tmp_path.glob("a/*.tmp")) == []
    (tmp_path / "bad.csv").write_text("step\n1\n")
    with pytest.raises(ValueError, match="bad.csv lacks the column 'rollouts_spent'"):
        read_table(tmp_path / "bad.csv")
    with pytest.raises(ValueError, match="no training step"):
        make_table([])


# ---- the plan ------------------------------------------------------------------------------------


def test_plan(files):
    tasks = read_tasks(files[0])
    contenders, groups = read_contenders(files[1])
    assert (tasks["sums"].budget, tasks["sums"].interval) == (40, 20)
    assert contenders["n_max-16"].overrides == ("allocator=cero", "allocator.n_max=16")
    assert contenders["n_max-16"].group == "ablation:n_max" and contenders["n_max-16"].allocator == "cero"
    runs = make_runs([tasks["sums"]], list(contenders.values()), groups)
    # Seed by seed; the ablation is for tuning only.
    assert [run.name.removeprefix("sums/") for run in runs] == [
        "grpo/0", "cero/0", "n_max-16/0", "grpo/1", "cero/1", "n_max-16/1", "grpo/10", "cero/10"
    ]  # fmt: skip
    assert lookup(runs[3].overrides, "data.seed") == "1" and runs[-1].split == "confirm"
    assert lookup(("a=1", "a=2=3"), "a") == "2=3" and lookup((), "a") is None
    with pytest.raises(ValueError, match="'nobody' is not known; there are grpo, cero"):
        chosen(["nobody"], contenders, "contender")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("trainer.test_freq=2", "trainer.test_freq=3", "no multiple of trainer.test_freq"),
        ("trainer.test_freq=2", "trainer.test_freq=often", "trainer.test_freq=often"),
        ("confirm: [10]", "confirm: [1]", "both for tuning and for confirming"),
        ("confirm: [10]", "final: [10]", "'final' is not known"),
        ("about: a stand-in", "abuot: a stand-in", "'abuot' is not known"),
    ],
)
def test_tasks_are_checked(files, old, new, message):
    files[0].write_text(TASKS.replace(old, new, 1))
    with pytest.raises(ValueError, match=message):
        read_tasks(files[0])


def test_shapes_and_bases(files):
    """A shape adds a contender; a base hands down overrides and steps; ablations have a base of their own."""
    files[1].write_text(
        CONTENDERS.replace(
            "contenders:", "shapes: {n2: {about: small, overrides: [n=2], steps: 2}}\ncontenders:", 1
        )
        .replace("about: this one, group: main,", "about: this one, group: main, shapes: [n2], steps: 1.5,")
        .replace("ablations:", "ablate: cero-n2\nablations:")
    )
    contenders, _ = read_contenders(files[1])
    assert list(contenders) == ["grpo", "cero", "cero-n2", "n_max-16"]
    small, ablation = contenders["cero-n2"], contenders["n_max-16"]
    assert small.overrides == ("allocator=cero", "n=2") and small.steps == ablation.steps == 3
    assert small.about == "this one; small" and small.group == "main"
    assert ablation.overrides == ("allocator=cero", "n=2", "allocator.n_max=16")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("about: fewer,", "about: fewer, shapes: [n3],", "its shape 'n3'"),
        ("  grpo:", "  base:", "there must be a contender 'grpo'"),
        (
            "group: main, overrides: [allocator=cero]",
            "group: best, overrides: []",
            "'best' is none of main, peer, ablation",
        ),
        ("about: fewer,", "about: fewer, base: nobody,", "its base 'nobody'"),
        ("about: fewer,", "about: fewer, steps: 0.5,", "steps=0.5"),
    ],
)
def test_contenders_are_checked(files, old, new, message):
    files[1].write_text(CONTENDERS.replace(old, new, 1))
    with pytest.raises(ValueError, match=message):
        read_contenders(files[1])


# ---- execution -----------------------------------------------------------------------------------


def test_a_run_leaves_its_table(files, runner):
    run = plan(files)
    assert runner.state(run) == "new"
    seen = []
    about = runner.execute(run, lambda records: seen.append(len(records)))
    assert runner.state(run) == "finished" and seen[-1] == 7
    assert about["ended"] == "complete" and about["overrides"] == list(run.overrides)
    assert about["cores"] == os.cpu_count() and about["versions"]["numpy"] and about["warm_start"] is None
    table = read_table(runner.table(run))
    assert table["accuracy"][[0, 2, 4]].tolist() == pytest.approx([0.4, 0.6, 0.8])
    assert "{data}" in lookup(about["overrides"], "data.train_files")  # no paths of this machine
    assert runner.data(run.task).is_dir()
    # Other settings: neither finished nor overwritten unasked.
    assert runner.state(plan(files, "allocator.seed=5")) == "other"


def test_failures_are_recorded_and_tried_again(files, runner):
    run = plan(files, "+stub=fails")
    with pytest.raises(RunFailed, match="ended with 3: ValueError: no good"):
        runner.execute(run)
    assert runner.state(run) == "failed" and not runner.table(run).exists()
    assert "no good" in json.loads((runner.folder(run) / "failure.json").read_text())["error"]
    runner.execute(plan(files))
    assert runner.state(plan(files)) == "finished"
    with pytest.raises(RunFailed, match="at step 1 of 4"):
        runner.execute(plan(files, "+stub=short"))


def test_a_task_that_cannot_be_prepared(files, runner):
    files[0].write_text(TASKS.replace("import pathlib, sys;", "raise SystemExit('no disk');"))
    for _ in range(2):
        with pytest.raises(RunFailed, match="task sums: preparing it ended with 1: no disk"):
            runner.execute(plan(files))


def test_an_unfinished_run_starts_anew(files, runner):
    run = plan(files)
    log = runner.folder(run) / "cero" / "allocations.jsonl"
    log.parent.mkdir(parents=True)
    log.write_text(json.dumps(step_record(step=1)) + '\n{"kind": "st')
    runner.execute(run)
    assert read_table(runner.table(run))["step"].tolist() == [0, 1, 2, 3, 4]


def test_a_run_beyond_the_budget_is_ended(files, runner):
    """Steps of 30 rollouts where 40 are the budget: ended after the validation at 60."""
    run = plan(files, "+stub=greedy")
    about = runner.execute(run)
    assert about["ended"] == "budget"
    assert read_table(runner.table(run))["rollouts_spent"].max() < 120
    (one,) = read_curves(runner.out)
    assert one.rollouts == 40


def gone(pid):
    deadline = time.monotonic() + 10
    while psutil.pid_exists(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not psutil.pid_exists(pid)


@pytest.mark.skipif(sys.platform != "linux", reason="orphans are adopted on Linux only")
def test_no_process_is_left(files, runner):
    """Not by an interrupted run, nor by one that ends well but leaves an orphan in a session of its own."""

    def interrupt(records):
        if log.exists() and log.read_text().strip():
            raise KeyboardInterrupt

    run = plan(files, "+stub=hangs")
    log = runner.folder(run) / "train.log"
    with pytest.raises(KeyboardInterrupt):
        runner.execute(run, interrupt)
    assert gone(int(log.read_text()))
    assert runner.state(run) == "new"
    runner.execute(plan(files, "+stub=leaves"))
    assert gone(int(log.read_text()))


def test_a_run_that_hangs_is_ended(files, runner):
    runner.stall = 0.5
    with pytest.raises(RunFailed, match="nothing was heard of it"):
        runner.execute(plan(files, "+stub=hangs"))


def test_one_at_a_time(runner):
    with runner.alone(), pytest.raises(ValueError, match="another benchmark runs"):
        with Runner(runner.out, runner.work).alone():
            pass


# ---- the commands --------------------------------------------------------------------------------


@pytest.fixture
def cli(files, runner, tmp_path, monkeypatch):
    """`cli(*arguments)`: `cero benchmark` on the stand-in; returns its exit status."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runner_module, "MAIN", (sys.executable, str(tmp_path / "main_ppo.py")))

    def cli(*arguments):
        words = [
            "--task-file",
            files[0],
            "--contender-file",
            files[1],
            "--out",
            "out",
            "--work",
            "work",
            *arguments,
        ]
        try:
            main(["benchmark", *map(str, words)])
        except SystemExit as error:
            return error.code
        return 0

    return cli


def test_benchmark_resumes_and_study_reports(cli, files, capsys):
    assert cli("--dry-run", "--groups", "all") == 0
    shown = capsys.readouterr().out
    assert shown.count("main_ppo.py") == 8 and "# sums/cero/0 (tune): new" in shown and "spare" not in shown

    files[1].write_text(CONTENDERS.replace("[allocator=cero]", "[allocator=cero, +stub=fails]"))
    assert cli("--seeds", "0,1") == 1
    shown = capsys.readouterr().out
    assert (
        "2 failed (sums/cero/0, sums/cero/1)" in shown
        and "FAILED: it ended with 3: ValueError: no good" in shown
    )
    assert sorted(path.as_posix() for path in Path("out").rglob("*.csv")) == [
        "out/sums/grpo/0.csv",
        "out/sums/grpo/1.csv",
    ]

    before = Path("out/sums/grpo/0.csv").stat().st_mtime_ns
    files[1].write_text(CONTENDERS)
    assert cli("--seeds", "0,1", "--groups", "all", "--minutes", "10") == 0
    assert "6 runs, 2 done before, 4 to go" in capsys.readouterr().out
    assert Path("out/sums/grpo/0.csv").stat().st_mtime_ns == before

    main(["study", "out", "--out", "report"])
    assert "sums, seeds to tune" in capsys.readouterr().out
    results = json.loads(Path("report/results.json").read_text())
    # Both rise evenly, cero twice as steeply: half the rollouts once the smoothing is the same.
    assert {r["allocator"] for r in results} == {"grpo", "cero", "n_max-16"} and len(results) == 6
    assert {r["split"] for r in results} == {"tune"} and all(r["rollouts"] == 40 for r in results)
    by = {(r["allocator"], r["seed"]): r["rollouts_to_uniform_final"] for r in results}
    assert by["grpo", 0] == 1 and by["cero", 0] < 0.8
    text = Path("report/report.md").read_text()
    assert (
        "| cero | 2 |" in text
        and "(study-sums-tune.png)" in text
        and "(study-sums-tune-ablations.png)" in text
    )
    assert (
        Path("report/study-sums-tune.png").stat().st_size > 10_000
        and Path("report/study-sums-tune-ablations.png").exists()
    )
    assert "`cero-n2` against each" not in text

    main(["study", "out", "--out", "report", "--champion", "cero"])
    text = Path("report/report.md").read_text()
    assert "`cero` against each:" in text and "| grpo | 2 | +" in text


def test_benchmark_says_what_it_leaves_alone(cli, files, capsys):
    assert cli("--contenders", "grpo", "--seeds", "0") == 0
    files[1].write_text(CONTENDERS.replace("[allocator=uniform]", "[allocator=uniform, allocator.n_max=9]"))
    assert cli("--contenders", "grpo", "--seeds", "0") == 0
    assert "out/sums/grpo/0.csv was made with other settings" in capsys.readouterr().out
    assert cli("--contenders", "grpo", "--seeds", "0", "--redo") == 0
    assert "allocator.n_max=9" in Path("out/sums/grpo/0.json").read_text()
    assert cli("--minutes", "0", "--seeds", "1") == 0
    assert "0 minutes are over: 2 runs left" in capsys.readouterr().out


def test_packed_runs_count_and_read_as_single_ones(cli, files, capsys):
    """Packed runs are finished, and the report is the same; a new table of a run replaces its packed one."""
    assert cli("--contenders", "grpo,cero", "--seeds", "0,1") == 0
    main(["study", "out", "--out", "before"])
    single = read_runs("out")
    before = Path("out/sums/grpo/0.csv").read_text()
    main(["study", "out", "--out", "after", "--pack"])
    assert sorted(path.name for path in Path("out").iterdir()) == [TABLES, RECORDS]
    for name in ("report.md", "results.json"):
        assert Path("after", name).read_bytes() == Path("before", name).read_bytes()
    packed = read_runs("out")
    assert len(packed) == 4 and packed_records("out")["sums", "grpo", 0]["seed"] == 0
    for (_, old, about), (_, new, record) in zip(single, packed, strict=True):
        assert all(np.array_equal(old[name], new[name], equal_nan=True) for name in COLUMNS)
        assert record == about | {"phase_seconds": {}}
    again = Path("out", TABLES).read_bytes()
    assert pack("out") == 0 and Path("out", TABLES).read_bytes() == again

    capsys.readouterr()
    assert cli("--contenders", "grpo,cero", "--seeds", "0,1") == 0
    assert "4 runs, 4 done before, 0 to go" in capsys.readouterr().out
    files[1].write_text(CONTENDERS.replace("[allocator=uniform]", "[allocator=uniform, allocator.n_max=9]"))
    assert cli("--contenders", "grpo", "--seeds", "0") == 0
    assert f"out/{TABLES}, sums/grpo/0, was made with other settings" in capsys.readouterr().out
    assert cli("--contenders", "grpo", "--seeds", "0", "--redo") == 0
    assert Path("out/sums/grpo/0.csv").read_text() == before and len(read_runs("out")) == 4
    assert (
        "allocator.n_max=9" in [r for w, _, r in read_runs("out") if w.endswith("grpo/0.csv")][0]["overrides"]
    )
    assert pack("out") == 1 and "allocator.n_max=9" in packed_records("out")["sums", "grpo", 0]["overrides"]
    assert Path("out", TABLES).read_bytes() == again  # whatever the order in which runs came


def test_packed_tables_hold_a_steps_columns_and_the_runs_phases(tmp_path):
    rows = make_table([step_record(step=step, spent=8 * step) for step in (1, 2)])
    about = {"task": "a", "contender": "b", "seed": 0}
    write_table(tmp_path / "a" / "b" / "0.csv", rows, about)
    assert pack(tmp_path) == 1
    ((where, table, record),) = read_runs(tmp_path)
    assert where == f"{tmp_path / TABLES}, a/b/0" and list(table) == list(COLUMNS)
    assert record == about | {"phase_seconds": {"gen": 4.0}}
    (tmp_path / RECORDS).unlink()
    with pytest.raises(ValueError, match="a/b/0: runs.jsonl.bz2 has no record"):
        read_runs(tmp_path)
    write_table(tmp_path / "a" / "c" / "0.csv", rows, about)
    (tmp_path / "a" / "c" / "0.json").write_text("{")
    with pytest.raises(ValueError, match="0.csv"):
        pack(tmp_path)
    assert (tmp_path / "a" / "c" / "0.csv").exists()


def test_the_studys_runs_are_there():
    """The shipped runs: each has a curve, and pandas reads them in one line each."""
    pandas = pytest.importorskip("pandas")
    curves = read_curves(STUDY)
    assert len(curves) == len(packed_records(STUDY)) >= 250
    assert set(COLUMNS) <= set(pandas.read_csv(STUDY / TABLES))
    assert len(pandas.read_json(STUDY / RECORDS, lines=True)) == len(curves)


@pytest.mark.parametrize("task", ["letters", "arithmetic"])
def test_warm_starts_are_those_of_the_runs(task, monkeypatch):
    """Unpacked, the weights have the digest that is in the record of every run of the task."""
    monkeypatch.syspath_prepend(ROOT / "scripts" / "benchmark")
    import prepare

    weights = prepare.unpack(prepare.packed(task).read_bytes())
    records = [record for key, record in packed_records(STUDY).items() if key[0] == task]
    assert {record["warm_start"] for record in records} == {hashlib.sha256(weights).hexdigest()[:16]}
    assert prepare.unpack(prepare.pack(weights[:4000])) == weights[:4000]


def test_benchmark_says_that_it_needs_a_checkout(tmp_path, monkeypatch, capsys):
    """From an installed package there are no task files and no examples: one line, and nothing is made."""
    monkeypatch.chdir(tmp_path)
    said = []
    for words in ([], ["--dry-run"], ["--task-file", "my.yaml"], ["--task-file", "tasks.yaml"]):
        if words[-1:] == ["tasks.yaml"]:
            (tmp_path / "tasks.yaml").write_text(
                TASKS.replace('python -c "import', 'python examples/x.py "import')
            )
            (tmp_path / "contenders.yaml").write_text(CONTENDERS)
            words += ["--contender-file", "contenders.yaml"]
        with pytest.raises(SystemExit) as error:
            main(["benchmark", *words])
        assert error.value.code == 2 and not (tmp_path / "runs").exists()
        said.append(capsys.readouterr().err)
    assert said[0] == said[1] and all(text.count("\n") == 1 for text in said)
    assert "scripts/benchmark/tasks.yaml is not here; `cero benchmark` needs a checkout" in said[0]
    assert "there is no file my.yaml" in said[2]
    assert "examples/x.py is not here; `cero benchmark` needs a checkout" in said[3]


def test_benchmark_says_that_it_needs_verl(files, tmp_path):
    runner = Runner(tmp_path / "out", tmp_path / "work", [sys.executable, "-m", "no_such_package.main"])
    assert "verl is not installed" in runner.missing([plan(files)])
    assert Runner(tmp_path, tmp_path, [sys.executable, "-m", "json.tool"]).missing([plan(files)]) is None


def test_commands_refuse(cli, capsys, tmp_path):
    assert (
        cli("--tasks", "nowhere") == 2
        and "task 'nowhere' is not known; there are sums" in capsys.readouterr().err
    )
    assert cli("--groups", "rest") == 2 and "group 'rest' is not known" in capsys.readouterr().err
    assert cli("--splits", "test") == 2
    with pytest.raises(SystemExit):
        main(["study", str(tmp_path / "empty")])
    assert "no tables of runs" in capsys.readouterr().err
