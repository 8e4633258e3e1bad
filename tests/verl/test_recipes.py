"""Does every recipe, and every allocator's yaml, compose with verl's real config and show what it says?"""

import inspect

import pytest
from hydra import compose
from hydra.errors import ConfigCompositionException
from omegaconf import OmegaConf

from cero import available_allocators, make_allocator
from cero.allocators import allocator_class
from cero.allocators.base import option_names
from cero.verl.reading import read_settings
from cero.verl.recipes import recipe_files

RECIPES = [name.removesuffix(".yaml") for group, name, *_ in recipe_files() if group == "recipe"]
ALLOCATORS = [name.removesuffix(".yaml") for group, name, *_ in recipe_files() if group == "allocator"]
RUN = ["actor_rollout_ref.rollout.n=8", "actor_rollout_ref.actor.use_dynamic_bsz=True"]
# No recipe sets an option of an allocator, so every allocator is composed with one recipe, and every recipe
# with its own allocator. They interact where a recipe overrides the allocator of another recipe. There the
# command line must win, and bring the estimator, selection and baseline that its allocator's yaml names.
PAIRS = (
    [("cero", allocator) for allocator in ALLOCATORS]
    + [("cero_cpu", "cero"), ("aero", "aero"), ("aero_cpu", "aero")]
    + [("aero", "cero"), ("aero", "uniform"), ("aero_cpu", "cero_seq")]
)
OWN = {"cero": "cero", "cero_cpu": "cero", "aero": "aero", "aero_cpu": "aero"}


def test_an_allocator_is_one_file_and_one_yaml():
    assert sorted(ALLOCATORS) == available_allocators()


def test_recipes_are_there():
    assert {"cero", "cpu", "cero_cpu", "aero", "aero_cpu"} <= set(RECIPES)
    assert set(OWN) == set(RECIPES) - {"cpu"} == {recipe for recipe, _ in PAIRS}


@pytest.mark.slow
@pytest.mark.parametrize("recipe", OWN)
def test_a_recipe_chooses_its_allocator(composed, recipe):
    configs = composed(f"+recipe={recipe}"), composed(f"+recipe={recipe}", f"allocator={OWN[recipe]}")
    left, named = map(OmegaConf.to_container, configs)
    assert left == named


@pytest.mark.slow
@pytest.mark.parametrize("recipe, allocator", PAIRS)
def test_composes_and_validates(composed, recipe, allocator):
    config = composed(f"+recipe={recipe}", f"allocator={allocator}", *RUN)
    assert config.allocator.name == allocator
    assert config.algorithm.adv_estimator == config.allocator.adv_estimator
    assert config.cero.keep.rule == config.allocator.get("keep", "all")
    assert config.algorithm.cero.advantage == config.allocator.get("advantage", "posterior")
    assert config.algorithm.cero.baseline == config.allocator.get("baseline", "mean")
    composed.check(config, rollout=False)
    settings = read_settings(config)
    instance = settings.make_allocator(epochs=3, total_budget=1000)
    assert instance.rollouts_per_prompt == 8 and instance.epochs == 3 and instance.ledger.total == 1000


@pytest.mark.parametrize("name", ALLOCATORS)
def test_yaml_shows_every_option_at_its_default(composed, name):
    shown = OmegaConf.to_container(composed("+recipe=cero", f"allocator={name}").allocator)
    assert shown.pop("name") == name and shown.pop("adv_estimator")
    for key in ("keep", "advantage", "baseline"):  # defaults of other sections that a yaml may name
        shown.pop(key, None)
    set_by_trainer = {"rollouts_per_prompt", "epochs", "total_budget"}
    assert set(shown) == set(option_names(allocator_class(name))) - set_by_trainer
    built = make_allocator(name, rollouts_per_prompt=8, epochs=3)
    assert shown == {key: value for key, value in built.options().items() if key in shown}


@pytest.mark.parametrize("name", ALLOCATORS)
def test_every_option_is_documented(name):
    text = "\n".join(inspect.getdoc(cls) or "" for cls in allocator_class(name).__mro__)
    missing = [key for key in option_names(allocator_class(name)) if key not in text]
    assert not missing


def test_recipe_is_deltas_only(composed):
    """But for the keys that it names, the config is verl's own."""
    plain = OmegaConf.to_container(composed())
    cero = OmegaConf.to_container(composed("+recipe=cero", "allocator=uniform"))

    def differences(one, other, path=""):
        if isinstance(one, dict) and isinstance(other, dict):
            for key in one.keys() | other.keys():
                yield from differences(one.get(key), other.get(key), f"{path}.{key}" if path else key)
        elif one != other:
            yield path

    changed = {path for path in differences(plain, cero) if path not in ("allocator", "cero")}
    assert changed == {
        "trainer.v1.trainer_mode",
        "algorithm.adv_estimator",
        "algorithm.cero",
        "critic.enable",
    }


def test_uniform_is_grpo(composed):
    config = composed("+recipe=cero", "allocator=uniform", *RUN)
    assert config.algorithm.adv_estimator == "grpo"
    allocator = read_settings(config).make_allocator(epochs=2)
    assert allocator.allocate(range(100), budget=800).tolist() == [8] * 100


def test_options_and_sweeps_by_override(composed):
    config = composed("+recipe=cero", "allocator.n_max=16", "allocator.utility=rational", *RUN)
    allocator = read_settings(config).make_allocator()
    assert allocator.n_max == 16 and allocator.utility == "rational"


def test_misspelt_options_do_not_compose(composed):
    with pytest.raises(Exception, match="n_maxx"):
        composed("+recipe=cero", "allocator.n_maxx=16")
    with pytest.raises(Exception, match="nobody"):
        composed("+recipe=cero", "allocator=nobody")
    with pytest.raises(Exception, match="cerro"):
        composed("+recipe=cerro")


def test_chained_recipes(composed):
    config = composed("+recipe=[cero,cpu]", *RUN)
    assert config.trainer.device == "cpu" and config.trainer.v1.trainer_mode == "cero"


@pytest.mark.slow
@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("+recipe=cero",),
        ("+recipe=[cero,cpu]", "allocator=aero", *RUN),
        ("+recipe=cero", "allocator.n_max=16", "cero.success.range=[-1,1]", "cero.success.key=acc"),
        (
            "+recipe=cero",
            "+actor_rollout_ref.rollout.agent.agent_loop_manager_class=a.B",
            "allocator=uniform",
        ),
        ("+recipe=cero_cpu", "~actor_rollout_ref.rollout.agent.num_workers", "data.val_files='a b.parquet'"),
        ("+recipe=cero", "~hydra.callbacks.cero", "data.seed=3"),
    ],
)
def test_these_tests_compose_as_hydra_does(composed, overrides):
    """composing.py makes the config that Hydra makes, flags and interpolations included."""
    quick = composed(*overrides)
    with composed.reading_files():
        slow = compose("ppo_trainer", overrides=list(overrides))
        expected, resolved = (OmegaConf.to_container(slow, resolve=resolve) for resolve in (False, True))
    assert OmegaConf.to_container(quick) == expected
    assert OmegaConf.to_container(quick, resolve=True) == resolved
    assert OmegaConf.is_struct(quick) and OmegaConf.is_struct(slow)
    quick.data.seed = 7  # nobody else's config changes
    assert OmegaConf.to_container(composed(*overrides)) == expected


@pytest.mark.parametrize("override", ["allocator.n_maxx=16", "+data.train_batch_size=3", "data.seed=1,2"])
def test_these_tests_are_refused_what_hydra_refuses(composed, override):
    errors = []
    for compose_it in (composed, lambda *words: compose("ppo_trainer", overrides=list(words))):
        with pytest.raises(ConfigCompositionException) as error:
            compose_it("+recipe=cero", override)
        errors.append(str(error.value))
    assert errors[0] == errors[1]
