"""How do hundreds of tests get verl's config, as its command line composes it, in little time?

Hydra takes 0.7 s of a core to compose it. Half of that reads verl's yaml files, and most of the rest merges
them. Both are the same for many tests, so each file is read once, and each choice of recipe and allocator is
merged once. Single values are then set by Hydra's own function. Each interpolation (`${...}`) and each
override is parsed once, and verl checks equal sections once. `test_recipes.py` compares the result with what
Hydra composes.
"""

import json
import pickle
from contextlib import contextmanager
from copy import deepcopy
from functools import cache

import omegaconf
from hydra import compose, initialize_config_module
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from omegaconf import OmegaConf
from verl.trainer.ppo.utils import need_critic, need_reference_policy
from verl.utils.config import omega_conf_to_dataclass, validate_config


class Composer:
    """Compose verl's ppo_trainer config with overrides; to be used within `at_work`."""

    def __init__(self):
        Plugins.instance()  # fills the registry
        self.source = SourcesRegistry.instance().resolve("pkg")
        self.read, self.parse = self.source.load_config, omegaconf.base.parse
        self._files, self._merged, self._valid = {}, {}, set()
        self._parse_once = cache(self.parse)  # the trees are read only
        self._override = cache(lambda word: OverridesParser.create().parse_overrides([word])[0])

    @contextmanager
    def at_work(self):
        """Initialize Hydra with verl's folder, and have each yaml file read once."""
        files, read = self._files, self.read

        def read_once(source, config_path):
            if (key := (source.path, config_path)) not in files:
                files[key] = pickle.dumps(read(source, config_path))
            return pickle.loads(files[key])  # a fresh one, since Hydra changes what it gets

        with initialize_config_module("verl.trainer.config", version_base=None):
            self.source.load_config, omegaconf.base.parse = read_once, self._parse_once
            try:
                yield self
            finally:
                self.source.load_config, omegaconf.base.parse = read, self.parse

    @contextmanager
    def reading_files(self):
        """Read yaml files and parse interpolations as Hydra does, each time."""
        quick = self.source.load_config, omegaconf.base.parse
        self.source.load_config, omegaconf.base.parse = self.read, self.parse
        try:
            yield
        finally:
            self.source.load_config, omegaconf.base.parse = quick

    def __call__(self, *overrides):
        """Return a config of its own for each call, as `hydra.compose` does."""
        parsed = [deepcopy(self._override(word)) for word in overrides]
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

    def check(self, config, rollout=True):
        """Have verl check its sections as before a training; raises what verl raises.

        Sections that differ only in this project's options and in where a run writes are checked once.
        rollout : whether to make the rollout's own configuration, for which a run must name its engine
        """
        sections = OmegaConf.to_container(config)
        for key in ("allocator", "cero"):
            sections.pop(key, None)
        for key in ("default_local_dir", "experiment_name"):
            sections["trainer"].pop(key)
        # What the allocator's yaml names is looked up here.
        sections["algorithm"] = OmegaConf.to_container(config.algorithm, resolve=True)
        content = json.dumps([sections, rollout], sort_keys=True)
        if content not in self._valid:
            validate_config(config, need_reference_policy(config), need_critic(config))
            if rollout:
                omega_conf_to_dataclass(config.actor_rollout_ref.rollout)
            self._valid.add(content)
