"""From which checkpoint does a run resume, what had the scheduler learned by then, and what is left to do?

A run may resume under other settings than those it was stopped with. What was spent stays spent, and what is
left is counted anew: verl's own number of remaining steps, at the share of rollouts that is set now.
"""

import json
import math
import os
import re
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from omegaconf import ListConfig

from cero.core.budget import Ledger
from cero.core.checks import is_whole
from cero.core.state import (
    BASELINE_FILE,
    COMMIT_MARKER,
    STATE_FILE,
    STEP_FILE,
    load_meta,
    load_state,
    write_atomically,
)
from cero.verl.settings import WITHOUT_CANDIDATES

DATA_FILE = "data.pt"  # verl's name for the state of its loader, under global_step_N
PLAN = "plan"  # in the state's file, beside the allocator's own state
CANDIDATES = "candidates"  # likewise, where a step chooses among candidates: what was set then
SHARDS = re.compile(r"model_world_size_(\d+)_rank_\d+\.pt")  # verl's names, under global_step_N/actor


@dataclass(frozen=True)
class Plan:
    """What a run means to do, as of one of its steps.

    step : int, steps done
    last : int, the step that the run ends with
    prompts, rollouts : int, prompts of a step, and rollouts for each of them on average
    visited : int, prompts sampled so far, repeats included
    """

    step: int
    last: int
    prompts: int
    rollouts: int
    visited: int

    @property
    def left(self):
        """Return the rollouts that the remaining steps may cost."""
        return max(0, self.last - self.step) * self.prompts * self.rollouts

    def at(self, step):
        """Return the plan as of a later `step`."""
        visited = self.visited + (step - self.step) * self.prompts
        return Plan(step, self.last, self.prompts, self.rollouts, visited)

    def state_dict(self):
        """Return the plan as plain data."""
        return asdict(self)

    @classmethod
    def of_state(cls, state, path):
        """Return the plan in a state, or None: those of earlier versions had none.

        Raises ValueError, naming the file `path`, if it is damaged.
        """
        saved = state.get(PLAN)
        if saved is None:
            return None
        names = set(cls.__dataclass_fields__)
        if not isinstance(saved, dict) or set(saved) != names or not all(map(_is_count, saved.values())):
            raise ValueError(f"{path}: its plan is {saved!r}; the file is damaged")
        return cls(**{name: int(value) for name, value in saved.items()})


def _is_count(value):
    # Earlier versions kept 1000.0 where trainer.total_training_steps=1e3 was set.
    return is_whole(value) and 0 <= value < 2**53


def resume_folder(config):
    """Return the folder (Path) of the checkpoint that verl will resume from, or None.

    By verl's own rules, from trainer.resume_mode and the keys it uses.
    """
    mode = config.trainer.resume_mode
    if mode == "disable":
        return None
    if mode not in ("auto", "resume_path"):
        raise ValueError(f"trainer.resume_mode={mode} is not known; choose one of auto, disable, resume_path")
    if mode == "resume_path":
        path = config.trainer.resume_from_path
        if not isinstance(path, str) or not path.rstrip("/").rpartition("global_step_")[2].isdecimal():
            raise ValueError(
                f"trainer.resume_mode=resume_path with trainer.resume_from_path={path}: name the folder of a "
                "checkpoint, .../global_step_N"
            )
        if not os.path.isdir(path):
            raise ValueError(f"trainer.resume_from_path={path}: there is no such folder")
        return Path(os.path.abspath(path))
    root = Path(os.path.abspath(config.trainer.default_local_dir))
    marker = root / COMMIT_MARKER
    if not marker.exists():
        return None
    step = marker.read_text(errors="replace").strip()
    if not step.isdecimal():
        raise ValueError(
            f"trainer.default_local_dir={config.trainer.default_local_dir}: its {COMMIT_MARKER} holds "
            f"{step[:20]!r} instead of a step; write the number of the last complete global_step_N into it, "
            "or set trainer.resume_mode=disable"
        )
    folder = root / f"global_step_{int(step)}"
    if not folder.exists():
        others = ", ".join(str(other) for other in _complete_steps(root)) or "none"
        raise ValueError(
            f"trainer.default_local_dir={config.trainer.default_local_dir}: its {COMMIT_MARKER} names step "
            f"{int(step)}, and there is no {folder.name}; write the number of another checkpoint into it "
            f"(complete ones: {others}), or set trainer.resume_mode=disable to start anew"
        )
    return folder


def _complete_steps(root):
    """Return the steps, ascending, of the checkpoints in `root` with a model and what verl writes last."""
    whole = [
        path
        for path in root.glob("global_step_*")
        if (path / DATA_FILE).is_file() and (path / "actor").exists()
    ]
    steps = [path.name.rpartition("_")[2] for path in whole]
    return sorted(int(step) for step in steps if step.isdecimal())


def uncommit(folder):
    """Have verl's marker no longer name the checkpoint `folder` (Path), which is about to be written anew.

    Otherwise a run that is killed in between would leave old and new files that count as complete. verl
    names it again when all is written. Until then the marker names the complete checkpoint before it.
    """
    marker, step = folder.parent / COMMIT_MARKER, _step_of(folder)
    if not marker.is_file() or marker.read_text(errors="replace").strip() != str(step):
        return
    before = [other for other in _complete_steps(folder.parent) if other < step]
    if before:
        write_atomically(marker, lambda file: file.write(str(before[-1]).encode()))
    else:
        marker.unlink()


@dataclass(frozen=True)
class Outlook:
    """What a run is to spend, from the step at which it starts or resumes.

    plan : `Plan`, as of that step
    epochs : int, visits to each prompt, those before it included
    total_budget : int, rollouts of the whole run: those that earlier steps had, and those of the steps left
    saved : `Plan` of the checkpoint that is resumed, or None
    """

    plan: Plan
    epochs: int
    total_budget: int
    saved: Plan | None


def look_ahead(config, settings, steps_per_epoch, total_training_steps):
    """Return the `Outlook` of a run.

    Parameters
    ----------
    config, settings : verl's config, and the `Settings` read from it
    steps_per_epoch, total_training_steps : as verl counts them for the data there is now

    Raises
    ------
    ValueError
        If the checkpoint is of a run that had steps left, and under these settings none would be. Not where
        the run only validates.
    """
    batch, epochs = config.data.train_batch_size, config.trainer.total_epochs
    last = min(total_training_steps, steps_per_epoch * epochs)  # verl ends at whichever comes first
    folder = resume_folder(config)
    step = 0 if folder is None else _step_of(folder)
    plan = Plan(step, last, batch, settings.rollouts_per_prompt, visited=step * batch)
    paid, saved, unfinished = step * batch * settings.rollouts_per_prompt, None, False
    if folder is not None and (folder / STATE_FILE).is_file():
        state = load_meta(folder / STATE_FILE)
        ledger, saved = Ledger(), Plan.of_state(state, folder / STATE_FILE)
        ledger.load_state_dict(state["ledger"])
        paid, total = ledger.spent, state["ledger"]["total"]
        if saved is not None:
            plan, unfinished = replace(plan, visited=saved.visited), saved.left > 0
        elif total is not None and not settings.make_allocator().sequential:
            unfinished = ledger.spent < total
        if saved is not None and total is not None:
            # Rollouts that were planned for past steps and not launched stay in the total.
            paid = max(paid, total - saved.left)
    if unfinished and last <= step and not config.trainer.get("val_only"):
        raise ValueError(_nothing_left(config, settings, folder, plan, steps_per_epoch, total_training_steps))
    in_pass = batch * settings.batches_per_step * max(steps_per_epoch, 1)
    visits = (plan.visited + max(0, last - step) * batch) / in_pass
    return Outlook(plan, max(1, math.ceil(visits)), paid + plan.left, saved)


def _step_of(folder):
    return int(folder.name.rpartition("global_step_")[2])


def _nothing_left(config, settings, folder, plan, steps_per_epoch, total_training_steps):
    """Return the message on a run that would resume behind its end."""
    dropped = f" x cero.candidates={settings.batches_per_step}" if settings.batches_per_step > 1 else ""
    trainer, remedies = config.trainer, []
    if steps_per_epoch * trainer.total_epochs <= plan.step:
        remedies.append(f"trainer.total_epochs to {plan.step // steps_per_epoch + 1} or more")
    if total_training_steps <= plan.step and trainer.total_training_steps is not None:
        remedies.append(f"trainer.total_training_steps above {plan.step}")
    return (
        f"{folder} is at step {plan.step}, and this run would end at step {plan.last}: "
        f"data.train_batch_size={plan.prompts}{dropped} makes {steps_per_epoch} "
        f"steps of a pass over the data, with trainer.total_epochs={trainer.total_epochs} and "
        f"trainer.total_training_steps={trainer.total_training_steps}. Nothing would be trained; raise "
        f"{' and '.join(remedies)}, or set trainer.val_only=True to validate only"
    )


def check_resume(config, settings):
    """Raise ValueError, naming file or key, value and remedy, if the run can't resume as verl will have it.

    Nothing is changed. A run that resumes from nothing passes.
    """
    resume_state(config, settings, settings.make_allocator(), settings.make_baseline())
    folder = resume_folder(config)
    if folder is None:
        return
    _check_shards(config, folder)
    rows = most_rows(config)
    if rows is None:
        return
    check_pass(config, rows)
    steps_per_epoch = rows // (config.data.train_batch_size * settings.batches_per_step)
    if steps_per_epoch:
        asked = config.trainer.total_training_steps
        most = steps_per_epoch * config.trainer.total_epochs if asked is None else asked
        look_ahead(config, settings, steps_per_epoch, most)


def _check_shards(config, folder):
    """Compare the number of processes with the checkpoint's: verl's FSDP has one piece for each."""
    whole = _complete_steps(folder.parent)
    if whole and not (folder / "actor").exists():
        raise ValueError(
            f"{folder} has no model any more (there is no folder actor): verl keeps the newest "
            "trainer.max_actor_ckpt_to_keep of them. Resume from another checkpoint (complete ones: "
            f"{', '.join(map(str, whole))}) with trainer.resume_mode=resume_path, or set "
            "trainer.resume_mode=disable to start anew"
        )
    try:
        names = os.listdir(folder / "actor")
    except OSError:
        return  # on the disks of the workers
    saved_by = {int(match[1]) for match in map(SHARDS.fullmatch, names) if match}
    trainer = config.trainer
    processes = trainer.n_gpus_per_node * trainer.nnodes
    if saved_by and processes not in saved_by:
        many = " or ".join(map(str, sorted(saved_by)))
        raise ValueError(
            f"trainer.n_gpus_per_node={trainer.n_gpus_per_node} x trainer.nnodes={trainer.nnodes} are "
            f"{processes} processes, and {folder} was saved by {many}, each with its own piece of the model; "
            f"resume with {many}, or merge the pieces (python -m verl.model_merger) and start a new run from "
            "the merged model"
        )


def check_pass(config, rows):
    """Raise ValueError if more of the data's current pass was read than there is now: verl can't skip it.

    rows : int, prompts in the data
    """
    folder = resume_folder(config)
    if folder is None or not (folder / DATA_FILE).is_file():
        return
    state = _loader_state(folder)
    _check_loader(config, state, folder / DATA_FILE)
    read = _read_by(state)
    if read > rows:
        raise ValueError(
            f"{folder / DATA_FILE}: {read} prompts of the current pass were read, and data.train_files="
            f"{config.data.train_files} has {rows} now, so there is no place to go on from. Delete that file "
            "and a new pass begins, with model and allocator as they are; or bring back the data"
        )


def _check_loader(config, state, path):
    """Compare the loader's workers and order with the checkpoint's: torchdata goes on with the same only."""
    workers = config.data.get("dataloader_num_workers")
    saved_by = max(_numbers(state, "_num_workers"), default=0)
    if workers is not None and saved_by != workers:
        raise ValueError(
            f"data.dataloader_num_workers={workers}, and {path} was saved with {saved_by}, so the loader "
            f"can't go on from it; set it to {saved_by}, or delete that file, and a new pass begins"
        )
    if not list(_values(state, "samples_yielded")):
        return
    shuffle = bool(config.data.get("shuffle", True))
    if bool(list(_values(state, "sampler_iter_state"))) != shuffle:
        raise ValueError(
            f"data.shuffle={shuffle}, and {path} was saved with {not shuffle}, so the loader can't go on "
            f"from it; set it to {not shuffle}, or delete that file and a new pass over the data begins"
        )


def prompts_read(folder):
    """Return the number of prompts of the current pass that were read by then: int.

    folder : Path of a checkpoint that has the state of verl's loader
    """
    return _read_by(_loader_state(folder))


def _read_by(state):
    """Return the number of prompts of the pass that a loader with this state has read."""
    return max(_numbers(state, "samples_yielded"), default=0)


def _loader_state(folder):
    import torch

    return torch.load(folder / DATA_FILE, weights_only=False)  # as verl loads it, which wrote it


def _numbers(state, name):
    """Yield the whole numbers that are called `name` in nested dicts."""
    return (value for value in _values(state, name) if isinstance(value, int))


def _values(state, name):
    """Yield what is called `name` in nested dicts."""
    if isinstance(state, dict):
        for key, value in state.items():
            if key == name:
                yield value
            yield from _values(value, name)


def most_rows(config):
    """Return the rows of the training files, if all are Parquet files at hand; else None.

    There are at most so many prompts: verl may leave out those that are too long.
    """
    files = config.data.train_files
    files = list(files) if isinstance(files, ListConfig | list) else [files]
    if any(not str(file).endswith(".parquet") or not os.path.isfile(file) for file in files):
        return None
    import pyarrow.parquet

    rows = sum(pyarrow.parquet.read_metadata(file).num_rows for file in files)
    most = config.data.get("train_max_samples", -1)
    return rows if most <= 0 else min(rows, most)  # as verl has it


def changes(config, settings, allocator, outlook):
    """Return what a resumed run's settings have that its checkpoint's had not: list of str, key and values.

    settings, allocator : those of now; outlook : the run's `Outlook`
    """
    found, saved, plan = [], outlook.saved, outlook.plan
    if saved is not None:
        keys = {
            "data.train_batch_size": (plan.prompts, saved.prompts),
            "actor_rollout_ref.rollout.n": (plan.rollouts, saved.rollouts),
            "last step": (plan.last, saved.last),
        }
        found += [f"{key}={now} (was {then})" for key, (now, then) in keys.items() if now != then]
    folder = resume_folder(config)
    if folder is not None and (folder / STATE_FILE).is_file():
        state = load_meta(folder / STATE_FILE)
        then = {**WITHOUT_CANDIDATES, **state.get(CANDIDATES, {})}
        found += [
            f"cero.{key}={now} (was {then[key]})" for key, now in settings.offers.items() if now != then[key]
        ]
        found += _changed_options(state, allocator)
    return found


def _changed_options(state, allocator):
    then = state.get("options", {})
    return [
        f"allocator.{key}={now} (was {then[key]})"
        for key, now in allocator.options().items()
        if key in then and then[key] != now and key not in ("epochs", "rollouts_per_prompt")
    ]


def saved_line(config, step):
    """Return the log's record (dict) of `step`, the step of the checkpoint that is resumed; or None.

    Only if the checkpoint lies in this run's folder: another run's log is not continued.
    """
    folder = resume_folder(config)
    if folder is None or folder.parent != Path(os.path.abspath(config.trainer.default_local_dir)):
        return None
    try:
        record = json.loads((folder / STEP_FILE).read_text(encoding="utf-8"))
        return record if (record["kind"], record["step"]) == ("step", step) else None
    except (OSError, ValueError, TypeError, KeyError):
        return None  # of a run without a log, or of an earlier version


def resume_state(config, settings, allocator, baseline=None):
    """Load the state of the checkpoint that the run resumes from into `allocator` and `baseline`.

    Returns True if a state was loaded; False for a new run, and for a checkpoint without a state where
    cero.on_missing_state=fresh allows one.

    Raises
    ------
    ValueError
        If a file is missing, is damaged, belongs to another allocator, or does not fit this run's budget.
    """
    folder = resume_folder(config)
    if folder is None:
        return False
    path = folder / STATE_FILE
    try:
        state = load_state(path)
    except FileNotFoundError:
        if settings.on_missing_state == "fresh":
            return False
        raise ValueError(
            f"{folder} holds no allocator state ({STATE_FILE}): the checkpoint is of a run without this "
            "recipe. Set cero.on_missing_state=fresh to start the allocator anew on it, or "
            "trainer.resume_mode=disable"
        ) from None
    try:
        allocator.load_state_dict(state)
    except ValueError as error:
        changed = _changed_options(state, allocator) if state.get("allocator") == allocator.name else []
        hint = f". Set back what differs from the saved run: {', '.join(changed)}" if changed else ""
        raise ValueError(f"{path}: {error}{hint}") from error
    if baseline is not None:
        _resume_baseline(folder / BASELINE_FILE, settings, baseline)
    return True


def _resume_baseline(path, settings, baseline):
    try:
        baseline.load_state_dict(load_state(path))
    except FileNotFoundError:
        if settings.on_missing_state == "error":
            raise ValueError(
                f"there is no {path}: the checkpoint is of a run without algorithm.cero.baseline=optimal. "
                "Set algorithm.cero.baseline=mean, or cero.on_missing_state=fresh to learn the baseline anew"
            ) from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
