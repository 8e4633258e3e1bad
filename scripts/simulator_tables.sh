#!/usr/bin/env bash
# Makes the tables and pictures of docs/simulator.md anew (about half an hour on two cores).
#
#   bash scripts/simulator_tables.sh [OUT]      tables as text under OUT (default runs/simulator), pictures in docs/images
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
out=${1:-runs/simulator}
mkdir -p "$out"
export COLUMNS=170
[ -d .venv ] && export PATH="$PWD/.venv/bin:$PATH"

table() { # NAME arguments...
  printf '== %s\n' "$1"
  cero simulate "${@:2}" --out "docs/images/simulator$1.png" >"$out/table$1.txt"
}

table ""
table -check --check
table -presets --presets all
table -budgets --budgets 4,8,16
# What drift and cold starts ask for, on the value that gains most.
v=cero:signal_hard
table -drift --presets latent,mostly_hard,drifting,noisy_verifier --seeds 8 --contenders \
  "$v,$v/forgetting=1,$v/forgetting=0.9,$v/forgetting=0.5,$v/forgetting=0.2,$v/forgetting=auto,$v/forgetting_unit=step/forgetting=0.978,$v/forgetting_unit=step/forgetting=0.956,$v/prior=pooled,$v/pass_rates=8,$v/pass_rates=8/strength=8,$v/pass_rates=32/strength=16"
# Every rule, with the estimator and the selection that it is published with.
table -rules --presets all --contenders \
  uniform,uniform+posterior,cero,cero_resolve,cero:signal_hard,cero_seq,cero_seq/keep=aero,aero,vip,knapsack,reinforce_ada_est,variance,gdro,thompson,greso,reinforce_ada_seq,vigor,pilot_commit,pods
