"""From which checkpoint does a run resume, and what had the scheduler learned by then?"""

import os
from pathlib import Path

from cero.core.state import BASELINE_FILE, COMMIT_MARKER, STATE_FILE, load_state


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
    return folder if folder.exists() else None


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
        raise ValueError(f"{path}: {error}") from error
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
