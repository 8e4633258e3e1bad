"""The registry: each module of this folder that defines a named `Allocator` adds one."""

import importlib
import pkgutil

from cero.allocators.base import Allocator, option_names

_REGISTRY = {}


def _discover():
    for module in pkgutil.walk_packages(__path__, f"{__name__}."):
        importlib.import_module(module.name)
    pending = [Allocator]
    while pending:
        cls = pending.pop()
        pending.extend(cls.__subclasses__())
        if cls.name is not None and "name" in vars(cls):
            other = _REGISTRY.setdefault(cls.name, cls)
            if other is not cls:
                raise ValueError(f"two allocators are named {cls.name!r}: {other} and {cls}")


def available_allocators():
    """Names of all allocators, sorted."""
    if not _REGISTRY:
        _discover()
    return sorted(_REGISTRY)


def allocator_class(name):
    """The class registered as `name`. Raises ValueError, naming the ones there are."""
    if name not in available_allocators():
        raise ValueError(
            f"allocator={name!r} is not known; choose one of {', '.join(available_allocators())}"
        )
    return _REGISTRY[name]


def make_allocator(name, **options):
    """Make an allocator by name.

    >>> a = make_allocator("uniform", rollouts_per_prompt=8, epochs=10)
    >>> a.allocate(["1+1=", "2+3="], budget=16)
    array([8, 8])

    Parameters
    ----------
    name : str, one of `available_allocators()`
    **options : `rollouts_per_prompt` and `epochs` at least; see the class for the rest

    Raises
    ------
    ValueError
        For an unknown name, an unknown or missing option, or a value out of range.
    """
    cls = allocator_class(name)
    known = option_names(cls)
    unknown = [key for key in options if key not in known]
    if unknown:
        raise ValueError(
            f"{unknown[0]}={options[unknown[0]]!r} is no option of allocator {name!r}; it has {', '.join(known)}"
        )
    for key in ("rollouts_per_prompt", "epochs"):
        if key not in options:
            raise ValueError(f"{key} is missing; every allocator needs rollouts_per_prompt and epochs")
    return cls(**options)
