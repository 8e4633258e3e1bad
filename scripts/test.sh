#!/usr/bin/env bash
# Runs all tests in .venv (made if missing), those that train through verl's real stack included.
#
#   bash scripts/test.sh [pytest arguments]        e.g. -m "not e2e" for the fast ones
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/install.sh
export HYPOTHESIS_STORAGE_DIRECTORY=.hypothesis
.venv/bin/python -m pytest --durations=10 "$@"
