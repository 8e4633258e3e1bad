# shellcheck shell=bash
# What the scripts that make a virtual environment share: install.sh (.venv) and check.sh (.venv-tools).

say() { printf '\n== %s\n' "$*"; }
die() { printf '\n%s: %s\n' "$(basename "$0")" "$*" >&2; exit 1; }

# Prints what an environment depends on: its place, since a venv does not survive a move, and these files.
fingerprint() { echo "$(pwd) $(cat pyproject.toml setup.py scripts/lib/venv.sh "$@" | cksum)"; }

# Sets `venv` to the environment at $1, made with PYTHON if it is missing or broken, and defines pip for it.
make_venv() {
  venv=$1
  if ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    local python=${PYTHON:-$(command -v python3.11 || command -v python3 || true)}
    [ -n "$python" ] || die "no python3 found; set PYTHON to an interpreter, 3.10 or newer"
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
      die "$python is too old: 3.10 or newer is needed"
    "$python" -m venv --clear "$venv" ||
      die "could not make $venv; on Debian and Ubuntu, install python3-venv"
  fi
  "$venv/bin/python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
    die "$venv is of a Python older than 3.10; remove it, and it is made anew"
  local version='import sys; print(*sys.version_info[:2], sep=".")'
  if [ -n "${PYTHON:-}" ] && [ "$("$PYTHON" -c "$version")" != "$("$venv/bin/python" -c "$version")" ]; then
    die "PYTHON=$PYTHON is another Python than that of $venv; remove $venv, or unset PYTHON"
  fi
  [ -t 1 ] || export PIP_PROGRESS_BAR=off
  "$venv/bin/python" --version
}

pip() { "$venv/bin/python" -m pip --disable-pip-version-check "$@"; }
