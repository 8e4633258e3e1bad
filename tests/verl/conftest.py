"""verl's own config, composed as its command line does."""

import os

import pytest

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
pytest.importorskip("verl")

from hydra import compose, initialize_config_module  # noqa: E402


@pytest.fixture(scope="session")
def composed():
    """`composed(*overrides)`: verl's ppo_trainer config with these overrides."""
    with initialize_config_module("verl.trainer.config", version_base=None):
        yield lambda *overrides: compose("ppo_trainer", overrides=list(overrides))
