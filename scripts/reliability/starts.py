"""What do real starts through main_ppo do that must be refused, or must change nothing?

    bash scripts/install.sh
    .venv/bin/python scripts/reliability/starts.py --out runs/starts

First come starts with one bad setting each. Each must end with 1, with one line that names the key, and
before Ray has started; that takes seconds. Then the task of the tests is trained, with rewards at an end of
their range that single precision crosses, and with more training steps than its one epoch has. Its budget
must be that of the epoch. At last the finished run is started twice with trainer.val_only=true, which must
change none of its files. Exits with 1 if anything differs.
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "e2e"))
from tiny import command, make_data, make_model, run  # noqa: E402

from cero.analysis.runlog import FILE_NAME, read_log  # noqa: E402
from cero.core.state import STATE_FILE, load_state  # noqa: E402

# What is set, and what the message must name. {folder} has the task; a word with $ is of the environment.
REFUSED = (
    ("cero.success.range=1", "cero.success.range=1 must be"),
    ("cero.success.range=[a,b]", "cero.success.range="),
    ("allocator.value=[signal]", "value=['signal'] is not known"),
    ("trainer.resume_mode=resume_path", "trainer.resume_from_path=None"),
    ("trainer.default_local_dir={folder}/marker", "latest_checkpointed_iteration.txt holds ''"),
    ("trainer.default_local_dir={folder}/reward.py", "reward.py is a file"),
    ("actor_rollout_ref.model.lora_rank=8", "actor_rollout_ref.model.lora_rank=8"),
    ("data.train_batch_size=128", "data.train_batch_size=128 is more than the 64 rows"),
    ("actor_rollout_ref.actor.ppo_mini_batch_size=64", "ppo_mini_batch_size=64 is more than"),
    ("trainer.total_epochs=null", "trainer.total_epochs=None"),
    ("cero.log_allocations=maybe", "cero.log_allocations='maybe'"),
    ("$RAY_ADDRESS=127.0.0.1:6379", "unset RAY_ADDRESS"),
)
REWARD = """
def compute_score(data_source, solution_str, ground_truth, extra_info=None):
    return 1.1 if extra_info["index"] % 2 else 0.0
"""
STEPS, BUDGET = 4, 256  # of one epoch: 64 rows in steps of 16, 4 rollouts each


def refuse(folder, setting, message):
    """Start with one bad setting; return (seconds, what is wrong or "", the last line it wrote)."""
    words, environment = [setting.format(folder=folder)], dict(os.environ)
    if setting.startswith("$"):
        key, value = setting[1:].split("=", 1)
        words, environment = [], environment | {key: value}
    started = time.monotonic()
    done = subprocess.run(
        command(folder, "allocator=cero", *words),
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
    )
    seconds = time.monotonic() - started
    last = ([line.strip() for line in done.stdout.splitlines() if line.strip()] or [""])[-1]
    wrong = [
        *([f"it ended with {done.returncode}"] if done.returncode != 1 else []),
        *(["Ray was started"] if "Started a local Ray" in done.stdout else []),
        *([f"{message!r} is not in the last line"] if message not in last else []),
    ]
    return seconds, "; ".join(wrong), last


def digests(folder):
    """Return what the files of a run hold that are ours: dict of name -> digest."""
    files = (path for path in (folder / "checkpoints" / "cero").iterdir() if path.is_file())
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def train_and_read(folder):
    """Train one epoch and validate the finished run twice; yield (what was done, what is wrong or "")."""
    words = (
        *("allocator=cero", "cero.success.range=[0,1.1]", "trainer.total_training_steps=100"),
        *("trainer.total_epochs=1", "trainer.test_freq=2", "trainer.save_freq=2"),
    )
    run(command(folder, *words), folder)
    log = folder / "checkpoints" / "cero" / FILE_NAME
    steps = [record for record in read_log(log) if record["kind"] == "step"]
    # Every second prompt has the reward 1.1, and so the success 1.
    right = [sum(step["successes"]) for step in steps]
    wrong = [] if right[0] == int(right[0]) > 0 else [f"successes of {right[0]}"]
    yield f"a reward of 1.1 with cero.success.range=[0,1.1]: {right[0]:g} successes in step 1", wrong
    ledger = load_state(folder / "checkpoints" / f"global_step_{STEPS}" / STATE_FILE)["ledger"]
    wrong = [] if ledger == {"spent": BUDGET, "total": BUDGET} and len(steps) == STEPS else [str(ledger)]
    yield f"100 training steps of one epoch: {len(steps)} steps, {ledger['spent']} rollouts", wrong
    before = digests(folder)
    earlier = (
        "trainer.resume_mode=resume_path",
        f"trainer.resume_from_path={folder}/checkpoints/global_step_2",
    )
    for more in ((), earlier):
        run(command(folder, *words, "trainer.val_only=true", *more), folder)
        after = digests(folder)
        changed = [name for name in sorted(before | after) if before.get(name) != after.get(name)]
        yield f"trainer.val_only=true {more[0] if more else ''}".strip(), changed


def main(argv=None):
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default="runs/starts", help="folder, made anew (default: %(default)s)")
    folder = Path(parser.parse_args(argv).out).resolve()
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "marker").mkdir(parents=True)
    (folder / "marker" / "latest_checkpointed_iteration.txt").write_text("")
    make_model(folder / "model", tied=True)
    make_data(folder / "train.parquet")
    (folder / "reward.py").write_text(REWARD)
    differ = 0
    for setting, message in REFUSED:
        seconds, wrong, last = refuse(folder, setting, message)
        differ += bool(wrong)
        print(f"{wrong or 'refused'} after {seconds:.0f} s: {last}", flush=True)
    for done, wrong in train_and_read(folder):
        differ += bool(wrong)
        print(f"{done}: {'; '.join(wrong) or 'as it should be'}", flush=True)
    print(f"{differ} of {len(REFUSED) + 4} differ")
    return 1 if differ else 0


if __name__ == "__main__":
    sys.exit(main())
