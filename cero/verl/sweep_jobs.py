"""How are the jobs of a sweep kept apart, which Hydra's multirun trains one after the other in one process?

By a Hydra callback, named in recipe/cero.yaml. Each job gets a folder and a name of its own, unless the
command line gives them. Jobs that can't work are refused before the first one trains. After each job, the Ray
that it started is shut down, its processes are waited for, and the environment is put back. Every run, of a
sweep or not, has its overrides written beside its log, for `cero report`.
"""

import json
import os
import sys
import time
import traceback
from pathlib import Path

from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobStatus, env_override
from hydra.experimental.callback import Callback
from omegaconf import OmegaConf, open_dict, read_write

from cero.analysis.comparison import JOB_FILE, as_dict
from cero.core.state import write_atomically
from cero.verl.preflight import check_run, refusal
from cero.verl.reading import logs_allocations, read_settings
from cero.verl.surroundings import ray_to_join

FOLDER, NAME = "CERO_JOB_DIR", "CERO_JOB_NAME"
# What a job is given where the command line says nothing. It goes through the environment, because
# ${hydra:...} can't be resolved in Ray's processes.
GIVEN = {
    "trainer.default_local_dir": f"${{oc.env:{FOLDER}}}",
    "trainer.experiment_name": f"${{oc.env:{NAME}}}",
}
GRACE = 60  # seconds that a job's processes have to end


class Jobs(Callback):
    """Keep the jobs of a sweep apart; the Hydra callback that this module describes."""

    def __init__(self):
        self.swept = None  # keys that the sweep varies, once there is a sweep
        self.given = ()  # keys of GIVEN that jobs were given, because the command line has none
        self.folders = {}  # where jobs write -> number of the job
        self.environment = {}
        self.failed = []

    def on_multirun_start(self, config, **kwargs):
        """Give the jobs their folders and names, and check all of them if the sweeper is Hydra's own.

        Exits, naming each job that can't work and why.
        """
        overrides = OmegaConf.to_container(config.hydra.overrides.task, resolve=False)
        taken = as_dict(overrides)
        self.given = tuple(key for key in GIVEN if key not in taken)
        overrides = [f"{key}={GIVEN[key]}" for key in self.given] + overrides
        with read_write(config), open_dict(config):
            config.hydra.overrides.task = overrides
        loader = GlobalHydra.instance().config_loader()
        params = OmegaConf.select(config, "hydra.sweeper.params") or {}
        parsed = OverridesParser.create(config_loader=loader).parse_overrides(
            [f"{key}={value}" for key, value in params.items()] + overrides
        )
        self.swept = [
            override.get_key_element().lstrip("+") for override in parsed if override.is_sweep_override()
        ]
        refused, folders = [], {}
        jobs = _grid(config, parsed)
        # Jobs that are started on other machines are looked at there, by each job's own check.
        here = config.hydra.launcher._target_.endswith(".BasicLauncher")
        program = getattr(getattr(sys.modules.get("__main__"), "__spec__", None), "name", None)
        for number, job in enumerate(jobs):
            folder = os.path.join(
                config.hydra.sweep.dir, str(number)
            )  # Hydra's own, unless it is told another
            with env_override({FOLDER: folder, NAME: f"job {number}"}):
                try:
                    job_config = loader.load_sweep_config(config, list(job))
                    check_run(job_config, program) if here else read_settings(job_config)
                    _claim(folders, job_config, number)
                except Exception as error:
                    refused.append(f"job {number} ({self._words(job)}): {refusal(error)}")
        if refused:
            raise SystemExit(
                "\n".join(
                    [f"cero: nothing was started: {len(refused)} of {len(jobs)} jobs can't work", *refused]
                )
            )

    def on_job_start(self, config, **kwargs):
        """Write down the job's overrides; exit if it would write into another job's folder."""
        if self.swept is not None:
            from_hydra = OmegaConf.to_container(config.hydra.job.env_set)  # Hydra puts these back itself
            self.environment = {key: value for key, value in os.environ.items() if key not in from_hydra}
            os.environ[NAME] = self._name(config)
        try:
            if self.swept is not None:
                _claim(self.folders, config, config.hydra.job.num)
                self._check_joins(config)
            self._write_down(config)
        except ValueError as error:
            raise SystemExit(f"cero: {error}") from error

    def on_job_end(self, config, job_return, **kwargs):
        """Leave nothing of the job behind, and say how it went."""
        if self.swept is None:
            return
        folder = config.hydra.runtime.output_dir
        left = end_ray(folder)
        from_hydra = OmegaConf.to_container(config.hydra.job.env_set)
        for key in set(os.environ) - set(self.environment) - set(from_hydra):
            del os.environ[key]
        os.environ.update(self.environment)

        job = f"job {config.hydra.job.num} ({self._words(_overrides(config))})"
        if left:
            _say(f"{job}: {left} of its processes did not end within {GRACE} s and were killed")
        if job_return.status == JobStatus.FAILED:
            self.failed.append(job)
            error = job_return._return_value  # its property raises
            where = Path(folder) / "error.txt"
            where.write_text("".join(traceback.format_exception(error)), encoding="utf-8")
            cause = str(error).strip().splitlines() or [""]
            _say(f"{job} FAILED: {type(error).__name__}: {cause[-1]}\ncero: all of it is in {where}")
        else:
            _say(f"{job} is done: {self._folder(config)}")

    def on_multirun_end(self, config, **kwargs):
        """Print how many jobs are done and how to compare them.

        After a failure, Hydra calls this only if its sweeper goes on after failures.
        """
        done = f"{len(self.folders) - len(self.failed)} of {len(self.folders)} jobs are done"
        failed = f"; FAILED: {', '.join(self.failed)}" if self.failed else ""
        below = all(
            Path(os.path.abspath(config.hydra.sweep.dir)) in Path(folder).parents for folder in self.folders
        )
        folders = config.hydra.sweep.dir if below else " ".join(self.folders)
        _say(f"{done}{failed}. Side by side: cero report {folders}")

    def _folder(self, config):
        """Return the folder that the job wrote into."""
        return next(folder for folder, number in self.folders.items() if number == config.hydra.job.num)

    def _words(self, overrides):
        """Return those of a job's `overrides` (list of str) that the sweep varies, as one line."""
        settings = as_dict(overrides)
        return " ".join(f"{key}={settings[key]}" for key in self.swept if key in settings) or "nothing varied"

    def _name(self, config):
        """Return the job's name for loggers, made of what is varied and fit for a file name."""
        words = self._words(_overrides(config)) if self.swept else f"job-{config.hydra.job.num}"
        return words.replace(" ", ",").replace("/", "_")

    def _check_joins(self, config):
        """Raise ValueError if the job joins a running Ray, which doesn't know this process's environment."""
        address, source = ray_to_join(config)
        if address and self.given:
            example = "${allocator.name}-${allocator.n_max}"
            raise ValueError(
                f"a sweep on the Ray at {address} ({source}), which is there already and can't be told a "
                f"job's folder and name: let {' and '.join(self.given)} depend on what is varied, e.g. "
                f"{self.given[0]}='runs/sweep/{example}'"
            )

    def _write_down(self, config):
        """Write the job's overrides beside its log. Raises ValueError if another job trained there."""
        if not logs_allocations(config):
            return
        path = Path(config.trainer.default_local_dir) / "cero" / JOB_FILE
        overrides = _overrides(config)
        if self.swept and path.exists():
            try:
                before = json.loads(path.read_text(encoding="utf-8"))["overrides"]
            except (ValueError, TypeError, KeyError):
                before = overrides  # a torn file says nothing
            if self._words(before) != self._words(overrides):
                raise ValueError(
                    f"job {config.hydra.job.num} ({self._words(overrides)}) would go on in "
                    f"{path.parents[1]}, where {self._words(before)} was trained; give this sweep a "
                    "hydra.sweep.dir of its own"
                )
        about = {"overrides": overrides, "allocator": config.allocator.name}
        text = json.dumps(about, indent=1) + "\n"
        write_atomically(path, lambda file: file.write(text.encode()))


def _say(text):
    print(f"cero: {text}", file=sys.stderr, flush=True)


def _overrides(config):
    return OmegaConf.to_container(config.hydra.overrides.task, resolve=False)


def _grid(config, overrides):
    """Return the overrides of each job that Hydra's own sweeper will make; [] for another sweeper.

    overrides : list of Hydra's parsed overrides
    """
    if not config.hydra.sweeper._target_.endswith(".BasicSweeper"):
        return []
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

    return BasicSweeper.split_arguments(overrides, None)[0]


def _claim(folders, config, number):
    """Note the job's folder in `folders` (dict of folder -> number of the job).

    Raises ValueError if another job has it, from whose checkpoints verl would resume.
    """
    folder = os.path.abspath(config.trainer.default_local_dir)
    if folders.setdefault(folder, number) != number:
        raise ValueError(
            f"it would write where job {folders[folder]} does, and resume from its checkpoints: "
            f"trainer.default_local_dir={config.trainer.default_local_dir}. Leave that key out, and each job "
            "has a folder below hydra.sweep.dir; or let it depend on what is varied: .../${allocator.name}"
        )


def end_ray(folder):
    """Shut down the Ray that this process has started, and wait for the processes of the job in `folder`.

    They are known by CERO_JOB_DIR in their environment, so those whose parent has ended are found, too. What
    does not end within GRACE seconds is killed, so that the next job finds memory and devices free. Returns
    the number of processes killed.
    """
    ray = sys.modules.get("ray")
    if ray is None:
        return 0
    ray.shutdown()
    import psutil  # comes with Ray

    until = time.monotonic() + GRACE
    while (processes := _of_job(psutil, folder)) and time.monotonic() < until:
        psutil.wait_procs(processes, timeout=1)
    for process in processes:
        process.kill()
    psutil.wait_procs(processes, timeout=10)
    return len(processes)


def _of_job(psutil, folder):
    """Return the processes, other than this one, whose environment has the job's folder."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.environ().get(FOLDER) == folder:
                found.append(process)
        except (psutil.Error, OSError):  # ended meanwhile, or another user's
            continue
    return found
