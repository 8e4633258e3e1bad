"""What does `import verl` run in every process, through the `verl.plugins` entry point?

It must cost next to nothing, since Ray starts dozens of processes that never train. It must not fail unseen,
since verl logs a plugin's failure at DEBUG. So nothing heavy is imported here: each registration waits, by a
post-import hook, for the module of verl or Hydra that it extends.
"""

import importlib
import re
import sys

# Once the module on the left has been imported, the one on the right is, which registers itself.
REGISTRATIONS = {
    "hydra.core.config_store": "cero.verl.recipes",
    "verl.trainer.ppo.core_algos": "cero.verl.estimators",
    "verl.trainer.ppo.v1": "cero.verl.async_trainers",  # and cero.verl.trainer, which that imports
    "verl.plugin.platform.platform_manager": "cero.verl.cpu.platform",
    "verl.workers.engine": "cero.verl.cpu.engine",
    "verl.workers.rollout.replica": "cero.verl.cpu.rollout",
}

# An argument that only this plugin understands: `+recipe=cero`, `+recipe=[aero,mine]`, `allocator=uniform`,
# `allocator.n_max=8`. verl has no recipes and no allocators of its own.
_NEEDS_PLUGIN = re.compile(r"\+{0,2}(recipe[=@]|allocator[=.@])")


def _fail(error):
    """Print why on stderr, and end the process if its command line needs the plugin."""
    message = f"cero: the verl plugin could not be loaded: {type(error).__name__}: {error}"
    if any(_NEEDS_PLUGIN.match(argument) for argument in sys.argv[1:]):
        # verl catches every Exception of a plugin, but not SystemExit. If the process went on, Hydra would
        # take `+recipe=cero` as a plain value and verl would train PPO.
        message += "\ncero: stopping: without the plugin `+recipe=` would silently be ignored."
        raise SystemExit(message) from error
    print(
        f"{message}\ncero: its recipes, trainer and estimators are not available in this process.",
        file=sys.stderr,
    )


def _load(extension):
    try:
        importlib.import_module(extension)
    except Exception as error:
        _fail(error)


def register():
    """Install the post-import hooks; called once, when this module is imported."""
    try:
        from wrapt import when_imported
    except ImportError as error:
        _fail(error)
        return
    for extended, extension in REGISTRATIONS.items():
        when_imported(extended)(lambda module, extension=extension: _load(extension))


register()
