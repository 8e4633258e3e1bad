"""Checks the settings before Ray starts."""

from hydra.experimental.callback import Callback


class Preflight(Callback):
    def on_job_start(self, config, **kwargs):
        pass
