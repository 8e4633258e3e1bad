"""Which allocators are there? Those of this package, by its modules, and others by their entry points.

Another package adds one by an entry point of the group `cero.allocators`. Its name is the allocator's, its
value is `package.module:Class`, and `<name>.yaml` lies beside that module as package data:

    [project.entry-points."cero.allocators"]
    coin = "coin_rule.allocator:Coin"

An entry point that can't be used is left out with a line on stderr; asking for its name raises with the
reason.
"""

import importlib
import importlib.util
import inspect
import pkgutil
import sys
from collections.abc import Iterator
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from cero.allocators.base import Allocator, option_names
from cero.core.checks import shown

PACKAGE = "cero.allocators"
GROUP = "cero.allocators"


def available_allocators() -> list[str]:
    """Return the names of all allocators, sorted."""
    return sorted(_discover()[0])


def allocator_class(name: str) -> type[Allocator]:
    """Return the class registered as `name`.

    Raises
    ------
    ValueError
        If there is none, naming those there are; or why the entry point of that name can't be used.
    """
    classes, unusable = _discover()
    if not isinstance(name, str):
        names = ", ".join(available_allocators())  # type: ignore[unreachable]
        raise ValueError(f"allocator={shown(name)} is no name; choose one of {names}")
    if name in classes:
        return classes[name]
    if name in unusable:
        raise ValueError(f"allocator={name!r} can't be used: {unusable[name]}")
    raise ValueError(f"allocator={name!r} is not known; choose one of {', '.join(available_allocators())}")


def make_allocator(name: str, **options: Any) -> Allocator:
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
            f"{unknown[0]}={options[unknown[0]]!r} is no option of allocator {name!r}; it has "
            f"{', '.join(known)}"
        )
    for key in ("rollouts_per_prompt", "epochs"):
        if key not in options:
            raise ValueError(f"{key} is missing; every allocator needs rollouts_per_prompt and epochs")
    return cls(**options)


def plugin_recipes() -> Iterator[tuple[str, str]]:
    """Yield (name, text of its yaml) for each entry point that has one; imports nothing of its package."""
    for entry in entry_points(group=GROUP):
        try:
            yield entry.name, _recipe(entry).read_text(encoding="utf-8")
        except (ValueError, OSError) as error:
            tell(_unusable(entry, error))


@cache
def tell(message: str) -> None:
    """Write a line to stderr; the same one only once in a process."""
    print(f"cero: {message}", file=sys.stderr)


@cache
def _discover() -> tuple[dict[str, type[Allocator]], dict[str, str]]:
    """Return the classes by name, and why other names can't be used."""
    classes: dict[str, type[Allocator]] = {}
    unusable: dict[str, str] = {}
    for module in pkgutil.walk_packages(importlib.import_module(PACKAGE).__path__, f"{PACKAGE}."):
        for cls in vars(importlib.import_module(module.name)).values():
            if not (isinstance(cls, type) and issubclass(cls, Allocator) and cls.__module__ == module.name):
                continue
            name = vars(cls).get("name")
            if name is not None and classes.setdefault(name, cls) is not cls:
                raise ValueError(f"two allocators are named {name!r}: {classes[name]} and {cls}")
    for entry in entry_points(group=GROUP):
        try:
            cls = _plugin_class(entry)
            if entry.name in classes:
                raise ValueError(f"that name is taken by {classes[entry.name]}; choose another")
        except ValueError as error:
            reason = _unusable(entry, error)
            tell(reason)
            if entry.name not in classes:
                unusable[entry.name] = reason
        else:
            classes[entry.name] = cls
            unusable.pop(entry.name, None)
    return classes, unusable


def _unusable(entry: EntryPoint, error: Exception) -> str:
    """Say in one line which entry point can't be used, and why."""
    owner = f" of {entry.dist.name}" if entry.dist is not None else ""
    return f"entry point {GROUP}: {entry.name} = {entry.value}{owner} is left out: {error}"


def _plugin_class(entry: EntryPoint) -> type[Allocator]:
    """Return the class of an entry point. Raises ValueError, saying what is wrong with it."""
    try:
        cls = entry.load()
    except Exception as error:  # whatever another package's import may raise
        raise ValueError(f"it can't be imported ({type(error).__name__}: {error})") from error
    if not (isinstance(cls, type) and issubclass(cls, Allocator)):
        raise ValueError(f"{cls!r} is no subclass of cero.allocators.Allocator")
    if inspect.isabstract(cls):
        raise ValueError(f"{cls} lacks {', '.join(sorted(cls.__abstractmethods__))}")
    if cls.name != entry.name:
        raise ValueError(f"the class has name = {cls.name!r}; it must be the entry point's")
    _recipe(entry)
    return cls


def _recipe(entry: EntryPoint) -> Path:
    """Return the path of an entry point's yaml. Raises ValueError if there is none."""
    file = f"{entry.name}.yaml"
    try:
        top, *inner = entry.module.split(".")
    except AttributeError:  # of a value that does not match
        raise ValueError("its value is not of the form package.module:Class") from None
    try:
        spec = importlib.util.find_spec(top)  # looks for it, and imports nothing
    except (ImportError, ValueError):
        spec = None
    if spec is None:
        raise ValueError(f"there is no module {top!r}")
    if spec.submodule_search_locations is None:
        folders = [Path(spec.origin or "").parent]
    else:
        # A package is a folder; a module is a file in one.
        places = [Path(location, *inner) for location in spec.submodule_search_locations]
        folders = [place if place.is_dir() else place.parent for place in places]
    for folder in folders:
        if (folder / file).is_file():
            return folder / file
    raise ValueError(f"there is no {file} beside {entry.module}; ship it as package data")
