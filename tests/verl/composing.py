"""How do the tests get verl's config as its command line composes it, hundreds of times, in little time?

Composing takes Hydra 0.7 s of a core: half of it reads verl's yaml files, most of the rest merges them. Both
are the same for every test, so each file is read once, and each choice of recipe and allocator is merged once.
Single values are then set by Hydra's own function. `test_recipes.py` compares the result with Hydra's.
"""

import pickle
from contextlib import contextmanager

from hydra import compose, initialize_config_module
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins


class Composer:
    """Compose verl's ppo_trainer config with overrides; to be used within `at_work`."""

    def __init__(self):
        Plugins.instance()  # fills the registry
        self.source = SourcesRegistry.instance().resolve("pkg")
        self.read = self.source.load_config
        self._files, self._merged = {}, {}

    @contextmanager
    def at_work(self):
        """Initialize Hydra with verl's folder, and have each yaml file read once."""
        files, read = self._files, self.read

        def read_once(source, config_path):
            if (key := (source.path, config_path)) not in files:
                files[key] = pickle.dumps(read(source, config_path))
            return pickle.loads(files[key])  # a fresh one, since Hydra changes what it gets

        with initialize_config_module("verl.trainer.config", version_base=None):
            self.source.load_config = read_once
            try:
                yield self
            finally:
                self.source.load_config = read

    @contextmanager
    def reading_files(self):
        """Read yaml files as Hydra does, each time."""
        read_once, self.source.load_config = self.source.load_config, self.read
        try:
            yield
        finally:
            self.source.load_config = read_once

    def __call__(self, *overrides):
        """Return a config of its own for each call, as `hydra.compose` does."""
        parsed = OverridesParser.create().parse_overrides(list(overrides))
        choices = [override for override in parsed if override.key_or_group in ("recipe", "allocator")]
        values = [override for override in parsed if override not in choices]
        plain = all("." in key and not key.startswith("hydra.") for key in (o.key_or_group for o in values))
        if not plain or any(override.is_sweep_override() for override in parsed):
            return compose("ppo_trainer", overrides=list(overrides))
        words = tuple(override.input_line for override in choices)
        if words not in self._merged:
            self._merged[words] = pickle.dumps(compose("ppo_trainer", overrides=list(words)))
        config = pickle.loads(self._merged[words])
        ConfigLoaderImpl._apply_overrides_to_config(values, config)
        return config
