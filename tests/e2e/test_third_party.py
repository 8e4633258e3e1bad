"""An allocator of another package, installed by pip, trains a step through verl by its own word."""

import subprocess
import sys

import pytest
from tiny import command, make_data, make_model, run

from cero.analysis.runlog import read_log

pytestmark = [pytest.mark.e2e, pytest.mark.alone]

PROJECT = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"

[project]
name = "lopsided"
version = "1"

[project.entry-points."cero.allocators"]
lopsided = "lopsided.rule:Lopsided"

[tool.setuptools]
packages = ["lopsided"]

[tool.setuptools.package-data]
lopsided = ["*.yaml"]
"""
RULE = '''
"""Rollouts for prompts with an even id; an example."""

from cero.allocators import UpfrontAllocator


class Lopsided(UpfrontAllocator):
    """Give prompts with an even id `weight` times as much as the others."""

    name = "lopsided"

    def __init__(self, *, weight=7.0, **common):
        super().__init__(**common)
        self.weight = weight

    def _targets(self, rows, budget):
        return 1.0 + (self.weight - 1.0) * (self.table["id"][rows] % 2 == 0)
'''
RECIPE = (
    "name: lopsided\nadv_estimator: grpo\nweight: 7.0\nn_min: 2\nn_max: 32\nseed: 0\nrounding: systematic\n"
)
REWARD = """
def compute_score(data_source, solution_str, ground_truth, extra_info=None):
    return (extra_info["index"] * 37 % 11) / 10
"""


def install(source, target):
    """Install the package into the folder `target`, as a user would into an environment."""
    (source / "lopsided").mkdir(parents=True)
    (source / "pyproject.toml").write_text(PROJECT)
    (source / "lopsided" / "__init__.py").write_text("")
    (source / "lopsided" / "rule.py").write_text(RULE)
    (source / "lopsided" / "lopsided.yaml").write_text(RECIPE)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--no-index", "--target", target, source], check=True, capture_output=True)


def test_an_installed_package_trains_a_step(tmp_path):
    install(tmp_path / "source", tmp_path / "site")
    folder = tmp_path / "run"
    folder.mkdir()
    make_model(folder / "model", tied=True)
    make_data(folder / "train.parquet")
    (folder / "reward.py").write_text(REWARD)
    words = ("allocator=lopsided", "trainer.val_before_train=false", "trainer.total_training_steps=1")
    run(command(folder, *words), folder, PYTHONPATH=str(tmp_path / "site"))

    (step,) = read_log(folder / "checkpoints" / "cero" / "allocations.jsonl")
    even = [int(prompt, 16) % 2 == 0 for prompt in step["prompts"]]
    given = {True: set(), False: set()}
    for n, kind in zip(step["rollouts"], even, strict=True):
        given[kind].add(n)
    assert step["spent"] == sum(step["rollouts"]) == 64 and given[True] and given[False]
    assert max(given[False]) < min(given[True])
