"""Damaged, foreign and oddly named files: each is named in one line, and what could be read is shown."""

import io
import json
import os
import random
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from test_comparison import write_job
from test_report import write_run

from cero.analysis import comparison
from cero.analysis.inspection import as_json, inspect, inspection_tables
from cero.analysis.reading import describe, one_line, parse_object
from cero.analysis.report import run_table, summarise_run
from cero.analysis.run import NoStepsError, TrainingRun, find_log
from cero.analysis.runlog import RunLog, read_log
from cero.analysis.watch import status, watch
from cero.cli import output
from cero.cli.main import main

DEEP = b"[" * 100_000 + b"]" * 100_000
STEP = {
    "kind": "step",
    "step": 3,
    "epoch": 0,
    "budget": 32,
    "spent": 96,
    "prompts": ["0" * 16],
    "rollouts": [32],
    "successes": [4.5],
    "trials": [32],
    "metrics": {},
}
DAMAGED = {
    "nested": DEEP,
    "nested object": b'{"kind": "step", "step": 3, "metrics": ' + b'{"a":' * 50_000 + b"1" + b"}" * 50_001,
    "not utf-8": b'{"kind": "step", "step": 3, "name": "\xff\xfe"}',
    "nul": b'{"kind": "st\x00ep", "step": 3}',
    "only nul": bytes(300),
    "torn inside": b'{"kind": "step", "st',
    "list": b"[1, 2]",
    "number": b"17",
    "text": b'"step"',
    "null": b"null",
    "empty object": b"{}",
    "binary": bytes(range(128, 256)),
    "long": b"x" * 5_000_000,
    "huge integer": b'{"kind": "step", "step": ' + b"9" * 5000 + b"}",
    "no step": b'{"kind": "step"}',
    "kind of a number": b'{"kind": 3, "step": 3}',
    "a kind that can't be a key": b'{"kind": ["step"], "step": 3}',
}
WRONG = {
    "step": [None, "3", 3.0, -1, True, 2**70, [3]],
    "epoch": [None, "0", -1, 0.5],
    "budget": [None, "32", -1, float("nan")],
    "spent": [None, "96", -96, [96], 10**400],
    "prompts": [None, [], "0" * 16, [7], {"0": 1}],
    "rollouts": [None, ["32"], [-1], [1.5], [[32]], [True], [32, 32], [10**30], 32],
    "successes": [None, ["4"], [-1], [float("nan")], [float("inf")], [33], [10**400], {}],
    "trials": [None, ["32"], [-1], [], [float("inf")]],
    "metrics": [None, [], {"a": "1"}, {"a": None}, {"a": [1]}, {"a": True}, {"a": 10**400}],
}


def damaged(tmp_path, line, name="run"):
    """A run of six steps with this line in the middle."""
    log = write_run(tmp_path / name / "cero" / "allocations.jsonl").path
    lines = log.read_bytes().splitlines()
    log.write_bytes(b"\n".join([*lines[:3], line, *lines[3:]]) + b"\n")
    return log


def read_all(log, tell):
    """Whatever the commands make of a log, without its pictures."""
    run = TrainingRun.read(log, tell)
    run_table(summarise_run(run))
    json.dumps(summarise_run(run), allow_nan=False)
    run.prompt_epochs()
    status(read_log(log, tell))
    figures = as_json(inspect(log, tell))
    json.dumps(figures, allow_nan=False)
    inspection_tables(figures)
    members, _ = comparison.gather([log], tell)
    rows = comparison.compare_runs(members)
    comparison.comparison_table(rows, comparison.common_range(members))
    json.dumps(rows, allow_nan=False)
    return run


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_line_that_is_no_record(tmp_path, kind):
    log, told = damaged(tmp_path, DAMAGED[kind]), []
    run = read_all(log, told.append)
    assert run.steps.tolist() == [1, 2, 3, 4, 5, 6]
    assert (
        set(told) == {told[0]}
        and told[0].startswith(f"{log}, line 4 is not a record")
        and "\n" not in told[0]
    )
    assert len(told[0]) < len(str(log)) + 300
    with pytest.raises(ValueError, match="line 4 is not a record"):
        read_log(log)


@pytest.mark.parametrize(
    "key, value",
    [pytest.param(key, value, id=f"{key}-{n}") for key in WRONG for n, value in enumerate(WRONG[key])],
)
def test_a_step_with_a_wrong_value(tmp_path, key, value):
    for changed in (STEP | {key: value}, {k: v for k, v in STEP.items() if k != key}):
        log, told = damaged(tmp_path, json.dumps(changed).encode(), name=f"run{len(changed)}"), []
        run = read_all(log, told.append)
        assert run.steps.tolist() == [1, 2, 3, 4, 5, 6]
        assert set(told) == {told[0]} and f"{log}, line 4 is no" in told[0] and key in told[0]


def test_ids_that_are_no_ids(tmp_path):
    told = []
    log = damaged(tmp_path, json.dumps(STEP | {"prompts": [" " * 16]}).encode())
    assert inspect(log, told.append).summary["steps"] == 6 and "line 4" in told[0] and "16 hex" in told[0]


def test_many_damaged_lines_are_one_message(tmp_path):
    log = write_run(tmp_path / "allocations.jsonl").path
    log.write_bytes(b"a\n" * 5 + log.read_bytes() + b"\n\n[]\n")
    told = []
    assert TrainingRun.read(log, told.append).steps.size == 6
    (message,) = told
    assert message.startswith(f"{log}, line 1 is not a record") and "5 more" in message


def test_nothing_but_damage_says_so(tmp_path, capsys):
    for text in (b"", b"\n\n", b"nonsense\n", DEEP, bytes(10), b'{"kind": "step", "st'):
        (tmp_path / "allocations.jsonl").write_bytes(text)
        for command in (["report"], ["inspect"]):
            with pytest.raises(SystemExit, match="2"):
                main([*command, str(tmp_path)])
            printed = capsys.readouterr()
            assert "allocations.jsonl" in printed.err and "no training step" in printed.err
            assert printed.out == "" and printed.err.count("\n") <= 2
    assert status([]) == (0, None, "starting Ray, the trainer and the engine")


@pytest.mark.parametrize(
    "steps, kept, line",
    [
        ([1, 2, 3, 4, 3, 4, 5], [1, 2, 3, 4, 5], 5),
        ([1, 2, 2], [1, 2], 3),
        ([1, 2, 3, 1], [1], 4),
        ([5, 4, 3], [3], 2),
        ([1, 9, 2, 3], [1, 2, 3], 3),
    ],
)
def test_steps_that_are_there_twice(tmp_path, steps, kept, line):
    """The later line counts, as it does when a run rewinds its log."""
    log = RunLog(tmp_path / "allocations.jsonl")
    for number, step in enumerate(steps):
        log.step(step, 0, 8, 8 * step, ["0" * 16], [8], [number % 8], [8], {})
    told = []
    run = read_all(log.path, told.append)
    assert run.steps.tolist() == kept and run.successes[-1][0] == len(steps) - 1
    assert set(told) == {told[0]} and f"{log.path}, line {line} goes back to step" in told[0]
    assert inspect(log.path, told.append).columns["visits"].tolist() == [len(kept)]


def test_a_run_resumed_without_a_rewind_keeps_its_validations_in_order(tmp_path):
    log = RunLog(tmp_path / "allocations.jsonl")
    for step in (0, 1, 2, 3, 4, None, 2, 3, 4):
        if step is None:
            continue
        log.validation(step, 8 * step, {"val-core/x/acc/mean@1": 0.5})
        if step:
            log.step(step, 0, 8, 8 * step, ["0" * 16], [8], [4], [8], {})
    spent, _ = TrainingRun.read(tmp_path, [].append).accuracy()
    assert spent.tolist() == [0, 8, 16, 24, 32]
    # A step is validated before its line is written: that is no going back.
    told = []
    log = RunLog(tmp_path / "whole.jsonl")
    for step in (1, 2, 3):
        log.validation(step, 8 * step, {})
        log.step(step, 0, 8, 8 * step, ["0" * 16], [8], [4], [8], {})
    assert len(read_log(log.path, told.append)) == 6 and not told


def test_metrics_that_are_missing_or_no_finite_numbers(tmp_path):
    log = RunLog(tmp_path / "allocations.jsonl")
    odd = {
        "cero/budget/total": float("inf"),
        "timing_s/step": float("nan"),
        "cero/group/signal": float("nan"),
    }
    for metrics in ({}, odd):
        log.step(1, 0, 8, 8, ["0" * 16], [8], [4], [8], metrics)
        run = read_all(log.path, [].append)
        summary = summarise_run(run)
        assert (
            summary["budget"] is None and summary["step_seconds"] is None and summary["signal_last"] is None
        )
    log.validation(1, 8, {"val-core/x/acc/mean@1": float("nan")})
    assert summarise_run(read_all(log.path, [].append))["accuracy_after"] is None


# ---- any bytes -----------------------------------------------------------------------------------

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just(2**63),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
steps = st.builds(
    lambda key, value, step: json.dumps(STEP | {"step": step} | ({key: value} if key else {})).encode(),
    st.sampled_from([None, *STEP]),
    values,
    st.integers(0, 5),
)
validations = st.builds(
    lambda step, metrics: json.dumps(
        {"kind": "validation", "step": step, "spent": 32 * step, "metrics": metrics}
    ).encode(),
    st.integers(0, 5),
    st.dictionaries(st.sampled_from(["val-core/x/acc/mean@1", "a"]), st.floats() | values, max_size=2),
)
lines = (
    steps
    | validations
    | st.binary(max_size=30)
    | st.sampled_from([DAMAGED[k] for k in DAMAGED if k != "long"])
    | values.map(lambda value: json.dumps(value).encode())
)


@pytest.mark.slow
@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(lines, max_size=8), st.sampled_from([b"\n", b"\r\n", b""]), st.binary(max_size=3))
@example([b'{"kind": "step"}', json.dumps(STEP | {"metrics": {"a\x1f\n": None}}).encode()], b"\n", b"")
def test_any_lines(tmp_path, written, end, last):
    log = tmp_path / "allocations.jsonl"
    log.write_bytes(b"".join(line.replace(b"\n", b"") + b"\n" for line in written)[: -1 or None] + end + last)
    told = []
    try:
        run = read_all(log, told.append)
    except ValueError as error:
        assert isinstance(error, NoStepsError) or "no training step" in str(error)
    else:
        assert (np.diff(run.steps) > 0).all()
    for message in told:
        assert str(log) in message and "line " in message and message == one_line(message)


@settings(max_examples=300, deadline=None)
@given(st.text())
def test_one_line_is_one_line(text):
    shown = one_line(text)
    assert len(shown.splitlines()) <= 1 and "\x1b" not in shown
    shown.encode("utf-8")
    if text.isalnum():
        assert shown == text


def test_objects_only():
    assert parse_object(b'{"a": 1}') == {"a": 1}
    for text in (b"", b"[]", b"1", DEEP, b'{"a": ' + b"9" * 5000 + b"}", b"\xff"):
        with pytest.raises(ValueError):
            parse_object(text)
    assert describe(FileNotFoundError(2, "No such file", "a\nb")) == "a\\nb: No such file"


# ---- names ---------------------------------------------------------------------------------------

NAMES = [
    "run[seed=1]",
    "run[bold]x",
    "run[",
    "[link=a]b",
    "two words",
    "new\nline",
    "100%s%(a)d",
    "läuft-走る",
    "$x^$_{",
    "_hidden",
    ":smile:",
    "\x1b[31mred",
    "*",
    "?",
    "{a}",
    "²",
    "-",
    "run.jsonl",
    "caf\udce9",
]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["run[seed=1]", "run[/x]", "new\nline", "$x^$_{", "caf\udce9", "run.jsonl"])
def test_names_of_folders(tmp_path, capsys, name):
    run = tmp_path / name
    write_run(run / "cero" / "allocations.jsonl")
    main(["report", str(run)])
    printed = capsys.readouterr()
    shown = f"Picture: {one_line(run)}/cero/report.png\n"
    assert (
        shown in printed.out and printed.err == "" and (run / "cero" / "report.png").stat().st_size > 10_000
    )
    main(["inspect", str(run)])
    assert capsys.readouterr().out.startswith(f"log {one_line(run)}/cero/allocations.jsonl\n")


@pytest.mark.slow
def test_names_of_several(tmp_path, capsys):
    """All names at once: each is a row of the table, whatever is in it, and the picture has them all."""
    for name in NAMES:
        write_job(tmp_path / "all" / name, [f"a.b={name}", f"allocator={name}"], [0.25, 0.5], name)
    main(["report", str(tmp_path / "all"), "--title", "[/x] $y$", "--csv", str(tmp_path / "[a].csv")])
    printed = capsys.readouterr()
    assert printed.err == "" and printed.out.startswith("[/x] $y$")
    for name in NAMES:
        if " " not in name:  # cells are wrapped at spaces
            assert one_line(name)[:8] in printed.out
    assert (
        f"Table: {tmp_path}/[a].csv\n" in printed.out
        and f"Picture: {tmp_path}/all/report.png\n" in printed.out
    )
    assert (tmp_path / "[a].csv").read_text().count("\n") >= len(NAMES) + 1


@pytest.mark.slow
def test_a_title_that_looks_like_markup(tmp_path, capsys):
    write_run(tmp_path / "allocations.jsonl")
    for title in ("run[/x]", "$ a\nb"):
        main(["report", str(tmp_path), "--title", title, "--out", str(tmp_path / "[b]" / "p.png")])
        out = capsys.readouterr().out
        assert one_line(title) in out and f"Picture: {tmp_path}/[b]/p.png\n" in out


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.text(st.characters(exclude_characters="/\0"), min_size=1, max_size=12))
def test_any_name(tmp_path_factory, name):
    tmp_path = tmp_path_factory.mktemp("any")
    try:
        write_run(tmp_path / name / "cero" / "allocations.jsonl", steps=1)
    except (OSError, UnicodeError):
        return  # no name for a folder
    if name in (".", ".."):
        return
    (found,) = comparison.find_runs([tmp_path] if not name.startswith(".") else [tmp_path / name])
    run_table(summarise_run(TrainingRun.read(found)), title=str(found))
    assert found == tmp_path / name


# ---- places --------------------------------------------------------------------------------------


def test_a_folder_where_a_file_is_expected(tmp_path, capsys):
    (tmp_path / "cero" / "allocations.jsonl").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match="is a folder"):
        find_log(tmp_path)
    for command in ("report", "inspect"):
        with pytest.raises(SystemExit, match="2"):
            main([command, str(tmp_path)])
        assert capsys.readouterr().err.count("\n") == 1


def test_a_log_by_any_name(tmp_path):
    log = write_run(tmp_path / "allocations.jsonl.old").path
    assert TrainingRun.read(log).steps.size == 6


def test_a_log_that_may_not_be_read(tmp_path, capsys, monkeypatch):
    write_job(tmp_path / "a", [], [0.25, 0.75])
    write_job(tmp_path / "b", [], [0.25, 0.75])
    real = Path.open

    def refuse(path, *args, **kwargs):
        if "/b/" in str(path) and path.suffix == ".jsonl":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *args, **kwargs)

    monkeypatch.setattr(Path, "open", refuse)
    for command in ("report", "inspect"):
        with pytest.raises(SystemExit, match="2"):
            main([command, str(tmp_path / "b")])
        log = tmp_path / "b" / "cero" / "allocations.jsonl"
        assert capsys.readouterr().err == f"cero {command}: {log}: Permission denied\n"
    monkeypatch.chdir(tmp_path)  # where the picture of several runs goes
    main(["report", str(tmp_path / "a"), str(tmp_path / "b")])
    assert f"Left out: {tmp_path}/b" in capsys.readouterr().out


@pytest.mark.slow
def test_a_picture_that_may_not_be_written(tmp_path, capsys, monkeypatch):
    """The table is shown; only who named the place is told by the exit status."""
    write_run(tmp_path / "allocations.jsonl")

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied", "report.png")

    monkeypatch.setattr("cero.analysis.figures.write_small", refuse)
    main(["report", str(tmp_path)])
    printed = capsys.readouterr()
    assert "192 of 192" in printed.out and printed.err == (
        "cero report: there is no picture: report.png: Permission denied\n"
    )
    with pytest.raises(SystemExit, match="2"):
        main(["report", str(tmp_path), "--out", str(tmp_path / "a.png")])


def test_links_that_go_round(tmp_path):
    write_job(tmp_path / "a" / "run", [], [0.25, 0.75])
    for name in ("one", "two", "a/three"):
        (tmp_path / name).symlink_to(tmp_path)
    assert [path.name for path in comparison.find_runs([tmp_path])] == ["run"]


def test_watch_ends_with_the_last_step(tmp_path, monkeypatch):
    """Without a terminal it prints every tenth step, and the last one in any case."""
    from rich.console import Console

    log = RunLog(tmp_path / "cero" / "allocations.jsonl")
    for step in range(1, 5):
        log.step(step, 0, 8, 8 * step, ["0"], [8], [4], [8], {"cero/budget/total": 40.0})
    log.validation(4, 32, {"val-core/x/acc/mean@1": 0.99})
    looks = iter([True, False])
    monkeypatch.setattr("cero.analysis.watch.alive", lambda pid: next(looks))

    def longer(seconds):
        log.step(5, 0, 8, 40, ["0"], [8], [4], [8], {"cero/budget/total": 40.0})

    monkeypatch.setattr("cero.analysis.watch.time", SimpleNamespace(monotonic=lambda: 0.0, sleep=longer))
    console = Console(file=io.StringIO(), width=200)
    watch(tmp_path, 1, interval=0, console=console)
    assert console.file.getvalue().splitlines() == [
        "32 of 40 rollouts, step 4, validation accuracy 99.0%",
        "40 of 40 rollouts, step 5, validation accuracy 99.0%",
    ]


def test_a_process_that_is_none(tmp_path):
    for pid in (0, -1, 2**40):
        with pytest.raises(ValueError, match="--pid"):
            watch(tmp_path, pid)


def test_watch_refuses_what_is_not_running_and_left_no_log(tmp_path, monkeypatch):
    monkeypatch.setattr("cero.analysis.watch.alive", lambda pid: False)
    with pytest.raises(FileNotFoundError, match="process 7 is not running, and .*nowhere has no log"):
        watch(tmp_path / "nowhere", 7)


def test_watch_looks_more_seldom_at_a_long_log(tmp_path, monkeypatch):
    """Each look reads the whole log: together they take a twentieth of a core."""
    now, slept = [0.0], []

    def read(path, tell):
        now[0] += 3.0
        return []

    def sleep(seconds):
        slept.append(seconds)
        now[0] += seconds

    looks = iter([True, True, False])
    monkeypatch.setattr("cero.analysis.watch.alive", lambda pid: next(looks))
    monkeypatch.setattr("cero.analysis.watch._records", read)
    monkeypatch.setattr("cero.analysis.watch.time", SimpleNamespace(monotonic=lambda: now[0], sleep=sleep))
    with pytest.raises(FileNotFoundError):
        watch(tmp_path, 7)
    assert slept == [60.0, 60.0]


def test_watch_tells_once_what_it_can_not_read(tmp_path, monkeypatch, capsys):
    from rich.console import Console

    damaged(tmp_path, b"nonsense")
    looks = iter([True, True, False])
    monkeypatch.setattr("cero.analysis.watch.alive", lambda pid: next(looks))
    watch(tmp_path / "run", 1, interval=0, console=Console(width=200))
    out = capsys.readouterr().out
    assert out.count("line 4 is not a record") == 1 and "step 6" in out


@pytest.mark.slow
def test_a_terminal_without_the_letters(tmp_path, monkeypatch):
    import io
    import sys

    write_run(tmp_path / "läuft" / "allocations.jsonl")
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    main(["report", str(tmp_path / "läuft")])
    assert b"l\\xe4uft" in raw.getvalue()


@pytest.mark.slow
def test_whoever_reads_has_seen_enough(tmp_path, monkeypatch):
    write_run(tmp_path / "allocations.jsonl")

    def closed(*_, **__):
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr("cero.cli.report.run_table", closed)
    monkeypatch.setattr("cero.cli.main.os.dup2", lambda *_: None)
    with pytest.raises(SystemExit, match="1"):
        main(["report", str(tmp_path)])


# ---- what lies beside a log ----------------------------------------------------------------------

JOBS = [
    b"", b"[]", b"17", b"null", b"nonsense", DEEP, b"\xff", bytes(8), b"{}",
    b'{"overrides": null}', b'{"overrides": "a=1"}', b'{"overrides": [1]}', b'{"overrides": {"a": 1}}',
    b'{"overrides": [], "allocator": 3}', b'{"overrides": [], "allocator": ["cero"]}',
]  # fmt: skip


@pytest.mark.parametrize("job", JOBS)
def test_an_odd_job(tmp_path, capsys, job):
    write_job(tmp_path / "a", ["x=1"], [0.25, 0.75], "cero")
    write_job(tmp_path / "b", ["x=2"], [0.25, 0.5], "cero")
    path = tmp_path / "b" / "cero" / "job.json"
    path.write_bytes(job)
    with pytest.raises(ValueError, match="job.json"):
        comparison.read_job(tmp_path / "b")
    told = []
    members, left_out = comparison.gather([tmp_path], told.append)
    assert [m.allocator for m in members] == ["cero", None] and not left_out
    (message,) = told
    assert message.startswith(f"{path}: ") and message == one_line(message)


@pytest.mark.slow
@pytest.mark.parametrize(
    "text", [b"[", b"\t- a", b"a: 1", b"- 1", b"[" * 2000, b"\xff\xff", b"!!python/name:os"]
)
def test_odd_yaml_of_hydra(tmp_path, text):
    write_job(tmp_path, [], [0.25, 0.75])
    (tmp_path / "cero" / "job.json").unlink()
    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra" / "overrides.yaml").write_bytes(text)
    told = []
    assert comparison.read_job(tmp_path, told.append) == ({}, None) and "overrides.yaml" in told[0]
    (tmp_path / ".hydra" / "overrides.yaml").write_bytes(b"- a=1\n")
    (tmp_path / ".hydra" / "config.yaml").write_bytes(text)
    overrides, allocator = comparison.read_job(tmp_path, told.append)
    assert allocator is None and (overrides == {"a": "1"} or "config.yaml" in told[-1])


def test_a_job_that_is_a_folder(tmp_path):
    write_job(tmp_path, [], [0.25, 0.75])
    (tmp_path / "cero" / "job.json").unlink()
    (tmp_path / "cero" / "job.json").mkdir()
    assert comparison.read_job(tmp_path) == ({}, None)


# ---- the study's files ---------------------------------------------------------------------------


def study_files(folder):
    """Two runs of a task in files of their own."""
    from cero.research.study.tables import COLUMNS, write_table

    for seed in (0, 1):
        rows = [dict.fromkeys(COLUMNS, 1.0) | {"step": s, "rollouts_spent": 8.0 * s} for s in range(3)]
        about = {"task": "sums", "contender": "grpo", "group": "main", "seed": seed, "split": "tune"}
        write_table(folder / "sums" / "grpo" / f"{seed}.csv", rows, about | {"budget": 16, "interval": 8})


CELLS = [b"", b"nonsense", b"\xff\xfe", bytes(40), b"a,b\n1,2\n", b'"' + b"x" * 200_000 + b'"\n', DEEP]
RECORDS = [b"[]", b"{}", b"null", DEEP, b"nonsense", b"\xff", b'{"task": 3, "budget": 16, "interval": 8}',
           b'{"task": "sums", "contender": "grpo", "group": "main", "seed": 0, "split": "tune", '
           b'"budget": 1e300, "interval": 8}']  # fmt: skip


@pytest.mark.parametrize("suffix, text", [(".csv", t) for t in CELLS] + [(".json", t) for t in RECORDS])
def test_a_damaged_run_of_a_study(tmp_path, suffix, text):
    from cero.research.study.curves import read_curves

    study_files(tmp_path)
    path = tmp_path / "sums" / "grpo" / f"1{suffix}"
    path.write_bytes(text)
    with pytest.raises(ValueError, match="grpo/1"):
        read_curves(tmp_path)
    told = []
    assert [curve.seed for curve in read_curves(tmp_path, told.append)] == [0]
    assert len(told) == 1 and "grpo/1" in told[0]


def test_damaged_packed_files_of_a_study(tmp_path):
    from cero.research.study.archive import pack
    from cero.research.study.curves import read_curves

    study_files(tmp_path)
    pack(tmp_path)
    assert len(read_curves(tmp_path)) == 2
    generator = random.Random(0)
    for name in ("runs.csv.bz2", "runs.jsonl.bz2"):
        path = tmp_path / name
        whole = path.read_bytes()
        flipped = bytearray(whole)
        flipped[generator.randrange(len(whole))] ^= 16
        for text in (b"", whole[: len(whole) // 2], b"nonsense", bytes(flipped), whole + b"more"):
            path.write_bytes(text)
            told = []
            try:
                curves = read_curves(tmp_path, told.append)
            except (FileNotFoundError, ValueError):
                continue
            assert len(curves) == 2 or told
        path.write_bytes(whole)


def test_a_damaged_line_of_the_packed_records(tmp_path):
    import bz2

    from cero.research.study.archive import pack
    from cero.research.study.curves import read_curves

    study_files(tmp_path)
    pack(tmp_path)
    path = tmp_path / "runs.jsonl.bz2"
    first, second = bz2.decompress(path.read_bytes()).splitlines(keepends=True)
    for line in (b"[]\n", b"{}\n", DEEP + b"\n", b'{"task": 1}\n', b"\n"):
        path.write_bytes(bz2.compress(first + line))
        told = []
        assert [curve.seed for curve in read_curves(tmp_path, told.append)] == [0]
        assert f"{path}, line 2" in told[0] and "no record of this run" in told[-1]
        with pytest.raises(ValueError, match="line 2"):
            read_curves(tmp_path)


def test_a_drawing_elsewhere_is_not_hidden(tmp_path):
    """Only what the system says of a file is taken for a missing picture."""

    def broken(path):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        output.drawn(broken, tmp_path, None, print)


RESUMED_ON = {
    "an infinite step": b'{"kind": "step", "step": Infinity}',
    "a kind that is a list": b'{"kind": [], "step": 1}',
    "a kind that is an object": b'{"kind": {}, "step": 1}',
    "nested": DEEP,
}


@pytest.mark.parametrize("kind", RESUMED_ON)
def test_a_run_resumes_on_a_log_with_odd_lines(tmp_path, kind):
    path = tmp_path / "allocations.jsonl"
    first, last = (json.dumps(STEP | {"step": step}).encode() + b"\n" for step in (1, 2))
    path.write_bytes(first + RESUMED_ON[kind] + b"\n" + last)
    RunLog(path).rewind(1)
    assert path.read_bytes() == first


def go_on(path):
    """Resume a run at step 3 on the log at `path`, and end it after a validation."""
    log = RunLog(path)
    log.rewind(3)
    log.validation(3, 96, {})
    log.close()


@pytest.mark.parametrize("device, waiting", [("/dev/full", 1), ("/dev/null", 0)])
def test_a_log_that_is_a_device(tmp_path, capsys, device, waiting):
    """A device has no end to be read to: the run waited, and filled the memory."""
    path = tmp_path / "allocations.jsonl"
    path.symlink_to(device)
    go_on(path)
    said = capsys.readouterr().err
    assert ("No space left on device" in said) == ("1 line of this run" in said) == bool(waiting)


def test_a_log_that_is_a_pipe(tmp_path, capsys):
    """To open one waits for its reader."""
    path = tmp_path / "allocations.jsonl"
    os.mkfifo(path)
    go_on(path)
    assert "it is a pipe" in capsys.readouterr().err
