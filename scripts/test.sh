#!/usr/bin/env bash
# Runs all tests in .venv (made if missing). A training mostly waits for processes that start one after the
# other. So half of the trainings run one by one beside all others: the fast tests, then the slow ones and
# those that start processes of their own, then the other trainings, one by one, too. Both halves take about
# as long.
#
#   bash scripts/test.sh
#   bash scripts/test.sh -m "not slow and not e2e" -n 2      with arguments: one pytest with these
set -euo pipefail
# shellcheck source=scripts/lib/usage.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib/usage.sh"
asked_for_help "$@"

cd "$(dirname "${BASH_SOURCE[0]}")/.."
# Of the 31,000 files that pip would compile, few are ever imported. Those few must be kept compiled, whatever
# the environment says, since dozens of processes import them.
unset PYTHONDONTWRITEBYTECODE
PIP_COMPILE=0 bash scripts/install.sh
export PYTHONPATH=$PWD/tests/site${PYTHONPATH:+:$PYTHONPATH} # less garbage collection in all processes
pytest=(.venv/bin/python -m pytest)
if [ $# -gt 0 ]; then
  exec "${pytest[@]}" "$@"
fi
# Ray's processes would otherwise be so nice to the fast tests beside them that a training takes five times as
# long, and runs out of time.
export RAY_worker_niceness=0
log=$(mktemp)
"${pytest[@]}" -m beside --durations=0 -v >"$log" 2>&1 &
beside=$!
trap 'kill $beside 2>/dev/null || true; rm -f "$log"' EXIT
status=0
"${pytest[@]}" -m "not slow and not e2e" -n 2 --dist worksteal --durations=8 || status=$?
"${pytest[@]}" -m "slow or (e2e and not alone)" -n 2 --dist worksteal --durations=30 || status=$?
"${pytest[@]}" -m "alone and not beside" --durations=0 -v || status=$?
printf '\n== the trainings beside all others\n'
tail -n +1 -f --pid=$beside "$log"
wait $beside || status=$?
exit $status
