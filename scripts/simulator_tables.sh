#!/usr/bin/env bash
# Makes the tables and pictures of docs/results/simulator.md anew (about half an hour on two cores).
#
#   bash scripts/simulator_tables.sh [OUT]
#
# What each command printed goes to OUT as JSON (default runs/simulator), pictures to docs/images.
set -euo pipefail
# shellcheck source=scripts/lib/usage.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib/usage.sh"
asked_for_help "$@"
[[ $# -le 1 && ${1:-} != -* ]] || usage

cd "$(dirname "${BASH_SOURCE[0]}")/.."
out=${1:-runs/simulator}
mkdir -p "$out"
[ -d .venv ] && export PATH="$PWD/.venv/bin:$PATH"

table() { # NAME arguments...
  printf '== %s\n' "$1"
  cero simulate "${@:2}" --json --out "docs/images/simulator$1.png" >"$out/table$1.json"
}

# The options of cero with which the page's figures were made. They were its defaults then.
c=forgetting=0.7/response=2
methods=uniform,even+posterior,cero/$c,cero_resolve,cero:signal_hard/$c

table "" --methods $methods
# The check names its own methods, with these options, too.
table -check --check
table -presets --presets all --methods $methods
table -budgets --budgets 4,8,16 --methods $methods
# What drift and cold starts ask for, on the value that gains most.
v=cero:signal_hard/$c
drift=$v
for options in forgetting={1,0.9,0.5,0.2,auto} forgetting_unit=step/forgetting={0.978,0.956} prior=pooled \
  pass_rates=8 pass_rates=8/strength=8 pass_rates=32/strength=16; do
  drift+=,$v/$options
done
table -drift --presets latent,mostly_hard,drifting,noisy_verifier --seeds 8 --methods "$drift"
# Every rule, with the estimator and the selection that it is published with.
rules=$methods,cero_seq,cero_seq/keep=aero,aero,vip,knapsack,reinforce_ada_est,variance,gdro,thompson,greso
table -rules --presets all --methods $rules,reinforce_ada_seq,vigor,pilot_commit,pods
python scripts/simulator_page.py "$out"
