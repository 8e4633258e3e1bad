"""verl's synchronous trainer with a rollout scheduler."""

from omegaconf import open_dict
from verl.trainer.ppo.v1.trainer_base import register_trainer
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync


@register_trainer("cero")
class CeroTrainer(PPOTrainerSync):
    def __init__(self, config):
        with open_dict(config):
            config.trainer.v1.trainer_mode = "sync"
        super().__init__(config)
        if config.cero.poll_interval is not None:
            self.replay_buffer.poll_interval = config.cero.poll_interval

    def _init_resource_pool_mgr(self):
        super()._init_resource_pool_mgr()
        if self.config.trainer.device == "cpu":
            from cero.verl.cpu.workers import use_cpu_workers

            use_cpu_workers(self)
