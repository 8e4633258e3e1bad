"""Another package adds an allocator by an entry point, and one that is broken harms no other."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from contract import drive, ids, make, rewards_of

from cero import available_allocators, make_allocator
from cero.allocators import plugin_recipes, registry

ROOT = Path(__file__).parents[2]
RULE = '''
import numpy as np

from cero.allocators import UpfrontAllocator


class Coin(UpfrontAllocator):
    """Heads get the rollouts.

    Parameters
    ----------
    heads : float in (0, 1]
    """

    name = "coin"

    def __init__(self, *, heads: float = 0.5, **common):
        super().__init__(**common)
        self.heads = heads

    def _targets(self, rows, budget):
        return np.where(self._rng.random(rows.size) < self.heads, 16.0, 2.0)
'''
YAML = """name: coin
adv_estimator: cero
heads: 0.5
n_min: 2
n_max: 32
seed: 0
rounding: systematic
"""


def install(folder, entry="coin = coin_rule.allocator:Coin", package="coin_rule", files=None):
    """Put a package with one entry point into `folder`, as pip would."""
    files = {"__init__.py": "", "allocator.py": RULE, "coin.yaml": YAML} if files is None else files
    (folder / package).mkdir(parents=True)
    for name, text in files.items():
        (folder / package / name).write_text(text)
    info = folder / f"{package}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[cero.allocators]\n{entry}\n")
    return folder


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder on the path; what was found of allocators is forgotten before and after."""
    monkeypatch.syspath_prepend(tmp_path)
    registry._discover.cache_clear()
    registry.tell.cache_clear()
    yield tmp_path
    for name in [name for name in sys.modules if name.split(".")[0] in ("coin_rule", "other")]:
        del sys.modules[name]
    registry._discover.cache_clear()


def test_it_is_one_of_all(site):
    before = available_allocators()
    install(site)
    registry._discover.cache_clear()
    assert available_allocators() == sorted([*before, "coin"])
    assert make_allocator("coin", rollouts_per_prompt=8, epochs=2).heads == 0.5
    with pytest.raises(ValueError, match="luck=7 is no option of allocator 'coin'; it has heads, "):
        make_allocator("coin", rollouts_per_prompt=8, epochs=2, luck=7)


def test_it_keeps_the_contract(site):
    install(site)
    one, other = make("coin"), make("coin")
    for k in range(3):
        step = one.begin(ids(24), 180)
        drive(step, rewards_of(24, k))
        one.settle(step, step.successes, step.trials)
        n = other.allocate(ids(24), 180)
        assert n.sum() == 180 and n.min() >= 2 and n.max() <= 32
        np.testing.assert_array_equal(n, step.launched)
        other.observe(ids(24), step.successes, step.trials)
    restored = make("coin")
    restored.load_state_dict(one.state_dict())
    np.testing.assert_array_equal(restored.allocate(ids(24), 180), other.allocate(ids(24), 180))


def test_its_recipe_is_read_without_importing_it(site):
    files = {"__init__.py": "raise SystemExit", "allocator.py": RULE, "coin.yaml": YAML}
    install(site, files=files)
    assert dict(plugin_recipes())["coin"] == YAML
    assert "coin_rule" not in sys.modules


@pytest.mark.parametrize("layout", ["module", "package", "nested"])
def test_its_recipe_lies_beside_its_module(site, layout):
    module = {"module": "coin_rule", "package": "coin_rule.rules", "nested": "coin_rule.rules.coin"}[layout]
    install(site, entry=f"coin = {module}:Coin")
    (site / "coin_rule" / "coin.yaml").unlink()
    (site / "coin_rule" / "rules").mkdir()
    place = site / ("coin_rule" if layout == "module" else "coin_rule/rules")
    (place / "coin.yaml").write_text("name: here\n")
    assert dict(plugin_recipes())["coin"] == "name: here\n"


BROKEN = {
    "import": ({"allocator.py": "import no_such_module"}, r"can't be imported \(ModuleNotFoundError"),
    "attribute": ({"allocator.py": ""}, r"can't be imported \(AttributeError"),
    "class": ({"allocator.py": "Coin = dict"}, "is no subclass of cero.allocators.Allocator"),
    "abstract": (
        {"allocator.py": RULE.replace("_targets", "_wishes")},
        "lacks _targets",
    ),
    "name": ({"allocator.py": RULE.replace('"coin"', '"die"')}, "has name = 'die'; it must be the entry"),
    "recipe": ({"coin.yaml": None}, "there is no coin.yaml beside coin_rule.allocator"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_one_is_left_out_and_says_why(site, capfd, case):
    before = available_allocators()
    changed, reason = BROKEN[case]
    files = {"__init__.py": "", "allocator.py": RULE, "coin.yaml": YAML} | changed
    install(site, files={name: text for name, text in files.items() if text is not None})
    registry._discover.cache_clear()
    assert available_allocators() == before
    with pytest.raises(ValueError, match=f"allocator='coin' can't be used: entry point .*{reason}"):
        make_allocator("coin", rollouts_per_prompt=8, epochs=2)
    list(plugin_recipes())
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("cero: entry point cero.allocators: coin = coin_rule.allocator:Coin of coin_rule")
    assert make_allocator("cero", rollouts_per_prompt=8, epochs=2).name == "cero"


def test_a_value_that_names_nothing(site, capfd):
    install(site, entry="coin = coin rule!")
    with pytest.raises(ValueError, match="allocator='coin' can't be used"):
        make_allocator("coin", rollouts_per_prompt=8, epochs=2)
    assert "coin" not in dict(plugin_recipes())
    assert "is not of the form package.module:Class" in capfd.readouterr().err


def test_a_name_that_is_taken_stays_what_it_was(site, capfd):
    rule = RULE.replace('"coin"', '"cero"')
    files = {"__init__.py": "", "allocator.py": rule, "cero.yaml": YAML}
    install(site, entry="cero = coin_rule.allocator:Coin", files=files)
    assert type(make_allocator("cero", rollouts_per_prompt=8, epochs=2)).__name__ == "Cero"
    assert "that name is taken by <class 'cero.allocators.cero.Cero'>" in capfd.readouterr().err


@pytest.fixture
def with_verl(tmp_path):
    """A folder with a package that adds `coin`, and one with entry points that can't be used."""
    pytest.importorskip("hydra")  # which comes with verl, and is imported in no time
    install(tmp_path)
    files = {"__init__.py": "", "allocator.py": RULE, "cero.yaml": YAML, "other.yaml": "a: [1"}
    entries = "cero = other.allocator:Coin\nother = other.allocator:Coin"
    return install(tmp_path, entry=entries, package="other", files=files)


@pytest.mark.e2e
def test_verl_composes_with_it(with_verl):
    words = ["+recipe=cero_cpu", "allocator=coin", "allocator.heads=0.25", "--cfg", "job", "-p", "allocator"]
    result = subprocess.run(
        [sys.executable, "-m", "verl.trainer.main_ppo", *words],
        cwd=with_verl,
        env=os.environ | {"PYTHONPATH": f"{with_verl}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert result.returncode == 0 and "heads: 0.25" in result.stdout, result.stderr[-2000:]
    assert "other.yaml of entry point cero.allocators: other is left out" in result.stderr


def test_recipes_of_this_package_stay_what_they_were(with_verl, monkeypatch):
    from cero.verl.recipes import recipe_files

    before = list(recipe_files())
    monkeypatch.syspath_prepend(with_verl)
    assert list(recipe_files()) == [*before, ("allocator", "coin.yaml", "allocator", YAML)]
