"""How does verl's own `main_ppo` find this plugin's Hydra groups, `recipe` and `allocator`?

They are put into Hydra's ConfigStore. A search path would not do: Hydra's plugin discovery does not see
editable installs. The ConfigStore works in editable and wheel installs alike, and exposes only these files.
"""

from importlib.resources import files

from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from cero.allocators.registry import plugin_recipes, tell

PROVIDER = "cero"


def recipe_files():
    """Yield (group, name, package, text) for each yaml of this package and of allocators' entry points."""
    root, own = files("cero.recipe"), set()
    for group, folder, package in (
        ("recipe", root, "_global_"),
        ("allocator", root / "allocator", "allocator"),
    ):
        for entry in sorted(folder.iterdir(), key=lambda e: e.name):
            if entry.name.endswith(".yaml"):
                own.add((group, entry.name))
                yield group, entry.name, package, entry.read_text(encoding="utf-8")
    for name, text in plugin_recipes():
        if ("allocator", f"{name}.yaml") not in own and _is_yaml(name, text):
            yield "allocator", f"{name}.yaml", "allocator", text


def _is_yaml(name, text):
    """Whether another package's recipe can be read; if not, says so on stderr."""
    try:
        OmegaConf.create(text)
    except Exception as error:  # of the yaml reader, or of OmegaConf
        tell(
            f"{name}.yaml of entry point cero.allocators: {name} is left out: {' '.join(str(error).split())}"
        )
        return False
    return True


def store_recipes():
    """Register every recipe (as package `_global_`) and every allocator (as package `allocator`)."""
    store = ConfigStore.instance()
    for group, name, package, text in recipe_files():
        store.store(group=group, name=name, node=OmegaConf.create(text), package=package, provider=PROVIDER)


store_recipes()
