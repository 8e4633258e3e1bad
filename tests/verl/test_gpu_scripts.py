"""Does scripts/gpu/ start what its arms say? The scripts are run with a stand-in for Python and no GPU."""

import importlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from cero.verl.preflight import Preflight
from cero.verl.reading import read_settings

GPU = Path(__file__).parents[2] / "scripts" / "gpu"
ARMS = {
    "grpo": 8,
    "grpo-2": 2,
    "cero": 1,
    "cero-pooled": 1,
    "cero-variance": 1,
    "even": 1,
    "even-own": 1,
    "aero": 8,
    "cero_seq": 8,
    "mapp": 8,
}
ARMS |= {"cero_published": 8}
ALLOCATORS = {"aero": "aero", "cero_seq": "cero_seq", "cero_published": "cero"}
STAND_IN = f"#!{sys.executable}\nimport json, sys\nprint(json.dumps(sys.argv[1:]))\n"


def train(folder, arm, *further, **environment):
    """Run train.sh; return the completed process, and the words that it gave to Python."""
    python = folder / "python"
    python.write_text(STAND_IN)
    python.chmod(0o755)
    for name in ("fresh/train.parquet", "fresh/test.parquet", "model/config.json"):
        (folder / "task" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "task" / name).touch()
    words = ["bash", str(GPU / "train.sh"), arm, "fresh", str(folder / "out"), "4", *further]
    environment = os.environ | {"PYTHON": str(python), "TASK": str(folder / "task")} | environment
    done = subprocess.run(words, env=environment, capture_output=True, text=True)
    shutil.rmtree(folder / "task")  # a config that names it is composed, and its files are no tables
    log = folder / "out" / "train.log"
    return done, json.loads(log.read_text()) if log.exists() else None


@pytest.mark.parametrize("rollouts", [128, 1024])
@pytest.mark.parametrize("arm", ARMS)
def test_arms(arm, rollouts, composed, tmp_path):
    _, words = train(tmp_path, arm, ROLLOUTS=str(rollouts), RECIPE="cero")
    assert words[:2] == ["-m", "verl.trainer.main_ppo"]
    config = composed(*words[2:])
    composed.check(config)
    Preflight().on_job_start(config)
    group = config.actor_rollout_ref.rollout.n
    assert group == ARMS[arm] and config.data.train_batch_size * group == rollouts
    assert config.actor_rollout_ref.actor.ppo_mini_batch_size == config.data.train_batch_size
    allocator = read_settings(config).make_allocator()
    assert allocator.name == ALLOCATORS.get(arm, "cero" if group == 1 else "uniform")
    wanted = {"uniform": "grpo", "cero": "cero", "cero_published": "grpo", "mapp": "cero"}
    wanted = wanted.get(arm, wanted[allocator.name] if allocator.name in wanted else None)
    assert wanted is None or config.algorithm.adv_estimator == wanted


def test_seed_and_rate(composed, tmp_path):
    _, words = train(tmp_path, "cero", RECIPE="cero", SEED="3", LR="3e-5", ANSWERS="4")
    config = composed(*words[2:])
    ours = config.actor_rollout_ref
    seeds = (config.data.seed, config.allocator.seed, ours.actor.data_loader_seed, ours.rollout.seed)
    assert seeds == (3, 3, 3, 3) and ours.actor.optim.lr == 3e-5 and ours.rollout.val_kwargs.n == 4


def test_the_published_form_is_that_of_the_study(composed, tmp_path):
    _, words = train(tmp_path, "cero_published", RECIPE="cero")
    study = yaml.safe_load((GPU.parent / "benchmark" / "pretrained.yaml").read_text())
    assert set(study["contenders"]["cero_published"]["overrides"]) <= set(words)
    _, words = train(tmp_path, "mapp", RECIPE="cero")
    assert set(study["contenders"]["mapp"]["overrides"]) <= set(words)


def test_further_overrides_win(composed, tmp_path):
    _, words = train(tmp_path, "cero", "trainer.save_freq=2", "trainer.resume_mode=auto", RECIPE="cero_cpu")
    config = composed(*words[2:])
    assert (config.trainer.save_freq, config.trainer.resume_mode) == (2, "auto")
    assert config.trainer.device == "cpu" and config.trainer.total_training_steps == 4


@pytest.mark.parametrize(
    "arm, rollouts, message",
    [("best", "128", "best: grpo, grpo-2"), ("aero", "12", "needs a multiple of 8"), ("grpo", "4", "of 8")],
)
def test_what_can_not_be_trained_is_refused(arm, rollouts, message, tmp_path):
    done, words = train(tmp_path, arm, ROLLOUTS=rollouts)
    assert done.returncode == 2 and message in done.stderr and words is None


@pytest.mark.parametrize(
    "steps, environment, reason",
    [
        ("zero", {}, "STEPS=zero: a whole number, 1 or more"),
        ("4", {"ROLLOUTS": "many"}, "ROLLOUTS=many: a whole number, 1 or more"),
        ("4", {"ROLLOUTS": "0"}, "ROLLOUTS=0: a whole number, 1 or more"),
        ("4", {}, "/none: there is no fresh/train.parquet"),
    ],
)
def test_what_train_can_not_use(steps, environment, reason, tmp_path):
    words = ["bash", str(GPU / "train.sh"), "cero", "fresh", str(tmp_path / "out"), steps]
    environment = os.environ | {"TASK": str(tmp_path / "none")} | environment
    done = subprocess.run(words, env=environment, capture_output=True, text=True)
    assert done.returncode == 2 and reason in done.stderr and not (tmp_path / "out").exists()


def test_a_task_may_be_named_from_where_one_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _, words = train(tmp_path, "cero", TASK="task")
    assert f"data.train_files={tmp_path}/task/fresh/train.parquet" in words


@pytest.mark.parametrize("script", ["train.sh", "resume.sh", "collect.sh"])
def test_a_script_without_arguments_says_how_it_is_used(script):
    done = subprocess.run(["bash", str(GPU / script)], capture_output=True, text=True)
    assert done.returncode == 2 and f"bash scripts/gpu/{script} " in done.stderr
    assert not any(line.startswith(("#", "set -")) for line in done.stderr.splitlines())


# ---- several runs at once: runs.py and study.py, with files as runs leave them -----------------------------


@pytest.fixture
def on_the_card(monkeypatch, tmp_path):
    """Return the modules runs and study, whose folder of runs is a temporary one in which nothing starts."""
    monkeypatch.setenv("GPU", str(tmp_path))
    monkeypatch.syspath_prepend(str(GPU))
    modules = [importlib.import_module(name) for name in ("runs", "study")]
    yield modules
    for name in ("runs", "study"):
        del sys.modules[name]


def leave(folder, run, scores, held_out=()):
    """Write the figures of a run's steps as verl's file logger does, the last line cut.

    held_out : pairs of a step and the accuracy of its validation
    """
    out = folder / "runs" / run / "cero"
    out.mkdir(parents=True)
    records = [
        {"step": 0, "data": {"val-core/fewshot/a/acc/mean@1": 0.2, "val-core/fewshot/b/acc/mean@1": 0.4}}
    ]
    for step, score in enumerate(scores, 1):
        records.append({"step": step, "data": {"critic/score/mean": score, "timing_s/step": 2.0}})
    for step, accuracy in held_out:
        records[step]["data"]["val-core/fewshot/a/acc/mean@1"] = accuracy
    lines = [json.dumps(record) for record in records] + ['{"step": 99, "da']
    (out / "log.jsonl").write_text("\n".join(lines))
    (out / "allocations.jsonl").write_text('{"kind": "step"}\n')


def test_a_line_on_a_run(on_the_card, tmp_path):
    runs, _ = on_the_card
    leave(tmp_path, "fresh/grpo/1/3e-5", [0.0] * 5 + [0.5] * 10)
    (tmp_path / "runs/fresh/grpo/1/3e-5/train.log").write_text("x\n(A pid=1) ValueError: no room\n")
    line = runs.summary("fresh/grpo/1/3e-5")
    assert "15 steps" in line and "right  50.0 %" in line and "held out 0:30.0" in line
    assert "ENDED" in line and "ValueError: no room" in line
    assert runs.started() == []


def test_a_rate_is_chosen_after_the_same_step_of_all(on_the_card, tmp_path, monkeypatch, capsys):
    """One rate's run is ahead by having made more steps, another while it trained: neither is chosen."""
    runs, study = on_the_card
    leave(tmp_path, "fresh/cero/0/1e-5", [0.1] * 12, [(6, 0.2), (12, 0.9)])
    leave(tmp_path, "fresh/cero/0/3e-5", [0.3] * 9, [(6, 0.4)])
    leave(tmp_path, "fresh/cero/0/1e-4", [0.9] * 9, [(6, 0.3)])
    leave(tmp_path, "fresh/cero/0/9e-1", [0.9] * 2)  # its process has died
    monkeypatch.setattr(runs, "is_alive", lambda run: not run.endswith("9e-1"))
    monkeypatch.setattr(runs, "stop", lambda stopped: None)
    begun = []
    monkeypatch.setattr(runs, "start", lambda run, steps: begun.append(run))
    (tmp_path / "ready").touch()
    words = ["--seconds", "1", "--steps", "40", "--arms", "cero", "--tune", "9", "--seeds", "1,2"]
    words += ["--rates", "1e-5,3e-5,1e-4,9e-1"]
    assert study.main(words) == 0
    chosen = json.loads((tmp_path / "runs" / "rates.json").read_text())
    assert chosen["step"] == 6 and chosen["best"] == {"cero": "3e-5"}
    assert chosen["held_out"]["fresh/cero/0/1e-4"] == pytest.approx(0.3)
    assert begun[:4] == [f"fresh/cero/0/{rate}" for rate in ("1e-5", "3e-5", "1e-4", "9e-1")]
    finite = [f"480/{arm}/{seed}/3e-5" for seed in (1, 2) for arm in ("even", "cero")]
    wanted = ["fresh/cero/1/3e-5", "fresh/cero/2/3e-5", *finite]
    assert begun[4:] == wanted[: len(begun) - 4] and len(begun) > 4


def test_room_is_where_memory_is_shortest(on_the_card):
    _, study = on_the_card
    assert study.room(((10, 100), (0, 80)), ((30, 100), (40, 80)), 4, 0.8) == pytest.approx(6.4)
    assert study.room(((10, 100), (0, 80)), ((50, 100), (8, 80)), 4, 0.8) == pytest.approx(7.0)


def test_arms_are_those_of_train(on_the_card):
    runs, _ = on_the_card
    assert sorted(runs.ARMS) == sorted(ARMS)


@pytest.mark.parametrize(
    "words, reason",
    [
        (["--arms", "cero,nope"], "--arms: 'nope': grpo, "),
        (["--finite", "nope"], "--finite: 'nope': grpo, "),
        (["--rates", "1e-5,fast"], "--rates: 'fast' is not a number above 0"),
        (["--seeds", "0"], "--seeds: '0' is not a whole number, 1 or more"),
        (["--seconds", "-1"], "--seconds: '-1' is not a number above 0"),
    ],
)
def test_what_a_study_can_not_use(on_the_card, words, reason, capsys):
    _, study = on_the_card
    with pytest.raises(SystemExit):
        study.main(["--seconds", "9", "--steps", "9", *words])
    assert f"error: argument {reason}" in capsys.readouterr().err


@pytest.mark.parametrize("word", ["fresh/nope/1/1e-5", "fresh/grpo/1/0"])
def test_a_run_has_an_arm_and_a_rate(on_the_card, word, capsys):
    runs, _ = on_the_card
    with pytest.raises(SystemExit):
        runs.main(["start", "--steps", "4", word])
    assert "'nope': grpo, " in (text := capsys.readouterr().err) or "'0' is not a number above 0" in text


@pytest.mark.parametrize("word", ["fresh/grpo", "fresh/grpo/x/1e-5", "../a/b/1/1e-5"])
def test_a_run_has_four_parts(on_the_card, word, capsys):
    runs, _ = on_the_card
    with pytest.raises(SystemExit):
        runs.main(["start", "--steps", "4", word])
    assert "SET/ARM/SEED/RATE, for example" in capsys.readouterr().err


# ---- what is kept of runs: figures.py ----------------------------------------------------------------------


@pytest.fixture
def figures(monkeypatch):
    """Return the module scripts/gpu/figures.py."""
    monkeypatch.syspath_prepend(str(GPU))
    yield importlib.import_module("figures")
    del sys.modules["figures"]


def leave_steps(folder, run, right, held_out, trained=8.0):
    """Write a run with these shares of right rollouts; held_out : dict of step -> family -> share.

    trained : rollouts of a step that are trained on, of 8
    """
    out = folder / run / "cero"
    out.mkdir(parents=True)
    keys = [
        "cero/rollouts/sampled",
        "cero/tokens/sampled",
        "actor/ppo_kl",
        "timing_s/gen",
        "timing_s/update_actor",
    ]
    keys += ["timing_s/update_weights", "cero/time/allocate", "cero/time/observe"]
    data = {0: {}} | {
        step: dict.fromkeys(keys, 8.0)
        | {"critic/score/mean": share, "timing_s/step": float(step)}
        | {"cero/rollouts/trained": trained}
        for step, share in enumerate(right, 1)
    }
    for step, families in held_out.items():
        data[step] |= {f"val-core/fewshot/{name}/acc/mean@4": share for name, share in families.items()}
    lines = [json.dumps({"step": step, "data": record}) for step, record in data.items()]
    (out / "log.jsonl").write_text("\n".join([*lines, '{"step": 9, ']))
    # Two prompts with one rollout each, twice; then none for the one that was right, two for the other.
    counts = [([1, 1], [1.0, 0.0])] * 2 + [([0, 2], [0.0, 1.0])]
    steps = [
        {"kind": "step", "step": step, "prompts": ["a", "b"], "metrics": {}, "successes": right}
        | dict.fromkeys(("rollouts", "trials"), rollouts)
        | dict.fromkeys(("epoch", "budget", "sampled", "kept", "trained"), 2)
        | {"spent": 2 * step}
        for step, (rollouts, right) in enumerate(counts, 1)
    ]
    (out / "allocations.jsonl").write_text("".join(json.dumps(step) + "\n" for step in steps))


def test_figures_are_kept_and_shown(figures, tmp_path, capsys):
    begin, later = {"sum": 0.2, "days": 0.4}, {"sum": 0.5, "days": 0.7}
    leave_steps(tmp_path, "fresh/grpo/1/3e-5", [0.25] * 20, {0: begin, 20: later})
    leave_steps(tmp_path, "fresh/grpo/2/3e-5", [0.75] * 22, {0: begin, 20: begin})
    leave_steps(tmp_path, "fresh/cero/0/1e-4", [0.5] * 40, {0: begin, 20: later, 40: later})
    leave_steps(tmp_path, "fresh/cero/1/1e-4", [], {0: begin})
    leave_steps(tmp_path, "fresh/cero/3/1e-4", [0.1] * 19, {0: begin})  # kept, but not shown
    leave_steps(tmp_path / "cpu", "fresh/cero/2/1e-4", [0.7] * 40, {20: begin, 40: begin})
    leave_steps(tmp_path / "cpu", "480/cero/1/3e-5", [0.5] * 20, {20: begin})
    leave_steps(tmp_path / "cpu", "480/cero/2/3e-5", [0.5] * 20, {20: later})
    leave_steps(tmp_path / "cpu", "480/even/1/3e-5", [0.25] * 20, {20: begin})
    leave_steps(tmp_path / "cpu", "480/even/2/3e-5", [0.75] * 20, {20: begin})
    leave_steps(tmp_path / "cpu", "64/even/2/3e-5", [0.5] * 20, {20: begin})  # one run: no picture
    leave_steps(tmp_path, "fresh/aero/0/1e-4", [0.5] * 20, {20: later}, trained=5.0)
    out, page = tmp_path / "out.jsonl", tmp_path / "page.md"
    figures.main(["keep", str(tmp_path), "--cpu", str(tmp_path / "cpu"), "--out", str(out)])
    assert "11 runs, 261 steps" in capsys.readouterr().out
    page.write_text(f"before\n{figures.BEGIN}\nold\n{figures.END}\nafter\n")
    figures.main(["page", str(page), "--out", str(out), "--images", str(tmp_path)])
    text = page.read_text()
    # grpo: held out 0.6 and 0.3 after 20 steps, right in 25 % and 75 %; standard errors by hand.
    assert "| fresh | 3e-5 | `grpo` | 2 | 160 | 45.0 ± 15.0 |  | 50.0 ± 25.0 |  | 1.0 | 11.0 |" in text
    row = "| fresh | 1e-4 | `cero` | 2 | 160 | 45.0 ± 15.0 | 45.0 ± 15.0 | 60.0 ± 10.0 | 60.0 ± 10.0 |"
    assert f"{row} 1.0 | 20.5 |" in text
    # What is trained on was chosen by its rewards there, so nothing is said of training.
    assert "| fresh | 1e-4 | `aero` | 1 | 160 | 60.0 |  |  |  | 1.0 | 10.5 |" in text
    assert "| fresh | 1e-4 | `aero` | 2 and 1 | -15.0 | +0.0 |  |  |" in text
    # On the finite set: 0.6 and 0.3 with cero, 0.3 and 0.3 without.
    assert "| 480 | 3e-5 | `even` | 2 and 2 | +15.0 ± 15.0 | +0.0, +30.0 |  |  |" in text
    assert "| 480 | 3e-5 | `cero` | 2 | 35.0 | 55.0 |" in text  # sum is arithmetic, days is not
    assert "| 480 | 3e-5 | `cero` | 2 | 2.00 |  | 0.00 | 50 |  |  |" in text  # never right, sometimes, always
    assert text.startswith("before") and text.endswith("after\n") and "old" not in text
    assert "| 64 | 3e-5 | `even` | 1 | 160 | 30.0 |" in text and "pretrained-64.png" not in text
    for name in ("fresh", "480"):
        assert f"../images/pretrained-{name}.png" in text
        assert (tmp_path / f"pretrained-{name}.png").stat().st_size > 5_000


@pytest.mark.parametrize(
    "rate, name", [(3e-5, "3e-5"), (1.5e-5, "1.5e-5"), (1e-4, "1e-4"), (2.5e-5, "2.5e-5")]
)
def test_rates_are_told_apart(figures, rate, name):
    assert figures.name_of(rate) == name


def test_runs_that_were_never_validated(figures, tmp_path, capsys):
    out, page = tmp_path / "out.jsonl", tmp_path / "page.md"
    for seed in (1, 2):
        leave_steps(tmp_path, f"fresh/grpo/{seed}/3e-5", [0.25] * 20, {})
        leave_steps(tmp_path, f"fresh/cero/{seed}/3e-5", [0.25] * 20, {20: {"sum": 0.5}} if seed == 1 else {})
    figures.main(["keep", str(tmp_path), "--out", str(out)])
    page.write_text(f"{figures.BEGIN}\n{figures.END}\n")
    words = ["page", str(page), "--out", str(out), "--images", str(tmp_path)]
    with pytest.raises(SystemExit):
        figures.main(words)
    assert "no run was validated before training" in capsys.readouterr().err
    leave_steps(tmp_path, "fresh/even/1/3e-5", [0.25] * 20, {0: {"sum": 0.2}, 20: {"sum": 0.5}})
    figures.main(["keep", str(tmp_path), "--out", str(out)])
    figures.main(words)
    assert "| fresh | 3e-5 | `grpo` | 2 | 160 |  |" in page.read_text()


def test_what_was_kept_of_other_runs_stays(figures, tmp_path, capsys):
    out = tmp_path / "out.jsonl"
    for folder, right in (("first", [0.25]), ("second", [0.5])):
        leave_steps(tmp_path / folder, f"fresh/{folder}/1/3e-5", right, {})
    leave_steps(tmp_path / "second", "fresh/cero/1/3e-5", [0.5], {})
    leave_steps(tmp_path / "third", "fresh/cero/1/3e-5", [0.5, 0.75], {})
    for folder in ("first", "second", "third"):
        figures.main(["keep", str(tmp_path / folder), "--out", str(out)])
    kept = {line["arm"]: line["right"] for line in map(json.loads, out.read_text().splitlines())}
    assert kept == {"first": [0.25], "second": [0.5], "cero": [0.5, 0.75]}
    before = out.read_text()
    with pytest.raises(SystemExit) as error:
        figures.main(["keep", str(tmp_path / "none"), "--out", str(out)])
    assert error.value.code == 2 and out.read_text() == before
    assert f"{tmp_path / 'none'}: no run below it" in capsys.readouterr().err


def test_a_page_without_a_place_is_left_alone(figures, tmp_path, capsys):
    page = tmp_path / "page.md"
    page.write_text("nothing\n")
    with pytest.raises(SystemExit) as error:
        figures.main(["page", str(page)])
    assert error.value.code == 2 and page.read_text() == "nothing\n"
    assert f"figures.py page: {page} has no place for the table" in capsys.readouterr().err
