"""Which options does an allocator get? It is made with them, or refuses one by its name."""

import types
import typing

from cero import available_allocators, make_allocator
from cero.allocators import allocator_class, option_names

from .damage import odd
from .promises import Finding, attempt, check_whole, need

_HINTS = {}


def hints(cls):
    """Return the types of a class's options: dict of name -> type."""
    if cls not in _HINTS:
        found = {}
        for base in reversed(cls.__mro__):
            if "__init__" in vars(base) and base is not object:
                found |= typing.get_type_hints(vars(base)["__init__"])
        _HINTS[cls] = {name: found[name] for name in option_names(cls)}
    return _HINTS[cls]


INTEGERS = (0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 128, 1024)

FLOATS = (
    0.0,
    1e-6,
    0.01,
    0.1,
    0.125,
    0.25,
    0.3,
    0.5,
    0.7,
    0.75,
    0.9,
    0.95,
    1.0,
    1.5,
    2.0,
    4.0,
    10.0,
    1e4,
    1e6,
)


def draw_option(rng, hint):
    """Return a value of an option's type, in range or not."""
    kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if typing.get_origin(hint) is typing.Union:
        kinds = typing.get_args(hint)
    kind = kinds[rng.integers(len(kinds))]
    if typing.get_origin(kind) is typing.Literal:
        choices = typing.get_args(kind)
        return choices[rng.integers(len(choices))]
    if kind is type(None):
        return None
    if kind is bool:
        return bool(rng.integers(2))
    if kind is int:
        return int(INTEGERS[rng.integers(len(INTEGERS))])
    if rng.integers(3) == 0:
        return float(10.0 ** rng.uniform(-6, 4))
    return float(FLOATS[rng.integers(len(FLOATS))])


def draw_options(rng, name, most=5):
    """Return options of an allocator that may fit: the needed ones, and up to `most` others."""
    cls = allocator_class(name)
    known = hints(cls)
    options = {"rollouts_per_prompt": int(rng.integers(1, 17)), "epochs": int(rng.integers(1, 30))}
    if cls.examples and rng.integers(2):
        options |= cls.examples[rng.integers(len(cls.examples))]
    for key in rng.permutation(list(known))[: rng.integers(most + 1)]:
        options[str(key)] = draw_option(rng, known[str(key)])
    if options.get("predictor") == "gp":
        options["predictor"] = "posterior"  # a Gaussian process takes milliseconds a step
    options["seed"] = int(rng.integers(2**31))
    if options.get("total_budget") is not None:
        options["total_budget"] = int(rng.integers(0, 4000))
    return options


def make(rng, name):
    """Return (allocator, its options), drawn until they fit."""
    for _ in range(200):
        options = draw_options(rng, name)
        allocator, _ = attempt(lambda options=options: make_allocator(name, **options), hints_of(name))
        if allocator is not None:
            return allocator, options
    raise Finding(f"no options of {name} fit")


def hints_of(name):
    """Return the names of an allocator's options."""
    return list(hints(allocator_class(name)))


def check_options(name, options):
    """One case: an allocator is made, or refused with the name of an option. Returns it, or None."""
    allocator, _ = attempt(lambda: make_allocator(name, **options), [*hints_of(name), *options])
    if allocator is not None:
        check_whole(allocator)
        again = make_allocator(name, **allocator.options(), total_budget=allocator.ledger.total)
        need(again.options() == allocator.options(), "options() do not make the same allocator")
    return allocator


def option_cases(rng):
    """Yield after each case: options as drawn, half of them with an odd value among them."""
    names = available_allocators()
    while True:
        name = names[rng.integers(len(names))]
        options = draw_options(rng, name)
        if rng.integers(2):
            known = hints_of(name)
            options[known[rng.integers(len(known))]] = odd(rng)
        if rng.integers(50) == 0:
            options["luck"] = odd(rng)
        check_options(name, options)
        yield name
