"""How many rollouts each prompt of an RL post-training run gets. `cero.verl` is the adapter to verl.

This package, `cero.core`, `cero.allocators` and `cero.estimators` import NumPy only.

>>> from cero import make_allocator
>>> allocator = make_allocator("cero", rollouts_per_prompt=8, epochs=10, n_min=2, n_max=32, seed=0)
>>> prompts = ["1+1=", "2+3="]
>>> trials = allocator.allocate(prompts, budget=16)  # how many rollouts each prompt gets in this step
>>> trials
array([8, 8])
>>> allocator.observe(prompts, successes=[8, 1], trials=trials)  # how many of them were right
"""

from typing import Any

__version__ = "0.1.0"
__all__ = ["available_allocators", "make_allocator"]


def __getattr__(name: str) -> Any:
    # Late, because every process that imports verl imports this package for its plugin.
    if name in __all__:
        from cero import allocators

        return getattr(allocators, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
