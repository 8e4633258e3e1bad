"""Stops a run whose settings can't work before Ray, let alone a GPU, starts.

A Hydra callback, named in recipe/cero.yaml: Hydra calls it with the composed config before the job's
function.
"""

from hydra.experimental.callback import Callback

from cero.verl.hooks import check_verl
from cero.verl.reading import read_settings
from cero.verl.resume import resume_state


class Preflight(Callback):
    """Checks verl, the settings and, when the run will resume, the allocator state it will resume from."""

    def on_job_start(self, config, **kwargs):
        """Exit with a message that names key, value and remedy; a callback's Exception would only be a warning."""
        try:
            check_verl()
            settings = read_settings(config)
            resume_state(config, settings, settings.make_allocator(), settings.make_baseline())
        except ValueError as error:
            raise SystemExit(f"cero: {error}") from error
