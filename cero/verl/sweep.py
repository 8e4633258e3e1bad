"""How can a sweeper optimise a run of verl's? By verl's `main_ppo`, with a value that it returns at the end.

    python -m cero.verl.sweep -m hydra/sweeper=optuna +recipe=cero ...

Everything else is verl's own. The value is the held-out accuracy, as `cero.objective` says: the `last` one,
the `best` one, or `area`, the mean over the rollouts spent.
"""

import hydra
from verl.trainer import main_ppo

from cero.analysis.comparison import area
from cero.analysis.run import TrainingRun
from cero.core.checks import check_choice


def _area(run):
    """Return the mean accuracy over the rollouts spent; of a single validation, its accuracy."""
    spent, accuracy = run.accuracy()
    return area(run, (spent[0], spent[-1])) if spent.size > 1 else float(accuracy[-1])


OBJECTIVES = {
    "last": lambda run: float(run.accuracy()[1][-1]),
    "best": lambda run: float(run.accuracy()[1].max()),
    "area": _area,
}


def check(config):
    """Raise ValueError, before anything is trained, if the run would end without a value."""
    check_choice("cero.objective", config.cero.objective, tuple(OBJECTIVES))
    if config.trainer.test_freq <= 0:
        raise ValueError(
            f"trainer.test_freq={config.trainer.test_freq}: without validations there is nothing to "
            "optimise; set it to a number of steps, e.g. trainer.test_freq=10 (the last step is validated, "
            "too)"
        )
    if not config.cero.log_allocations:
        raise ValueError("cero.log_allocations=False: the value is read from the log; set it to True")


def objective(config):
    """Return the held-out accuracy, in [0, 1], of the run in trainer.default_local_dir, by cero.objective.

    Raises ValueError if the run logged no validation.
    """
    run = TrainingRun.read(config.trainer.default_local_dir)
    if not run.accuracy()[1].size:
        raise ValueError(
            f"no validation was logged in {config.trainer.default_local_dir}; see data.val_files"
        )
    return OBJECTIVES[config.cero.objective](run)


@hydra.main(config_path="pkg://verl.trainer.config", config_name="ppo_trainer", version_base=None)
def main(config):
    """Train as `python -m verl.trainer.main_ppo` does, and return the objective."""
    check(config)
    main_ppo.main(config)  # Hydra's decorator passes a config that it is given on to verl's function
    value = objective(config)
    print(f"cero: held-out accuracy ({config.cero.objective}): {value:.4f}", flush=True)
    return value


if __name__ == "__main__":
    main()
