#!/usr/bin/env bash
# Runs all tests in .venv (made if missing): first the fast ones, then the slow ones and those that start verl,
# vLLM, Ray or pip in processes of their own.
#
#   bash scripts/test.sh
#   bash scripts/test.sh -m "not slow and not e2e" -n 2      with arguments: one pytest with these
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
# Of the 31,000 files that pip would compile, few are ever imported. Those few must be kept compiled, whatever
# the environment says, since dozens of processes import them.
unset PYTHONDONTWRITEBYTECODE
PIP_COMPILE=0 bash scripts/install.sh
pytest=(.venv/bin/python -m pytest)
if [ $# -gt 0 ]; then
  exec "${pytest[@]}" "$@"
fi
# Ray's processes would otherwise be so nice to the tests beside them that a training takes five times as long.
export RAY_worker_niceness=0
status=0
"${pytest[@]}" -m "not slow and not e2e" -n 2 --dist worksteal --durations=8 || status=$?
# A training waits most of its time for processes that start one after the other. So three share two cores.
"${pytest[@]}" -m "slow or e2e" -n 3 --dist loadgroup --durations=40 || status=$?
exit $status
