#!/usr/bin/env bash
# On the GPU machine: kills a run with -9 in the middle, resumes it, and says whether its log is whole.
#
#   bash scripts/gpu/resume.sh ARM SET STEPS [Hydra overrides]              for example cero fresh 8
#
# The run saves every second step and is killed after more than half of its steps. Needs root: the run has
# process ids and a /tmp of its own, so that nothing of the killed one is left. Figures go to
# $GPU/runs/resume/ARM (GPU: /opt/gpu). Exits with 1 unless each step is in the log once, each with the
# rollouts that it spent.
set -euo pipefail

# shellcheck source=scripts/lib/usage.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib/usage.sh"
asked_for_help "$@"
[ $# -ge 3 ] || usage
whole_number STEPS "$3"
GPU=${GPU:-/opt/gpu}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
arm=$1 set=$2 steps=$3
shift 3
out=$GPU/runs/resume/$arm
export TASK=${TASK:-$GPU/task} PYTHONPATH=$GPU/project:$GPU/site
rm -rf "$out"
mkdir -p "$out"

start() {
  setsid unshare --mount --pid --fork --mount-proc --kill-child bash -c '
    mount -t tmpfs -o size=24g tmpfs /tmp
    exec bash "$@"' bash "$here/train.sh" "$arm" "$set" "$out" "$steps" \
    trainer.save_freq=2 trainer.resume_mode=auto "$@" &
  process=$!
}
# Says how many steps are in the log: 0 while there is none.
made() { cat "$out/cero/allocations.jsonl" 2>/dev/null | grep -c '"kind": *"step"' || true; }
trap 'kill -KILL -- "-$process" 2>/dev/null || true' EXIT

start "$@"
until [ "$(made)" -gt $((steps / 2)) ]; do
  kill -0 "$process" 2>/dev/null || { tail -n 20 "$out/train.log"; exit 1; }
  sleep 0.5
done
kill -KILL -- "-$process"
wait "$process" 2>/dev/null || true
mv "$out/train.log" "$out/killed.log"
echo "killed after $(made) steps, $SECONDS s; the last checkpoint is of step" \
  "$(cat "$out/latest_checkpointed_iteration.txt")"

start "$@"
wait "$process" || { tail -n 20 "$out/train.log"; exit 1; }
"${PYTHON:-python3}" - "$out" "$steps" <<'PYTHON' | tee "$out/verdict.txt"
import sys
from pathlib import Path

from cero.analysis.runlog import FILE_NAME, read_log

log = [r for r in read_log(Path(sys.argv[1]) / "cero" / FILE_NAME) if r["kind"] == "step"]
numbers, sampled = [r["step"] for r in log], 0
whole = numbers == list(range(1, int(sys.argv[2]) + 1))
for record in log:
    sampled += record.get("sampled", sum(record["rollouts"]))
    whole &= record["spent"] == sampled
print(f"steps {numbers}, {sampled} rollouts: {'whole' if whole else 'NOT WHOLE'}")
sys.exit(not whole)
PYTHON
