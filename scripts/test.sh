#!/usr/bin/env bash
# Runs all tests in .venv (made if missing): the fast ones and those that start processes of their own on two
# cores, then those that train, one by one.
#
#   bash scripts/test.sh
#   bash scripts/test.sh -m "not e2e"      with arguments: one pytest with these
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/install.sh
pytest=(.venv/bin/python -m pytest)
if [ $# -gt 0 ]; then
  exec "${pytest[@]}" "$@"
fi
"${pytest[@]}" -m "not e2e" -n 2 --dist worksteal --durations=8
"${pytest[@]}" -m "e2e and not alone" -n 2 --dist worksteal --durations=0 -v
"${pytest[@]}" -m alone --durations=0 -v
