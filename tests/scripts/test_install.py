"""scripts/install.sh, with a stub in place of Python and pip: what it asks for, and what it says."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
INDEX = "https://download.pytorch.org/whl/cpu"
SOURCES = ["pyproject.toml", "setup.py", "scripts/install.sh", "scripts/lib/venv.sh"]

# Plays the interpreter, `venv` and pip. TORCH_FROM says where torch is to be had: "configured" (any index),
# "own index" (PyTorch's, once it is named) or "nowhere".
STUB = """#!/usr/bin/env bash
printf '%s\\n' "$*" >>"$CALLS"
case "$*" in
  "-m venv --clear "*) mkdir -p "$4/bin" && cp "$0" "$4/bin/python" ;;
  "-c "*) exit "${TOO_OLD:-0}" ;;
  *" install "*torch==*)
    case "$TORCH_FROM $*" in
      configured*) ;;
      "own index "*--extra-index-url*) ;;
      *)
        echo "ERROR: No matching distribution found for torch" >&2
        exit 1
        ;;
    esac
    ;;
  -) cat >/dev/null ;;
esac
"""


@pytest.fixture
def install(tmp_path):
    """Return a function that runs the script in a copy of its files: its result, and the calls of Python."""
    for name in (*SOURCES, "scripts/lib/usage.sh"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    stub = tmp_path / "stub-python"
    stub.write_text(STUB)
    stub.chmod(0o755)
    calls = tmp_path / "calls"

    def run(torch_from, **environment):
        calls.write_text("")
        result = subprocess.run(
            ["bash", "scripts/install.sh"],
            cwd=tmp_path,
            env=os.environ
            | {"PYTHON": str(stub), "CALLS": str(calls), "TORCH_FROM": torch_from}
            | environment,
            capture_output=True,
            text=True,
            timeout=60,
        )
        return result, calls.read_text().splitlines()

    return run


def torch_installs(calls):
    return [call for call in calls if " install " in call and "torch==" in call]


def stamp(folder):
    return folder / ".venv" / ".cero-install"


def test_a_configured_index_is_enough(install, tmp_path):
    result, calls = install("configured")
    assert result.returncode == 0, result.stderr
    (torch,) = torch_installs(calls)
    assert "--extra-index-url" not in torch and INDEX not in result.stdout
    assert any(call.endswith("install -e .[cpu,examples,test]") for call in calls)
    assert stamp(tmp_path).exists()


def test_pytorchs_own_index_is_tried_before_giving_up(install, tmp_path):
    result, calls = install("own index")
    assert result.returncode == 0, result.stderr
    first, second = torch_installs(calls)
    assert "--extra-index-url" not in first
    assert f"--extra-index-url {INDEX} torch==" in second
    assert first.split()[-1] == second.split()[-1]  # the same build of the same version
    assert f"trying {INDEX}" in result.stdout
    assert any(call.endswith("install -e .[cpu,examples,test]") for call in calls)
    assert stamp(tmp_path).exists()


def test_where_no_index_has_it_the_message_says_what_to_do(install, tmp_path):
    result, calls = install("nowhere")
    assert result.returncode == 1
    assert len(torch_installs(calls)) == 2
    assert "install.sh: no torch" in result.stderr and INDEX in result.stderr
    assert "PIP_EXTRA_INDEX_URL=" in result.stderr and "PIP_FIND_LINKS=" in result.stderr
    assert not any("install -e" in call for call in calls)
    assert not stamp(tmp_path).exists()


def test_an_interpreter_that_is_too_old_is_refused(install):
    result, calls = install("configured", TOO_OLD="1")
    assert result.returncode == 1 and "3.10 or newer is needed" in result.stderr
    assert not torch_installs(calls)


def test_another_python_than_that_of_the_environment_is_refused(tmp_path):
    """`PYTHON` picks the interpreter of a new environment; that of an existing one it can't change."""
    for name, version in (("new", "3.12"), ("venv/bin/python", "3.11")):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(
            f'#!/bin/sh\ncase "$*" in *version_info*,*|*"[:2]"*) echo {version};; esac\n'
        )
        (tmp_path / name).chmod(0o755)
    words = f"set -euo pipefail; source {ROOT}/scripts/lib/venv.sh; make_venv {tmp_path}/venv"

    def made(python):
        environment = os.environ | {"PYTHON": str(python)}
        return subprocess.run(
            ["bash", "-c", words], env=environment, capture_output=True, text=True, timeout=20
        )

    refused = made(tmp_path / "new")
    assert refused.returncode == 1 and "is another Python than that of" in refused.stderr
    assert made(tmp_path / "venv/bin/python").returncode == 0


@pytest.mark.parametrize("changed", SOURCES)
def test_it_installs_again_only_when_its_sources_change(install, tmp_path, changed):
    install("configured")
    result, calls = install("configured")
    assert result.returncode == 0 and "up to date" in result.stdout and not calls
    with (tmp_path / changed).open("a") as file:
        file.write("\n# changed\n")
    result, calls = install("configured")
    assert result.returncode == 0 and torch_installs(calls)
