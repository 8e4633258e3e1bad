"""How can a sweeper optimise a run of verl's? By verl's `main_ppo`, with a value that it returns at the end.

    python -m cero.verl.sweep -m hydra/sweeper=optuna +recipe=cero ...

Everything else is verl's own. The value is that of `cero.verl.objective`.
"""

import hydra
from verl.trainer import main_ppo

from cero.verl.objective import check_value, objective


@hydra.main(config_path="pkg://verl.trainer.config", config_name="ppo_trainer", version_base=None)
def main(config):
    """Train as `python -m verl.trainer.main_ppo` does, and return the objective."""
    check_value(config)  # a run without the recipe has no callback that did
    main_ppo.main(config)  # Hydra's decorator passes a config that it is given on to verl's function
    value = objective(config)
    print(f"cero: held-out accuracy ({config.cero.objective}): {value:.4f}", flush=True)
    return value


if __name__ == "__main__":
    main()
