"""Which of verl's trainers is a run to have, and under which name does verl know it with the scheduler?

A user writes verl's own word, e.g. trainer.v1.trainer_mode=colocate_async. verl looks trainers up by name,
and under its own words are its own trainers. So the word is replaced before verl reads it. A verl without
this plugin refuses the names on the right, so that no run can train without the scheduler unseen.
"""

from omegaconf import OmegaConf, open_dict

MODES = {
    "sync": "cero",
    "colocate_async": "cero_colocate_async",
    "separate_async": "cero_separate_async",
}
ASYNCHRONOUS = ("colocate_async", "separate_async")


def verls_word(name):
    """Return verl's word for the trainer `name`, one of the values of MODES; other names stay as they are."""
    return {ours: verls for verls, ours in MODES.items()}.get(name, name)


def is_asynchronous(config):
    """Return whether verl's `config` asks for an asynchronous trainer, under whichever name."""
    return verls_word(config.trainer.v1.trainer_mode) in ASYNCHRONOUS


def take_scheduled_trainer(config):
    """Replace verl's word in its `config` by the name of the same trainer with the scheduler."""
    if not OmegaConf.is_dict(config.trainer.get("v1")) or "trainer_mode" not in config.trainer.v1:
        return  # refused as soon as it can be (`cero.verl.reading.check_sections`)
    mode = config.trainer.v1.trainer_mode
    with open_dict(config):
        config.trainer.v1.trainer_mode = MODES.get(mode, mode)
