#!/usr/bin/env bash
# On the GPU machine: packs what the runs have written so far, without weights, into an archive.
#
#   bash scripts/gpu/collect.sh ARCHIVE.tar.gz [folder of $GPU...]          (default: runs logs)
set -euo pipefail

[ $# -ge 1 ] || { sed -n '2,4s/^# \{0,1\}//p' "$0" >&2; exit 2; }
archive=$1
shift
cd "${GPU:-/opt/gpu}"
[ $# -gt 0 ] || set -- runs logs
tar czf "$archive" --exclude='global_step_*' --exclude='*.safetensors' --warning=no-file-changed "$@" ||
  [ $? -eq 1 ] # files that still grow
ls -la "$archive"
