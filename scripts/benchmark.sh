#!/usr/bin/env bash
# Does it train better? Tasks x contenders x seeds through verl on a CPU, then the report.
#
#   bash scripts/benchmark.sh --short                  a demonstration: two contenders, a small task
#   bash scripts/benchmark.sh                          the main contenders and their peers: many hours
#   bash scripts/benchmark.sh --groups ablation        the ablations
#   bash scripts/benchmark.sh --minutes 120            starts no run after two hours; the same command goes on
#   bash scripts/benchmark.sh --dry-run                what would be run
#
# Further arguments are those of `cero benchmark`. Interrupt it whenever you like: finished runs are kept, and
# the one under way starts anew. The runs are in docs/results/study, or where --out says, and the report is
# made there. A new run has files of its own; the report packs them into runs.csv.bz2 and runs.jsonl.bz2.
# docs/results/study.md says what is measured and how.
set -euo pipefail
# shellcheck source=scripts/lib/usage.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib/usage.sh"
asked_for_help "$@"

cd "$(dirname "${BASH_SOURCE[0]}")/.."
out=docs/results/study
images=docs/images
arguments=()
dry=false
while [ $# -gt 0 ]; do
  case $1 in
    --short)
      out=runs/study-short # these are no results of the study
      images=$out
      arguments+=(--tasks arithmetic-short --contenders "grpo,cero")
      ;;
    --out | --out=*)
      if [ "$1" = --out ]; then
        [ $# -ge 2 ] || { echo "$0: --out needs a folder" >&2; exit 2; }
        shift
      fi
      out=${1#--out=}
      images=$out
      ;;
    *)
      arguments+=("$1")
      [ "$1" = --dry-run ] && dry=true
      ;;
  esac
  shift
done
arguments+=(--out "$out")

bash scripts/install.sh
export PATH="$PWD/.venv/bin:$PATH"
$dry && exec cero benchmark "${arguments[@]}"
status=0
cero benchmark ${arguments[@]+"${arguments[@]}"} || status=$?
[ $status -le 1 ] || exit $status # 1: some runs failed, and the others are worth a report
cero study "$out" --pack --images "$images"
exit $status
