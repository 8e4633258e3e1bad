#!/usr/bin/env bash
# On the GPU machine: packs what the runs have written so far, without weights, into an archive.
#
#   bash scripts/gpu/collect.sh ARCHIVE.tar.gz [folder of $GPU...]          (default: runs logs)
set -euo pipefail

# shellcheck source=scripts/lib/usage.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib/usage.sh"
asked_for_help "$@"
[ $# -ge 1 ] || usage
archive=$1
shift
cd "${GPU:-/opt/gpu}"
[ $# -gt 0 ] || set -- runs logs
tar czf "$archive" --exclude='global_step_*' --exclude='*.safetensors' --warning=no-file-changed "$@" ||
  [ $? -eq 1 ] # files that still grow
ls -la "$archive"
