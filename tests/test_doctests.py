"""The examples in the docstrings of the NumPy core give what they say."""

import doctest
import importlib
import pkgutil

import pytest

import cero
from cero import allocators, core, estimators
from cero.allocators import registry

MODULES = ["cero"] + [
    name
    for package in (core, allocators, estimators)
    for name in (
        package.__name__,
        *(module.name for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")),
    )
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_of(name):
    module = importlib.import_module(name)
    failed, _ = doctest.testmod(module)
    assert failed == 0


def test_the_main_functions_have_examples():
    examples = doctest.DocTestFinder(recurse=False).find(cero, "cero")
    examples += doctest.DocTestFinder().find(registry)
    with_examples = {test.name for test in examples if test.examples}
    assert {"cero", "cero.allocators.registry.make_allocator"} <= with_examples
