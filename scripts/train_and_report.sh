#!/usr/bin/env bash
# Trains with main_ppo into a folder made anew, shows progress, and ends with the run's table and picture.
#
#   bash scripts/train_and_report.sh OUT override...       in an environment with verl and cero
set -euo pipefail
# shellcheck source=scripts/lib/usage.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib/usage.sh"
asked_for_help "$@"

[ $# -ge 1 ] || usage
out=$1
shift
plain_path OUT "$out"
log=$out/train.log
# Only what a run has left is removed.
if [ -d "$out" ] && [ ! -e "$log" ] && [ -n "$(ls -A "$out")" ]; then
  echo "$0: $out holds other things than a run's: name another folder (OUT of the calling script)" >&2
  exit 2
fi
rm -rf "$out"
mkdir -p "$out"
export TENSORBOARD_DIR="$out/tensorboard"
python -m verl.trainer.main_ppo "$@" \
  trainer.default_local_dir="$out" hydra.run.dir="$out/hydra" >"$log" 2>&1 &
pid=$!
trap 'kill $pid 2>/dev/null || true' EXIT # Ctrl-C ends the training, too
cero watch "$out" --pid $pid || true # the training goes on, and says itself why it failed
if ! wait $pid; then
  grep -aE '^(cero: |[A-Za-z_.]*Error: )' "$log" | tail -n 5 >&2 || tail -n 5 "$log" >&2
  printf '\nThe training failed; its last errors are above, all of it is in %s\n' "$log" >&2
  exit 1
fi
trap - EXIT
printf '\n== report\n'
cero report "$out"
