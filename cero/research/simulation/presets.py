"""Which worlds are there to try? Shapes met in practice, and the one that was measured with a network."""

from dataclasses import dataclass, replace

from cero.research.simulation.policy import World


@dataclass(frozen=True)
class Preset:
    """Holds a world, what it stands for (`about`), and its size: prompts, epochs, batch (prompts a step)."""

    about: str
    world: World
    prompts: int = 4096
    epochs: int = 30
    batch: int = 256


_BASE = World()

# Rates are set so that uniform GRPO is neither done by half time nor stuck (a test checks it): they are part
# of the preset, not a finding.
PRESETS = {
    "latent": Preset(
        "capability is there, unevenly: some families seldom succeed, some nearly always", _BASE
    ),
    "mostly_hard": Preset(
        "a set chosen too hard: most prompts fail nearly always, groups without signal are all wrong",
        replace(_BASE, spread=((1.0, 0.4, 1.2),), rate_skill=0.065),
    ),
    "mostly_easy": Preset(
        "a set half mastered before training: groups without signal are all right",
        replace(_BASE, spread=((1.0, 1.2, 0.6),), rate_skill=0.03),
    ),
    "bimodal": Preset(
        "prompts either known or not, few in between: little signal at first",
        replace(_BASE, spread=((0.6, 1.0, 12.0), (0.4, 12.0, 1.0))),
    ),
    "drifting": Preset(
        "the policy also moves for reasons of its own (other data, another objective), so old counts mislead",
        replace(_BASE, drift=0.1),
    ),
    "noisy_verifier": Preset(
        "one reward in ten is flipped: solved prompts and hopeless ones seem to carry signal",
        replace(_BASE, noise=0.1),
    ),
    "correlated": Preset(
        "few families, in which nearly all that is learned is shared: whom to sample matters less",
        replace(_BASE, families=12, rate_own=0.1, rate_skill=0.014),
    ),
    # Calibrated to uniform GRPO's curve alone (`calibrate`); sizes and starts are the task's.
    "lab": Preset(
        "the task of a small network trained outside verl, for `cero simulate --check`",
        World(
            ladder=(0.015, 0.95, 1.33, 2.0),
            families=24,
            rate_own=0.15,
            rate_skill=0.26,
            interference=0.77,
            forgetting=0.005,
        ),
        prompts=480,
        epochs=15,
        batch=48,
    ),
}
