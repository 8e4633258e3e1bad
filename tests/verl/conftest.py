"""Which fixtures do the tests of cero.verl share? verl's own config, composed as its command line does."""

import os
import sys

import pytest

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
# verl can do without its engine for Ascend, whose import takes all of vLLM along, 2 s in each process.
sys.modules.setdefault("verl.checkpoint_engine.hccl_checkpoint_engine", None)
pytest.importorskip("verl")

import torch  # noqa: E402
from composing import Composer  # noqa: E402


@pytest.fixture(autouse=True)
def one_thread():
    """Have PyTorch compute with one thread: with small tensors, a second one mostly waits in a busy loop."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def composed():
    """`composed(*overrides)`: verl's ppo_trainer config with these overrides, a new one at each call."""
    with Composer().at_work() as composer:
        yield composer
