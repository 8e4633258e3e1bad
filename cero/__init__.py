"""How many rollouts each prompt of an RL post-training run gets. NumPy only; `cero.verl` is the adapter.

>>> from cero import make_allocator
>>> a = make_allocator("cero", rollouts_per_prompt=8, epochs=10, n_min=2, n_max=32, seed=0)
>>> n = a.allocate(["1+1=", "2+3="], budget=16)
>>> a.observe(["1+1=", "2+3="], successes=[8, 1], trials=n)
"""

__version__ = "0.1.0"
__all__ = ["available_allocators", "make_allocator"]


def __getattr__(name):
    # Late, because every process that imports verl imports this package for its plugin.
    if name in __all__:
        from cero import allocators

        return getattr(allocators, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
