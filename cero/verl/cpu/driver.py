"""Turns verl's platform to the CPU in the process that the user starts.

The recipe's `hydra.job.env_set` reaches every process that Ray starts, but the first one has already
looked for an accelerator, while importing `verl.trainer.main_ppo`, before Hydra read the recipe.
"""

from hydra.experimental.callback import Callback
from verl.plugin.platform import get_platform, set_platform

from cero.verl.cpu.platform import CpuPlatform


class UseCpu(Callback):
    """Hydra callback of recipe/cpu.yaml."""

    def on_job_start(self, config, **kwargs):
        if get_platform().device_name != "cpu":
            set_platform(CpuPlatform())
