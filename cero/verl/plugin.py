"""What `import verl` runs, in every process, through the `verl.plugins` entry point.

It must cost next to nothing (Ray starts dozens of processes that never train) and it must not fail
unseen (verl logs a plugin's failure at DEBUG). So nothing heavy is imported here: each registration
waits, by a post-import hook, for the verl or Hydra module that it extends.
"""

import importlib
import re
import sys

# When this module has been imported ... -> ... import ours, whose import registers.
REGISTRATIONS = {
    "hydra.core.config_store": "cero.verl.recipes",
    "verl.trainer.ppo.core_algos": "cero.verl.estimators",
    "verl.trainer.ppo.v1": "cero.verl.trainer",
    "verl.plugin.platform.platform_manager": "cero.verl.cpu.platform",
    "verl.workers.engine": "cero.verl.cpu.engine",
    "verl.workers.rollout.replica": "cero.verl.cpu.rollout",
}

# A command line that means us: `+recipe=cero`, `+recipe=[cero,mine]`, `allocator=uniform`,
# `allocator.n_max=8`.
_ASKS_FOR_US = re.compile(r"\+{0,2}recipe=.*\b(cero|cpu)|allocator[=.]")


def _fail(error):
    """Say why on stderr; end the process if its command line asked for a recipe of ours."""
    message = f"cero: the verl plugin could not be loaded: {type(error).__name__}: {error}"
    if any(_ASKS_FOR_US.match(argument) for argument in sys.argv[1:]):
        # verl catches Exception around plugins; SystemExit passes. Without it Hydra would take
        # `+recipe=cero` as a plain value and train vanilla PPO.
        message += "\ncero: stopping: without the plugin `+recipe=` would silently be ignored."
        raise SystemExit(message) from error
    print(
        f"{message}\ncero: its recipes, trainer and estimators are not available in this process.",
        file=sys.stderr,
    )


def _load(ours):
    try:
        importlib.import_module(ours)
    except Exception as error:
        _fail(error)


def register():
    """Install the post-import hooks. Called once, when this module is imported."""
    try:
        from wrapt import when_imported
    except ImportError as error:
        _fail(error)
        return
    for theirs, ours in REGISTRATIONS.items():
        when_imported(theirs)(lambda module, ours=ours: _load(ours))


register()
