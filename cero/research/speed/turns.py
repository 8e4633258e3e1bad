"""Steps of verl's own trainer and of this plugin's in turn, in one run: what a step costs, whatever the machine's load.

trainer.v1.trainer_mode=turns in processes that import this module; `scripts/step_cost.py` has verl do so, by
VERL_USE_EXTERNAL_MODULES. That is before verl has loaded its plugins, so nothing of verl can be imported here
yet.
"""

from dataclasses import replace

import numpy as np
from wrapt import when_imported

TRAINER_MODE = "turns"
ARMS = ("verl", "uniform", "cero")


def arm_of(step):
    """Return whose turn it is in training step `step` (1, 2, ...): each has one in three, in an order drawn anew.

    In one order, whatever the machine does every few seconds would fall on one of them.
    """
    turn, place = divmod(step - 1, len(ARMS))
    return ARMS[np.random.default_rng(turn).permutation(len(ARMS))[place]]


@when_imported("verl.trainer.ppo.v1")
def register(v1):
    """Register the trainer with verl; `v1`: the module that has just been imported. Returns the class."""
    from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync

    from cero.verl.identity import CollateWithIds
    from cero.verl.scheduler import RolloutScheduler
    from cero.verl.settings import TRAINER_MODE as CERO_MODE
    from cero.verl.trainer import CeroTrainer

    class Turns:
        """Before each step the trainer becomes whose turn it is: an object of verl's class, or of this plugin's."""

        def on_step_begin(self):
            arm = arm_of(self.global_steps)
            self.__class__ = Plain if arm == "verl" else Scheduled
            if arm != "verl":
                self.scheduler = self.schedulers[arm]
            self.config.algorithm.adv_estimator = "cero" if arm == "cero" else "grpo"
            self.train_dataloader.collate_fn.on = arm != "verl"
            super().on_step_begin()

    class Plain(Turns, PPOTrainerSync):
        """PPOTrainerSync, with not a line of this plugin within the step."""

    @v1.register_trainer(TRAINER_MODE)
    class Scheduled(Turns, CeroTrainer):
        """CeroTrainer, with one scheduler or the other."""

        def __init__(self, config):
            config.trainer.v1.trainer_mode = CERO_MODE  # which it insists on
            super().__init__(config)

        def _init_dataloader(self):
            super()._init_dataloader()
            cero = self.scheduler
            settings = replace(
                cero.settings, allocator="uniform", options={}, baseline="mean", estimates=False
            )
            uniform = settings.make_allocator(epochs=cero.allocator.epochs)
            self.schedulers = {
                "cero": cero,
                "uniform": RolloutScheduler(settings, uniform, settings.make_baseline(), cero.log),
            }
            self.train_dataloader.collate_fn = Collate(self.train_dataloader.collate_fn.collate)

    class Collate(CollateWithIds):
        """Ids for this plugin's steps only."""

        def __call__(self, rows):
            return super().__call__(rows) if self.on else self.collate(rows)

    return Scheduled
