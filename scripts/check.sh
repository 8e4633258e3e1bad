#!/usr/bin/env bash
# Checks lint, format, types, and whether the documentation builds. It also runs the tests that need
# scikit-learn or CVXPY, which the environment of the tests is faster without.
#
#   bash scripts/check.sh            makes .venv-tools if it is missing
#   bash scripts/check.sh --fix      lets Ruff mend what it can first
set -euo pipefail
# shellcheck source=scripts/lib/usage.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib/usage.sh"
asked_for_help "$@"
[[ "$*" =~ ^(--fix)?$ ]] || usage

cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/lib/venv.sh
source scripts/lib/venv.sh

venv=.venv-tools
stamp=$venv/.cero-install
wanted=$(fingerprint scripts/check.sh)
if [ ! -f $stamp ] || [ "$(cat $stamp)" != "$wanted" ]; then
  say "tools, in $venv"
  rm -f $stamp
  make_venv $venv
  pip install --quiet -e ".[lint,docs,vip]" "cvxpy>=1.6" hypothesis mpmath pytest
  echo "$wanted" >$stamp
fi

if [ "${1:-}" = --fix ]; then
  say "mend"
  $venv/bin/ruff check --fix-only .
  $venv/bin/ruff format .
fi

failed=()
check() { # NAME COMMAND...: goes on after a failure, so that one run shows all of them
  say "$1"
  "${@:2}" || failed+=("$1")
}

site=$(mktemp -d)
trap 'rm -rf "$site"' EXIT
check lint $venv/bin/ruff check .
check format $venv/bin/ruff format --check .
check types $venv/bin/mypy
export NO_MKDOCS_2_WARNING=1 # a notice of Material's that says nothing about these pages
check "scikit-learn" $venv/bin/python -m pytest -q -p no:cacheprovider \
  tests/allocators/test_{peers,options}.py -k "gaussian or vip-predictor"
check "CVXPY" $venv/bin/python -m pytest -q -p no:cacheprovider tests/core/test_mathematics.py -k cvxpy
check documentation $venv/bin/mkdocs build --strict --site-dir "$site"

[ ${#failed[@]} = 0 ] || die "failed: ${failed[*]}"
say "all checks passed"
