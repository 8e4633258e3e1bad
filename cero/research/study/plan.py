"""Which runs are planned? Tasks x contenders x seeds, read from two yaml files.

Tasks and contenders are lists of Hydra overrides; this module knows none of them by name but the two below.
`{data}` stands for the task's prepared folder, `{seed}` for the run's seed.
"""

import shlex
from dataclasses import dataclass, replace
from pathlib import Path

REFERENCE = "grpo"  # what all contenders are measured against
SHIPPED = "cero-n1"  # CERO as it shipped when the study was made; it is compared with the others one by one
EVEN = "even-n1"  # SHIPPED without its allocation: a share of the ceiling is of what is gained over it
SPLITS = ("tune", "confirm")


@dataclass(frozen=True, eq=False)
class Task:
    """Describes what is trained on.

    name, about : str; in_study : whether it is among the tasks that run when none is named
    prepare : tuple of words, the command that makes the folder {data}; it runs in the checkout's root
    seeds : dict of split ("tune", "confirm") -> tuple of int
    overrides : tuple of str, those common to all tasks first, then those of its base (another task)
    """

    name: str
    about: str
    prepare: tuple
    seeds: dict
    overrides: tuple
    in_study: bool = True

    def number(self, key):
        """Return the whole number that the overrides give `key`. Raises ValueError if there is none."""
        text = lookup(self.overrides, key)
        if text is None or not text.isdecimal() or int(text) < 1:
            raise ValueError(f"task {self.name!r}: {key}={text} must be given as a whole number, 1 or more")
        return int(text)

    @property
    def step_rollouts(self):
        """Return the rollouts of a step under uniform spending."""
        return self.number("data.train_batch_size") * self.number("actor_rollout_ref.rollout.n")

    @property
    def steps(self):
        """Return the training steps under uniform spending."""
        return self.number("trainer.total_training_steps")

    @property
    def budget(self):
        """Return the rollouts that each run may sample."""
        return self.steps * self.step_rollouts

    @property
    def interval(self):
        """Return the rollouts between two validations under uniform spending."""
        return self.number("trainer.test_freq") * self.step_rollouts


@dataclass(frozen=True)
class Contender:
    """Describes what competes: settings of the allocator and of the estimator.

    label, about : str; group : "main", "peer" or "ablation:<name>"
    overrides : tuple of str, those of its base (another label) first
    steps : float >= 1, a multiple of the task's steps; a contender that leaves rollouts of a step unspent has
    a budget for more steps, and its run is ended where the task's budget is used up
    """

    label: str
    about: str
    group: str
    overrides: tuple
    steps: float = 1.0

    @property
    def allocator(self):
        """Return the name of its allocator."""
        return lookup(self.overrides, "allocator") or "cero"


@dataclass(frozen=True)
class PlannedRun:
    """Describes one training run; `overrides` are complete but for {data}."""

    task: Task
    contender: Contender
    seed: int
    split: str
    overrides: tuple

    @property
    def name(self):
        """Return its name, <task>/<contender>/<seed>."""
        return f"{self.task.name}/{self.contender.label}/{self.seed}"


def settings(overrides):
    """Return what a list of Hydra overrides sets: dict of key -> value, the last where a key is given twice.

    Two runs with the same one were trained alike, in whatever order their overrides stood.
    """
    return {name: value for name, _, value in (override.partition("=") for override in overrides)}


def lookup(overrides, key):
    """Return the value (str) that a list of Hydra overrides gives `key`, or None."""
    return settings(overrides).get(key)


def _read(path):
    import yaml

    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is no yaml: {error}") from error
    return _mapping(path, content)


def _only(where, entry, *keys):
    """Refuse keys that would silently do nothing."""
    unknown = sorted(set(entry or ()) - set(keys))
    if unknown:
        raise ValueError(f"{where}: {unknown[0]!r} is not known; there are {', '.join(keys)}")


def _needs(where, entry, *keys):
    """Refuse an entry that lacks one of `keys`, or is no mapping."""
    missing = [key for key in keys if not isinstance(entry, dict) or entry.get(key) is None]
    if missing:
        raise ValueError(f"{where} has no {missing[0]!r}; it needs {', '.join(keys)}")


def _texts(where, name, values):
    """Return `values` as a tuple. Raises ValueError if they are no list of texts."""
    if not isinstance(values, list | tuple) or not all(isinstance(value, str) for value in values):
        raise ValueError(f"{where}: {name}={values!r} must be a list of texts")
    return tuple(values)


def _seeds(where, values):
    """Return seeds as a tuple. Raises ValueError if they are no list of whole numbers."""
    if not isinstance(values, list) or not all(type(value) is int for value in values):
        raise ValueError(f"{where}: seeds={values!r} must be a list of whole numbers")
    return tuple(values)


def _mapping(where, entry):
    """Return `entry`. Raises ValueError if it is no mapping."""
    if not isinstance(entry, dict):
        raise ValueError(f"{where} must be a mapping")
    return entry


def _base(where, name, known, kind):
    """Return what `known` (dict, a file's entries so far) has under the `name` of a base; None without."""
    if name is not None and name not in known:
        raise ValueError(f"{where}: its base {name!r} must be a {kind} further up")
    return None if name is None else known[name]


def read_tasks(path):
    """Return the tasks of a yaml file by name: dict of str -> Task.

    Raises ValueError naming what is wrong, FileNotFoundError without the file.
    """
    content = _read(path)
    _only(path, content, "common", "tasks")
    _needs(path, content, "tasks")
    tasks = {}
    for name, entry in _mapping(f"{path}, tasks", content["tasks"]).items():
        where = f"{path}, task {name!r}"
        _only(where, _mapping(where, entry), "about", "base", "prepare", "seeds", "overrides", "in_study")
        _needs(where, entry, "about", "prepare", "seeds", "overrides")
        _only(f"{where}, seeds", _mapping(f"{where}, seeds", entry["seeds"]), *SPLITS)
        base = _base(where, entry.get("base"), tasks, "task")
        inherited = content.get("common", ()) if base is None else base.overrides
        task = tasks[name] = Task(
            name=name,
            about=entry["about"],
            prepare=tuple(shlex.split(entry["prepare"])),
            seeds={split: _seeds(f"{where}, {split}", seeds) for split, seeds in entry["seeds"].items()},
            overrides=(*_texts(path, "common", inherited), *_texts(where, "overrides", entry["overrides"])),
            in_study=entry.get("in_study", True),
        )
        if task.budget % task.interval:
            raise ValueError(
                f"{where}: trainer.total_training_steps={task.steps} is no multiple of trainer.test_freq, so "
                "the last interval between validations would be shorter than the others"
            )
        seeds = [seed for split in task.seeds.values() for seed in split]
        if len(set(seeds)) < len(seeds):
            raise ValueError(f"{where}: a seed is both for tuning and for confirming, or is given twice")
    return tasks


def read_contenders(path):
    """Return (contenders by label, dict of group -> splits in which it runs). Raises as `read_tasks`."""
    content = _read(path)
    _only(path, content, "groups", "shapes", "contenders", "ablate", "ablations")
    _needs(path, content, "groups", "contenders")
    contenders, shapes = {}, _mapping(f"{path}, shapes", content.get("shapes", {}))
    for name, entry in shapes.items():
        _only(f"{path}, shape {name!r}", entry, "about", "overrides", "steps")
    for name, splits in _mapping(f"{path}, groups", content["groups"]).items():
        _texts(f"{path}, groups", name, splits)

    def add(label, entry, group, base=None):
        where = f"{path}, contender {label!r}"
        _only(where, entry, "about", "group", "base", "overrides", "steps", "shapes")
        _needs(where, entry, "about", "overrides")
        base = _base(where, entry.get("base", base), contenders, "contender")
        if group.partition(":")[0] not in content["groups"]:
            raise ValueError(f"{where}: group {group!r} is none of {', '.join(content['groups'])}")
        overrides, steps = (base.overrides, base.steps) if base else ((), 1)
        steps = float(entry.get("steps", steps))
        if steps < 1:
            raise ValueError(f"{where}: steps={steps} must be 1 or more")
        made = contenders[label] = Contender(
            label, entry["about"], group, (*overrides, *_texts(where, "overrides", entry["overrides"])), steps
        )
        for shape in entry.get("shapes", ()):
            if shape not in shapes:
                raise ValueError(f"{where}: its shape {shape!r} is none of {', '.join(shapes)}")
            contenders[f"{label}-{shape}"] = replace(
                made,
                label=f"{label}-{shape}",
                about=f"{made.about}; {shapes[shape]['about']}",
                overrides=(*made.overrides, *shapes[shape]["overrides"]),
                steps=steps * float(shapes[shape].get("steps", 1)),
            )

    for label, entry in _mapping(f"{path}, contenders", content["contenders"]).items():
        _needs(f"{path}, contender {label!r}", entry, "group")
        add(label, entry, entry["group"])
    for name, levels in content.get("ablations", {}).items():
        for level, entry in levels.items():
            add(f"{name}-{level}", entry, f"ablation:{name}", base=content.get("ablate", "cero"))
    if REFERENCE not in contenders:
        raise ValueError(
            f"{path}: there must be a contender {REFERENCE!r}, which the others are measured against"
        )
    return contenders, {group: tuple(splits) for group, splits in content["groups"].items()}


def make_run(task, contender, seed, split):
    """Return the `PlannedRun`, its overrides complete but for {data}."""
    overrides = task.overrides + contender.overrides
    if contender.steps != 1:
        overrides += (f"trainer.total_training_steps={round(task.steps * contender.steps)}",)
    return PlannedRun(
        task, contender, seed, split, tuple(each.replace("{seed}", str(seed)) for each in overrides)
    )


def chosen(names, known, what):
    """Return those of the dict `known` that are named, in the order of the file; all for None.

    Raises ValueError for a name that is not known; `what` says what it should be.
    """
    unknown = [name for name in names or () if name not in known]
    if unknown:
        raise ValueError(f"{what} {unknown[0]!r} is not known; there are {', '.join(known)}")
    return [each for name, each in known.items() if names is None or name in names]


def make_runs(tasks, contenders, groups, seeds=None, splits=SPLITS):
    """Return all runs, seed by seed, so that contenders can be compared wherever the list is cut.

    tasks, contenders : lists; groups : dict of group -> splits; seeds : those to keep, None for all.
    """
    runs = [
        make_run(task, contender, seed, split)
        for task in tasks
        for contender in contenders
        for split in groups[contender.group.partition(":")[0]]
        if split in splits
        for seed in task.seeds.get(split, ())
        if seeds is None or seed in seeds
    ]
    # Tuning comes first; within a seed tasks and contenders keep their order.
    return sorted(runs, key=lambda run: (SPLITS.index(run.split), run.task.seeds[run.split].index(run.seed)))
