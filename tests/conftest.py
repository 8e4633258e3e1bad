"""What do all tests need? The same cases in each run, and a garbage collector that leaves libraries alone."""

import gc

from hypothesis import settings

# A run of the tests is to be the same as the last one; scripts/reliability looks for new cases.
settings.register_profile("same", derandomize=True, deadline=None)
settings.load_profile("same")


def pytest_collection_finish():
    """Take what is imported by now out of the collector's sight, and have it run less often.

    PyTorch, Transformers and verl are millions of objects, which the tests of verl's config would have the
    collector look through again and again.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def pytest_unconfigure():
    """Let the collector see everything again: some libraries complain at exit about what it missed."""
    gc.unfreeze()
