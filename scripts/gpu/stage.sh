#!/usr/bin/env bash
# On the GPU machine: takes over a folder of the kit, and unpacks in the background what is complete.
#
#   bash .gpu/1/stage.sh .gpu/1; bash .gpu/2/stage.sh .gpu/2; ...        in this order, below $GPU (/opt/gpu)
#
# The first call says what the machine is and reads PyTorch's libraries once: from a cold disk every process
# would wait for them. When all has arrived, the Python files are compiled, and $GPU/ready is written.
set -euo pipefail

[ -d "${1:-}" ] || { sed -n '2,/^[^#]/{/^#/s/^# \{0,1\}//p}' "$0" >&2; exit 2; } # it is sent without others
GPU=${GPU:-/opt/gpu}
mkdir -p "$GPU"/{pieces,site,logs}
background() { # NAME COMMAND: goes on after this script has ended
  setsid nohup bash -euo pipefail -c "$2" >"$GPU/logs/$1.log" 2>&1 </dev/null &
}

if [ ! -e "$GPU/first" ]; then
  touch "$GPU/first"
  nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader || true
  python3 --version
  nproc
  python3 - <<'PYTHON'
from importlib.util import find_spec

names = "torch pyarrow pandas numpy scipy numba psutil yaml regex sentencepiece aiohttp grpc tiktoken cv2 PIL"
print("missing here:", [name for name in names.split() if find_spec(name) is None])
PYTHON
  background finish "
    for file in unpacked-rest.tar.xz unpacked-vllm.tar.xz unpacked-ray.tar.xz; do
      until [ -e '$GPU/'\$file ]; do sleep 0.2; done
    done
    python3 -m compileall -q -j 12 '$GPU/site' '$GPU/project' || true
    until [ -e '$GPU/task/model/config.json' ]; do sleep 0.2; done
    touch '$GPU/ready'"
  background warm "
    python3 -c 'import torch; print(torch.__path__[0])' >'$GPU/logs/torch'
    cd \"\$(dirname \"\$(cat '$GPU/logs/torch')\")\"
    find torch nvidia triton pyarrow numpy pandas scipy -type f -print0 | xargs -0 -P 8 -n 64 cat >/dev/null"
fi

for file in "$1"/*.part "$1"/*.last; do
  [ -e "$file" ] || continue
  name=$(basename "${file%.*}")
  cat "$file" >>"$GPU/pieces/$name"
  [ "${file##*.}" = last ] || continue
  case $name in
    project.tar.xz)
      tar xJf "$GPU/pieces/$name" -C "$GPU"
      touch "$GPU/unpacked-$name"
      ;;
    extra.tar.xz) # what build_kit.sh could not know the target to have
      python3 -c 'import pyarrow.parquet' 2>/dev/null || tar xJf "$GPU/pieces/$name" -C "$GPU/site"
      ;;
    *.tar.xz)
      background "$name" "
        xz -dc -T4 '$GPU/pieces/$name' | tar x -C '$GPU/site'
        touch '$GPU/unpacked-$name'"
      ;;
    model.whl)
      mkdir -p "$GPU/package"
      python3 -m zipfile -e "$GPU/pieces/$name" "$GPU/package"
      background model "
        until [ -e '$GPU/unpacked-rest.tar.xz' ]; do sleep 0.2; done
        export PYTHONPATH='$GPU/project:$GPU/site:$GPU/package'
        python3 -c \"
import sys; sys.path.insert(0, '$GPU/examples/fewshot')
import prepare; from pathlib import Path; prepare.make_model(Path('$GPU/task/model'))\""
      ;;
  esac
done
echo "$1 staged at $(date +%T)"
