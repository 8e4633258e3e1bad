"""verl's synchronous trainer on a CPU with nothing of ours but the CPU: what our trainer is compared with.

trainer.v1.trainer_mode=plain_cpu in processes that import this module; `scripts/step_cost.py` has verl do so, by
VERL_USE_EXTERNAL_MODULES. That is before verl has loaded its plugins, so nothing of verl can be imported here yet.
"""

from wrapt import when_imported

TRAINER_MODE = "plain_cpu"


@when_imported("verl.trainer.ppo.v1")
def register(v1):
    """Register the trainer with verl; `v1`: the module that has just been imported. Returns the class."""
    from omegaconf import OmegaConf, open_dict
    from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync

    from cero.verl.cpu.workers import use_cpu_workers

    @v1.register_trainer(TRAINER_MODE)
    class PlainCpuTrainer(PPOTrainerSync):
        """PPOTrainerSync with CPU workers; `cero.poll_interval`, if the config has it, as in `CeroTrainer`."""

        def __init__(self, config):
            with open_dict(config):  # as in CeroTrainer: verl takes unknown modes for asynchronous ones
                config.trainer.v1.trainer_mode = "sync"
            super().__init__(config)
            interval = OmegaConf.select(config, "cero.poll_interval")
            if interval is not None:
                self.replay_buffer.poll_interval = interval

        def _init_resource_pool_mgr(self):
            super()._init_resource_pool_mgr()
            use_cpu_workers(self)

    return PlainCpuTrainer
