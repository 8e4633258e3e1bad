"""How is a run stopped whose settings can't work, before Ray or a GPU starts?

By a Hydra callback, named in recipe/cero.yaml. Hydra calls it with the composed config, before the job's
function.
"""

import traceback

from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from omegaconf.errors import OmegaConfBaseException

from cero.verl.candidates import check_candidates
from cero.verl.hooks import ASYNC_HOOKS, check_verl
from cero.verl.in_flight import left_in_flight
from cero.verl.modes import is_asynchronous, take_scheduled_trainer
from cero.verl.objective import check_value
from cero.verl.reading import check_sections, read_settings
from cero.verl.resume import check_resume
from cero.verl.surroundings import check_surroundings, warn_of_neighbours


def check_run(config, module=None):
    """Raise an exception if a run of `config` (verl's) can't work; `refusal` makes a message of it.

    module : the name of the program that is to run it; None: not known
    """
    check_verl()
    check_sections(config)
    if is_asynchronous(config):
        check_verl(ASYNC_HOOKS)
    settings = read_settings(config)
    check_resume(config, settings)
    left_in_flight(config)
    check_candidates(config, settings)
    check_surroundings(config)
    _check_objective(config, module)


def refusal(error):
    """Return the message on an exception of `check_run`: what to tell the user, str."""
    if isinstance(error, OmegaConfBaseException):  # a key that is gone, or that has no value
        what = f"{error.full_key}: {str(error).splitlines()[0]}"
        return f"{what}; set it, or leave its section as the recipe has it"
    if isinstance(error, ValueError | OSError | HydraException):
        return str(error)
    # Nothing foreseen; but to go on would cost minutes of GPUs, and Hydra would only warn.
    trace = "".join(traceback.format_exception(error))
    return f"the settings could not be checked: {type(error).__name__}: {error}\n{trace}"


class Preflight(Callback):
    """Check verl, the settings and, where the run will resume, the state that it will resume from."""

    def on_run_start(self, config, **kwargs):
        """Take the trainer that has the scheduler, in the mode that the user names by verl's word."""
        take_scheduled_trainer(config)  # the job gets a copy of this config

    def on_job_start(self, config, **kwargs):
        """Exit with a message that names key, value and remedy, if the run can't work."""
        task = kwargs.get("task_function")
        try:
            check_run(config, getattr(getattr(task, "__globals__", {}).get("__spec__"), "name", None))
            warn_of_neighbours(config)
        except Exception as error:
            # SystemExit, because Hydra turns any Exception of a callback into a warning.
            raise SystemExit(f"cero: {refusal(error)}") from error


def _check_objective(config, module):
    """Raise ValueError if cero.objective asks for a value in a run that returns none, or can't have one.

    module : the name of the program
    """
    if module == "cero.verl.sweep":
        check_value(config)
    chosen = config.cero.get("objective", "last")
    if chosen != "last" and module == "verl.trainer.main_ppo":
        raise ValueError(
            f"cero.objective={chosen} has no effect with verl.trainer.main_ppo, which returns no value; run "
            "cero.verl.sweep instead, or leave cero.objective at its default"
        )
