"""Find the packages, which pyproject.toml can't; everything else about this package is there."""

from setuptools import find_packages, setup

# The wheels of verl and TransferQueue put `recipe`, `scripts` and `tests` at the top of site-packages. So the
# only package at the top here must be `cero`, and the folder recipe/ is installed as `cero.recipe`.
setup(
    packages=[*find_packages(include=["cero", "cero.*"], exclude=["cero.recipe"]), "cero.recipe"],
    package_dir={"cero.recipe": "recipe"},
)
