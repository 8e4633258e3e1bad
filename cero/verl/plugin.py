"""What `import verl` runs, in every process, through the `verl.plugins` entry point.

It must cost next to nothing (Ray starts dozens of processes that never train) and it must not fail
unseen (verl logs a plugin's failure at DEBUG). So nothing heavy is imported here: each registration
waits, by a post-import hook, for the verl or Hydra module that it extends.
"""

import importlib
import re
import sys

from wrapt import when_imported

# When this module has been imported ... -> ... import ours, whose import registers.
REGISTRATIONS = {
    "hydra.core.config_store": "cero.verl.recipes",
    "verl.trainer.ppo.core_algos": "cero.verl.estimators",
    "verl.trainer.ppo.v1": "cero.verl.trainer",
    "verl.plugin.platform.platform_manager": "cero.verl.cpu.platform",
    "verl.workers.engine": "cero.verl.cpu.engine",
    "verl.workers.rollout.replica": "cero.verl.cpu.rollout",
}


def _asked_for_recipe(argv):
    return any(re.match(r"\+{0,2}recipe=|allocator[=.]", arg) for arg in argv)


def _fail(error):
    """Say why on stderr; end the process if its command line asked for a recipe of ours."""
    message = f"cero: the verl plugin could not be loaded: {type(error).__name__}: {error}"
    if _asked_for_recipe(sys.argv[1:]):
        # verl catches Exception around plugins; SystemExit passes. Without it Hydra would take
        # `+recipe=cero` as a plain value and train vanilla PPO.
        raise SystemExit(
            f"{message}\ncero: stopping: without the plugin `+recipe=` would silently be ignored."
        ) from error
    print(f"{message}\ncero: its recipes, trainer and estimators are not available in this process.", file=sys.stderr)


def _register(ours):
    try:
        importlib.import_module(ours)
    except Exception as error:
        _fail(error)


def register():
    """Install the post-import hooks. Called once, when this module is imported."""
    for theirs, ours in REGISTRATIONS.items():
        when_imported(theirs)(lambda module, ours=ours: _register(ours))


register()
