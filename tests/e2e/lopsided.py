"""What is the package of another project, with an allocator of its own, that the tests install?"""

import subprocess
import sys

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


def install(source, target):
    """Install the package into the folder `target`, as a user would into an environment."""
    (source / "lopsided").mkdir(parents=True)
    (source / "pyproject.toml").write_text(PROJECT)
    (source / "lopsided" / "__init__.py").write_text("")
    (source / "lopsided" / "rule.py").write_text(RULE)
    (source / "lopsided" / "lopsided.yaml").write_text(RECIPE)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--no-index", "--target", target, source], check=True, capture_output=True)
