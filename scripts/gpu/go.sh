#!/usr/bin/env bash
# On the GPU machine: trains several arms at once on one card, as long as time is left.
#
#   bash scripts/gpu/go.sh SECONDS STEPS SET/ARM...          for example 500 150 fresh/grpo fresh/cero
#   ONE_BY_ONE=1 bash scripts/gpu/go.sh ...                  one after another, each for its share of the time
#
# Each run has a /tmp of its own: verl's socket for the weights has a fixed name there, and a run may receive
# another's weights through it. So this needs root. Figures go to $GPU/runs (GPU: /opt/gpu). Runs that share a
# card are slower than one alone: to measure seconds, train one by one. $GAP (20) seconds lie between the
# starts: runs that start together may be given the same port.
set -euo pipefail

[ $# -ge 3 ] || { sed -n '2,11s/^# \{0,1\}//p' "$0" >&2; exit 2; }
GPU=${GPU:-/opt/gpu}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
seconds=$1 steps=$2
shift 2
runs=("$@")
began=$SECONDS
export TASK=$GPU/task PYTHONPATH=$GPU/project:$GPU/site

until [ -e "$GPU/ready" ] || [ $((SECONDS - began)) -gt "$seconds" ]; do sleep 0.5; done
echo "ready after $((SECONDS - began)) s, $(date +%T)"

processes=()
finish() {
  for process in "${processes[@]}"; do kill -TERM -- "-$process" 2>/dev/null || true; done
  sleep 3
  for process in "${processes[@]}"; do kill -KILL -- "-$process" 2>/dev/null || true; done
}
trap finish EXIT

start() {
  local run=$1
  mkdir -p "$GPU/runs/$run"
  setsid unshare -m bash -c '
    mount -t tmpfs -o size=24g tmpfs /tmp
    exec bash "$0/train.sh" "$2" "$1" "$3" "$4"' \
    "$here" "${run%/*}" "${run#*/}" "$GPU/runs/$run" "$steps" &
  processes+=($!)
}

made() { grep -c '"kind": *"step"' "$GPU/runs/$1/cero/allocations.jsonl" 2>/dev/null || true; }
# Follows the runs that were started until all have ended, or until so many seconds have passed.
follow() {
  local until=$1 tick=0 alive process run
  while [ $((SECONDS - began)) -lt "$until" ]; do
    sleep 2
    tick=$((tick + 1))
    alive=0
    for process in "${processes[@]}"; do ! kill -0 "$process" 2>/dev/null || alive=$((alive + 1)); done
    if [ $((tick % 10)) -eq 0 ] || [ "$alive" -eq 0 ]; then
      printf '%s s, %s alive, load %s, %s:' $((SECONDS - began)) "$alive" "$(cut -d' ' -f1 /proc/loadavg)" \
        "$(nvidia-smi --query-gpu=memory.used,utilization.gpu --format=csv,noheader 2>/dev/null || true)"
      for run in "${runs[@]}"; do printf ' %s %s' "$run" "$(made "$run")"; done
      printf '\n'
    fi
    [ "$alive" -gt 0 ] || break
  done
}

if [ -n "${ONE_BY_ONE:-}" ]; then
  for i in "${!runs[@]}"; do
    start "${runs[i]}"
    follow $(((SECONDS - began) + (seconds - (SECONDS - began)) / (${#runs[@]} - i)))
    finish
    processes=()
  done
else
  for run in "${runs[@]}"; do
    start "$run"
    sleep "${GAP:-20}"
  done
  follow "$seconds"
fi
for run in "${runs[@]}"; do
  echo "== $run: $(made "$run") steps"
  grep -aoE '^[^ ]*(Error|Exception): .{0,300}' "$GPU/runs/$run/train.log" |
    sort | uniq -c | sort -rn | head -4 || true
done
