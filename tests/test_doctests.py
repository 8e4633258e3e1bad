"""The examples in the docstrings of the NumPy core give what they say."""

import doctest
import importlib
import pkgutil

import pytest

import cero
from cero import allocators, core, estimators
from cero.core.budget import project_to_sum
from cero.core.checks import check_number
from cero.estimators.advantage import advantages
from cero.estimators.keep import kept

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


@pytest.mark.parametrize("main", [cero, cero.make_allocator, check_number, project_to_sum, advantages, kept])
def test_what_people_meet_first_has_an_example(main):
    (found,) = doctest.DocTestFinder(recurse=False).find(main, "main")
    assert found.examples
