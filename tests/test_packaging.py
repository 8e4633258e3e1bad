"""Does the package declare what it imports, and do the files that repeat a fact agree?"""

import ast
import re
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml

import cero

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # comes with pytest there

ROOT = Path(__file__).resolve().parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = PYPROJECT["project"]
NUMPY_ONLY = ("cero/core", "cero/allocators", "cero/estimators", "cero/__init__.py")
# Which extra a folder or file may rely on, beside the default dependencies. The most specific place counts.
EXTRAS = {
    "cero/verl": ["verl"],
    "cero/verl/cpu": ["verl", "cpu"],
    "cero/research/speed": ["verl"],  # measures a training of verl's
    "cero/research/laboratory": ["verl", "lab"],
    "cero/allocators/peers/vip.py": ["vip"],
}
# The environment of the tests is without scikit-learn (pyproject.toml says why).
DISTRIBUTIONS = {"sklearn": ["scikit-learn"]} | packages_distributions()


def normal(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def declared(requirements):
    return {normal(re.match(r"[\w.-]+", requirement)[0]) for requirement in requirements}


def imported(path):
    """Top-level names of the modules of others that a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add(node.module)
    names = {name.split(".")[0] for name in names}
    return names - sys.stdlib_module_names - {"cero"}


def place(path):
    """The key of EXTRAS that holds for a file, or None."""
    name = path.relative_to(ROOT).as_posix()
    return max((key for key in EXTRAS if name == key or name.startswith(f"{key}/")), key=len, default=None)


MODULES = sorted(path for path in (ROOT / "cero").rglob("*.py") if imported(path))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_import_is_declared_where_it_is_used(path):
    available = declared(PROJECT["dependencies"])
    for extra in EXTRAS.get(place(path), []):
        available |= declared(PROJECT["optional-dependencies"][extra])
    missing = {
        name: DISTRIBUTIONS.get(name, ["not installed"])
        for name in imported(path)
        if not {normal(d) for d in DISTRIBUTIONS.get(name, [])} & available
    }
    assert not missing, f"{path}: declare these in pyproject.toml, {place(path) or 'default dependencies'}"


@pytest.mark.parametrize(
    "path",
    [path for path in MODULES if path.relative_to(ROOT).as_posix().startswith(NUMPY_ONLY)],
    ids=lambda path: path.relative_to(ROOT).as_posix(),
)
def test_the_core_imports_numpy_only(path):
    allowed = {"numpy", "sklearn"} if path.name == "vip.py" else {"numpy"}
    assert imported(path) <= allowed


def test_extras_refer_to_this_package_by_its_name():
    requirements = [r for extra in PROJECT["optional-dependencies"].values() for r in extra]
    own = [r for r in requirements if r.startswith("cero")]
    extras = PROJECT["optional-dependencies"]
    assert own and all(re.fullmatch(r"cero-verl\[(\w+)\]", r)[1] in extras for r in own)


def test_one_version():
    assert PROJECT["dynamic"] == ["version"]
    assert PYPROJECT["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "cero.__version__"}
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == cero.__version__
    assert citation["license"] == PROJECT["license"]


def test_the_hooks_of_pre_commit_are_the_checks_of_check_sh():
    """Same tools, same versions."""
    (local,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    pins = {pin for hook in local["hooks"] for pin in hook["additional_dependencies"] if "==" in pin}
    assert pins == set(PROJECT["optional-dependencies"]["lint"])


def test_the_workflow_calls_the_scripts_of_ci():
    scripts = re.findall(
        r"^bash scripts/\w+\.sh", (ROOT / ".ci" / "run").read_text(encoding="utf-8"), re.MULTILINE
    )
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))
    steps = [step["run"] for job in workflow["jobs"].values() for step in job["steps"] if "run" in step]
    assert steps == scripts == ["bash scripts/check.sh", "bash scripts/test.sh"]
