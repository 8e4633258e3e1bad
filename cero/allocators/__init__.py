"""Allocators, which decide how many rollouts each prompt of a step gets; see `Allocator` for their interface.

A new one is a module here or in `peers`, and `recipe/allocator/<name>.yaml`. Another package adds one by an
entry point: see `cero.allocators.registry`.
"""

from cero.allocators.base import Allocator, Description, option_names
from cero.allocators.options import WithBeliefs, WithValue
from cero.allocators.registry import (
    allocator_class,
    available_allocators,
    make_allocator,
    plugin_recipes,
)
from cero.allocators.rounds import Step
from cero.allocators.sequential import SequentialAllocator
from cero.allocators.upfront import UpfrontAllocator

__all__ = [
    "Allocator",
    "Description",
    "SequentialAllocator",
    "Step",
    "UpfrontAllocator",
    "WithBeliefs",
    "WithValue",
    "allocator_class",
    "available_allocators",
    "make_allocator",
    "option_names",
    "plugin_recipes",
]
