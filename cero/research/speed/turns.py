"""What does a step of this plugin's trainer cost beside one of verl's own, whatever the machine's load?

Both trainers take turns, step by step, in one run, with trainer.v1.trainer_mode=turns. `scripts/step_cost.py`
has verl import this module in each process, by VERL_USE_EXTERNAL_MODULES. verl does so before it loads its
plugins, so nothing of verl can be imported here at once.
"""

from dataclasses import replace

import numpy as np
from wrapt import when_imported

TRAINER_MODE = "turns"
ARMS = ("verl", "uniform", "cero")


def arm_of(step):
    """Return whose turn it is in training step `step` (1, 2, ...): one of ARMS.

    Each arm has one step in three, in an order that is drawn anew for every three. In a fixed order, what the
    machine does every few seconds might always fall on the same arm.
    """
    turn, place = divmod(step - 1, len(ARMS))
    return ARMS[np.random.default_rng(turn).permutation(len(ARMS))[place]]


@when_imported("verl.trainer.ppo.v1")
def register(v1):
    """Register the trainer with verl and return its class; `v1` is verl's module, just imported."""
    from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync

    from cero.verl.identity import CollateWithIds
    from cero.verl.modes import MODES
    from cero.verl.scheduler import RolloutScheduler
    from cero.verl.trainer import CeroTrainer

    class Turns:
        """Before each step, become an object of the class whose turn it is: verl's, or this plugin's."""

        def on_step_begin(self):
            arm = arm_of(self.global_steps)
            self.__class__ = Plain if arm == "verl" else Scheduled
            if arm != "verl":
                self.scheduler = self.schedulers[arm]
            self.config.algorithm.adv_estimator = "cero" if arm == "cero" else "grpo"
            self.train_dataloader.collate_fn.on = arm != "verl"
            super().on_step_begin()

    class Plain(Turns, PPOTrainerSync):
        """Train a step as PPOTrainerSync, without a line of this plugin."""

    @v1.register_trainer(TRAINER_MODE)
    class Scheduled(Turns, CeroTrainer):
        """Train a step as CeroTrainer, with the scheduler whose turn it is."""

        def __init__(self, config):
            config.trainer.v1.trainer_mode = MODES["sync"]  # CeroTrainer refuses any other
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
        """Make ids in this plugin's steps only."""

        def __call__(self, rows):
            return super().__call__(rows) if self.on else self.collate(rows)

    return Scheduled
