"""`cero benchmark` and `cero study` with a stand-in for verl."""

import json
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from stand_in import CONTENDERS, TASKS

from cero.cli.main import main
from cero.research.study import runner as runner_module
from cero.research.study.archive import RECORDS, TABLES, pack, packed_records, read_runs
from cero.research.study.tables import COLUMNS


@pytest.fixture
def cli(files, runner, tmp_path, monkeypatch):
    """`cli(*arguments)`: `cero benchmark` on the stand-in; returns its exit status."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runner_module, "MAIN", (sys.executable, str(tmp_path / "main_ppo.py")))
    monkeypatch.setattr(runner_module, "Runner", partial(runner_module.Runner, poll=0.05))

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


@pytest.mark.slow
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
    with pytest.raises(SystemExit):
        main(["study", "out", "--out", "report", "--champion", "nosuch"])
    assert "--champion=nosuch has no runs; there are grpo, cero, n_max-16" in capsys.readouterr().err
    Path("out/laboratory.jsonl").write_text('{"seed": 0}\n')  # damaged: shares of the ceiling are left out
    main(["study", "out", "--out", "report"])
    said = capsys.readouterr()
    assert "laboratory.jsonl, run 1: it has no 'task'; shares of the ceiling" in said.err
    assert "sums, seeds to tune" in said.out


@pytest.mark.slow
def test_benchmark_says_what_it_leaves_alone(cli, files, capsys):
    assert cli("--contenders", "grpo", "--seeds", "0") == 0
    files[1].write_text(CONTENDERS.replace("[allocator=uniform]", "[allocator=uniform, allocator.n_max=9]"))
    assert cli("--contenders", "grpo", "--seeds", "0") == 0
    assert "out/sums/grpo/0.csv was made with other settings" in capsys.readouterr().out
    assert cli("--contenders", "grpo", "--seeds", "0", "--redo") == 0
    assert "allocator.n_max=9" in Path("out/sums/grpo/0.json").read_text()
    assert cli("--minutes", "0", "--seeds", "1") == 0
    assert "0 minutes are over: 2 runs left" in capsys.readouterr().out


@pytest.mark.slow
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


def test_commands_refuse(cli, capsys, tmp_path):
    assert (
        cli("--tasks", "nowhere") == 2
        and "task 'nowhere' is not known; there are sums" in capsys.readouterr().err
    )
    assert cli("--groups", "rest") == 2 and "group 'rest' is not known" in capsys.readouterr().err
    assert cli("--splits", "test") == 2
    with pytest.raises(SystemExit):
        main(["regret", "--allocators", "uniform", "--utilities", "exp,foo"])
    assert "'foo' is not known; there are exp, rational, log" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["simulate", "--check", "--lag", "2"])
    assert "--lag has no effect with --check" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["study", str(tmp_path / "empty")])
    assert "no tables of runs" in capsys.readouterr().err
