"""Which value does a run return to a sweeper that optimises? Its held-out accuracy, as cero.objective says.

`last` is the last validation's, `best` the best one's, and `area` the mean over the rollouts spent.
"""

from cero.analysis.comparison import area
from cero.analysis.run import TrainingRun
from cero.verl.reading import check_sections, logs_allocations


def _area(run):
    """Return the mean accuracy over the rollouts spent; of a single validation, its accuracy."""
    spent, accuracy = run.accuracy()
    return area(run, (spent[0], spent[-1])) if spent.size > 1 else float(accuracy[-1])


OBJECTIVES = {  # the names are those of `cero.verl.settings`
    "last": lambda run: float(run.accuracy()[1][-1]),
    "best": lambda run: float(run.accuracy()[1].max()),
    "area": _area,
}


def check_value(config):
    """Raise ValueError, before anything is trained, if the run would end without a value."""
    check_sections(config)
    if config.trainer.test_freq <= 0:
        raise ValueError(
            f"trainer.test_freq={config.trainer.test_freq}: without validations there is nothing to "
            "optimise; set it to a number of steps, e.g. trainer.test_freq=10 (the last step is validated, "
            "too)"
        )
    if not config.cero.log_allocations:
        raise ValueError("cero.log_allocations=False: the value is read from the log; set it to True")
    if not logs_allocations(config):
        raise ValueError(
            "trainer.val_only=True: a run that only validates keeps no log, from which the value is read; "
            "run verl.trainer.main_ppo instead, or set trainer.val_only=False"
        )


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
