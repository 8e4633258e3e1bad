"""The recipes compose from a wheel, too, not only from a checkout."""

import os
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import distributions
from pathlib import Path

import pytest

import cero

ROOT = Path(__file__).parents[2]


@pytest.mark.e2e
def test_wheel_has_the_recipes_and_composes(tmp_path):
    # A copy, since setuptools leaves a build/ behind, whose stale files would enter the next wheel.
    source = tmp_path / "source"
    source.mkdir()
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("cero", "recipe"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "-w", tmp_path]
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", *options, source], check=True, capture_output=True, timeout=120
    )
    (wheel,) = tmp_path.glob("*.whl")
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(site)
    tops = {name.split("/")[0] for name in names if ".dist-info" not in name}
    assert tops == {
        "cero"
    }  # verl's and TransferQueue's wheels have `recipe`, `scripts` and `tests` at the top
    modules = {f"cero/{path.relative_to(ROOT / 'cero').as_posix()}" for path in (ROOT / "cero").rglob("*.py")}
    assert modules <= set(names) and "cero/py.typed" in names

    (distribution,) = distributions(path=[str(site)])
    assert (distribution.metadata["Name"], distribution.version) == ("cero-verl", cero.__version__)
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)
    entries = {(entry.group, entry.name): entry.value for entry in distribution.entry_points}
    assert entries == {
        ("console_scripts", "cero"): "cero.cli.main:main",
        ("verl.plugins", "cero"): "cero.verl.plugin",
    }
    shipped = {path.name for path in (ROOT / "recipe").rglob("*.yaml")}
    assert {Path(name).name for name in names if name.endswith(".yaml")} == shipped

    code = (
        "import runpy, sys, verl, cero; print(cero.__file__, file=sys.stderr);"
        "sys.argv[0] = 'main_ppo'; runpy.run_module('verl.trainer.main_ppo', run_name='__main__')"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, "+recipe=cero", "allocator=uniform", "--cfg", "job", "-p", "allocator"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert str(site) in result.stderr  # the wheel's code ran, not the checkout's
    assert "name: uniform" in result.stdout, result.stderr[-2000:]
