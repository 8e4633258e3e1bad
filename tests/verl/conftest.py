"""Which fixtures do the tests of cero.verl share? verl's own config, composed as its command line does."""

import os

import pytest

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
pytest.importorskip("verl")

from composing import Composer  # noqa: E402


@pytest.fixture(scope="session")
def composed():
    """`composed(*overrides)`: verl's ppo_trainer config with these overrides, a new one at each call."""
    with Composer().at_work() as composer:
        yield composer
