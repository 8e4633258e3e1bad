"""What do the tests of the study's machinery run? Two small files of it, and a stand-in for verl."""

from cero.research.study.plan import make_runs, read_contenders, read_tasks

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


def plan(files, *more, contender="grpo", seed=0):
    """One run of the files' plan, with further overrides."""
    path = files[1]
    path.write_text(CONTENDERS.replace("[allocator=uniform]", f"[{', '.join(('allocator=uniform', *more))}]"))
    contenders, groups = read_contenders(path)
    runs = make_runs([read_tasks(files[0])["sums"]], [contenders[contender]], groups, seeds=[seed])
    return runs[0]


def step_record(**more):
    metrics = {"timing_s/step": 3.0, "timing_s/gen": 2.0, "timing_s/agent_loop/min": 1.0}
    record = {
        "kind": "step", "step": 1, "epoch": 0, "budget": 8, "spent": 8, "prompts": ["a", "b", "c"],
        "rollouts": [4, 4, 0], "successes": [4, 2, 0], "trials": [4, 4, 0],
        "metrics": metrics | {"cero/group/signal": 0.5, "cero/group/count": 2.0},
    }  # fmt: skip
    metrics = record["metrics"] | more.pop("metrics", {})
    return record | more | {"metrics": metrics}
