"""How does the process that the user starts learn that it is to use the CPU?

The recipe's `hydra.job.env_set` reaches every process that Ray starts. It comes too late for the first
process, which has looked for an accelerator while importing `verl.trainer.main_ppo`, before Hydra read the
recipe. So a Hydra callback sets the platform.
"""

from hydra.experimental.callback import Callback
from verl.plugin.platform import get_platform, set_platform

from cero.verl.cpu.platform import CpuPlatform


class UseCpu(Callback):
    """Set verl's platform to the CPU; the Hydra callback of recipe/cpu.yaml."""

    def on_job_start(self, config, **kwargs):
        """Set the platform before the job's function is called."""
        if get_platform().device_name != "cpu":
            set_platform(CpuPlatform())
