"""How is a run stopped whose settings can't work, before Ray or a GPU starts?

By a Hydra callback, named in recipe/cero.yaml. Hydra calls it with the composed config, before the job's
function.
"""

from hydra.experimental.callback import Callback

from cero.verl.hooks import check_verl
from cero.verl.reading import read_settings
from cero.verl.resume import resume_state


class Preflight(Callback):
    """Check verl, the settings and, where the run will resume, the state that it will resume from."""

    def on_job_start(self, config, **kwargs):
        """Exit with a message that names key, value and remedy, if the run can't work."""
        # SystemExit, because Hydra turns any Exception of a callback into a warning.
        try:
            check_verl()
            settings = read_settings(config)
            resume_state(config, settings, settings.make_allocator(), settings.make_baseline())
        except ValueError as error:
            raise SystemExit(f"cero: {error}") from error
