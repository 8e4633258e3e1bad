"""Are a sweep's jobs kept apart, in Hydra's multirun over verl's main_ppo, where training is left out?"""

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hydra import compose
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import OmegaConf

from cero.analysis.runlog import RunLog
from cero.verl import objective
from cero.verl.sweep_jobs import Jobs

# A stand-in for verl's run_ppo starts a real Ray, so that one can see that nothing of it is left, and writes
# a log as the trainer does. Two sweeps are started, one after the other: the first is refused.
STANDIN = """
import os, sys
import ray
from omegaconf import OmegaConf
from verl.trainer import main_ppo
from cero.analysis.runlog import RunLog
from cero.verl import sweep

@ray.remote(num_cpus=0)
class Left:
    def where(self, config):
        OmegaConf.resolve(config)  # as verl's TaskRunner does, in a process of Ray's
        return config.trainer.default_local_dir, config.trainer.experiment_name

def run_ppo(config, task_runner_class):
    assert not ray.is_initialized() and "VERL_FULL_DETERMINISM" not in os.environ
    os.environ["VERL_FULL_DETERMINISM"] = "1"  # as verl does for the whole process, if a job asks for it
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, configure_logging=False)
    assert ray.util.list_named_actors(all_namespaces=True) == []
    actor = Left.options(name="left", namespace="n", lifetime="detached").remote()
    folder, name = ray.get(actor.where.remote(config))
    print("TRAINED", config.allocator.name, name, folder, flush=True)
    if config.allocator.name == "gdro":
        raise ValueError("boom")
    log = RunLog(folder + "/cero/allocations.jsonl")
    log.validation(0, 0, {"val-core/x/acc/mean@1": 0.25})
    log.step(1, 0, 8, 8, ["0"], [8], [4], [8], {})
    log.validation(1, 8, {"val-core/x/acc/mean@1": 0.75})

main_ppo.run_ppo = run_ppo
common, refused, trained = (words.split() for words in sys.argv[1:])
sys.argv[1:] = [*common, *refused]
try:
    sweep.main()
except SystemExit as error:
    print("REFUSED", error, flush=True)
sys.argv[1:] = [*common, *trained]
sweep.main()
print("CLEAN", ray.is_initialized(), flush=True)
"""
OVERRIDES = [
    "+recipe=cero",
    "actor_rollout_ref.rollout.n=8",
    "actor_rollout_ref.rollout.name=vllm",
    "trainer.test_freq=1",
    "trainer.n_gpus_per_node=1",
]
OVERRIDES += ["actor_rollout_ref.actor.use_dynamic_bsz=true", "data.train_batch_size=256"]


def multiruns(folder, refused, trained):
    """Run the stand-in in `folder` with two sweeps' overrides (str); return the completed process."""
    return subprocess.run(
        [sys.executable, "-c", STANDIN, " ".join(["-m", *OVERRIDES]), refused, trained],
        cwd=folder,
        env=os.environ | {"RAY_USAGE_STATS_ENABLED": "0", "RAY_prestart_worker_first_driver": "0"},
        capture_output=True,
        text=True,
        timeout=300,
    )


def of_jobs(folder):
    """Command lines of processes that were started by jobs below `folder`."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("CERO_JOB_DIR", "").startswith(str(folder)):
                found.append(process.cmdline())
        except psutil.Error:
            continue
    return found


@pytest.mark.e2e
def test_a_grid_is_checked_before_its_first_job_and_jobs_are_trained_one_after_the_other(tmp_path):
    """Both in one process, since one takes ten seconds to start; the sweep that is refused leaves nothing."""
    refused = "allocator=cero,gdro allocator.n_min=1,2 trainer.default_local_dir=same"
    result = multiruns(tmp_path, refused, "allocator=gdro,cero hydra.sweep.dir=sweep")
    said, stdout = result.stdout.split("REFUSED ")
    assert "TRAINED" not in said and not (tmp_path / "same").exists()
    refusal, stdout = stdout.split("TRAINED", 1)
    stdout = "TRAINED" + stdout
    assert "nothing was started: 3 of 4 jobs can't work" in refusal
    message = "allocator.n_min=1 with algorithm.adv_estimator=grpo"
    assert f"job 2 (allocator=gdro allocator.n_min=1): {message}" in refusal
    assert "job 1 (allocator=cero allocator.n_min=2): it would write where job 0 does" in refusal

    trained = [line.split()[1:] for line in stdout.splitlines() if line.startswith("TRAINED")]
    assert trained == [
        [name, f"allocator={name}", str(tmp_path / "sweep" / str(number))]
        for number, name in enumerate(["gdro", "cero"])
    ], result.stderr[-3000:]
    # A failed job is named at once, and the others go on; at the end Hydra exits with its error.
    assert result.returncode == 1 and "CLEAN" not in result.stdout
    assert "cero: job 0 (allocator=gdro) FAILED: ValueError: boom" in result.stderr
    assert "boom" in (tmp_path / "sweep" / "0" / "error.txt").read_text()
    assert f"cero: job 1 (allocator=cero) is done: {tmp_path}/sweep/1" in result.stderr
    assert result.stdout.count("cero: held-out accuracy (last): 0.7500") == 1
    assert of_jobs(tmp_path) == []
    log = tmp_path / "sweep" / "1" / "cero" / "allocations.jsonl"
    assert len(log.read_text().splitlines()) == 3
    about = json.loads(log.with_name("job.json").read_text())
    assert about["allocator"] == "cero" and "allocator=cero" in about["overrides"]


# ---- the callback by itself ----------------------------------------------------------------------


@pytest.fixture
def job(composed, tmp_path, monkeypatch):
    """`job(number, *overrides)`: a job's config as Hydra has it, its hydra node included."""
    monkeypatch.setenv("CERO_JOB_DIR", "set by Hydra")

    def job(number, *overrides):
        config = compose("ppo_trainer", overrides=[*OVERRIDES, *overrides], return_hydra_config=True)
        OmegaConf.set_readonly(config.hydra, False)
        config.hydra.job.num, config.hydra.runtime.output_dir = number, str(tmp_path / str(number))
        return config

    return job


@pytest.fixture
def jobs():
    """The callback as `on_multirun_start` leaves it in a sweep over allocator.n_max."""
    callback = Jobs()
    callback.swept, callback.given = ["allocator.n_max"], ("trainer.default_local_dir",)
    return callback


def ended(status=JobStatus.COMPLETED):
    done = JobReturn(status=status)
    done._return_value = ValueError("why\nboom") if status == JobStatus.FAILED else None
    return done


def test_recipe_has_the_callback_after_the_checks(composed):
    config = compose("ppo_trainer", overrides=OVERRIDES, return_hydra_config=True)
    assert list(config.hydra.callbacks) == ["cero", "jobs"]
    assert "hydra" not in composed(*OVERRIDES) and composed(*OVERRIDES).trainer.default_local_dir.startswith(
        "checkp"
    )


def test_a_grid_is_checked_as_single_runs_are(composed, tmp_path):
    """Data, engine and whatever else, job by job; a failure that nobody foresaw does not end the check."""
    pq.write_table(pa.table({"prompt": ["x"] * 300}), tmp_path / "train.parquet")
    config = compose("ppo_trainer", overrides=OVERRIDES, return_hydra_config=True)
    OmegaConf.set_readonly(config.hydra, False)
    config.hydra.sweep.dir = str(tmp_path / "sweep")
    config.hydra.overrides.task = [
        *OVERRIDES,
        f"data.train_files={tmp_path}/train.parquet",
        "data.train_batch_size=256,500",
        "+trainer.v1.sync.parameter_sync_step=${oc.env:HOME},1",
        "allocator.n_max=32,${nope}",
    ]
    with pytest.raises(SystemExit) as stop:
        Jobs().on_multirun_start(config)
    _, *jobs = str(stop.value).splitlines()
    assert "7 of 8 jobs can't work" in str(stop.value) and len(jobs) == 7
    assert (
        sum("data.train_batch_size=500 is more than the 300 rows of data.train_files" in job for job in jobs)
        == 1
    )
    assert sum("parameter_sync_step='/" in job and "must be an integer" in job for job in jobs) == 4
    assert sum("allocator.n_max: Interpolation key 'nope' not found; set it" in job for job in jobs) == 2
    assert not (tmp_path / "sweep").exists()


def test_environment_is_put_back(jobs, job, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PYTHONHASHSEED", "7")
    config = job(3, f"trainer.default_local_dir={tmp_path}/run", "allocator.n_max=16")
    before = dict(os.environ)
    jobs.on_job_start(config)
    assert os.environ["CERO_JOB_NAME"] == "allocator.n_max=16"
    os.environ.update(PYTHONHASHSEED="0", VLLM_BATCH_INVARIANT="1")  # verl's, of rollout.full_determinism
    jobs.on_job_end(config, ended())
    assert dict(os.environ) == before
    assert f"job 3 (allocator.n_max=16) is done: {tmp_path}/run" in capsys.readouterr().err


def test_a_failure_is_named_and_kept(jobs, job, tmp_path, capsys):
    config = job(3, f"trainer.default_local_dir={tmp_path}/run", "allocator.n_max=16")
    jobs.on_job_start(config)
    (tmp_path / "3").mkdir()
    jobs.on_job_end(config, ended(JobStatus.FAILED))
    assert "job 3 (allocator.n_max=16) FAILED: ValueError: boom" in capsys.readouterr().err
    assert "ValueError: why\nboom" in (tmp_path / "3" / "error.txt").read_text()
    jobs.on_multirun_end(SimpleNamespace(hydra=SimpleNamespace(sweep=SimpleNamespace(dir=str(tmp_path)))))
    said = capsys.readouterr().err
    assert "0 of 1 jobs are done; FAILED: job 3" in said and f"cero report {tmp_path}\n" in said


@pytest.mark.slow
def test_two_jobs_in_one_folder(jobs, job, tmp_path):
    jobs.on_job_start(job(0, f"trainer.default_local_dir={tmp_path}/run", "allocator.n_max=16"))
    with pytest.raises(SystemExit, match="job 0 does, and resume from its checkpoints"):
        jobs.on_job_start(job(1, f"trainer.default_local_dir={tmp_path}/run", "allocator.n_max=32"))


@pytest.mark.slow
def test_another_sweeps_folder(jobs, job, tmp_path):
    """A sweep that is started again goes on; one that would resume another job's checkpoints does not."""
    Jobs.on_job_start(jobs, job(0, f"trainer.default_local_dir={tmp_path}/run", "allocator.n_max=16"))
    again = Jobs()
    again.swept = jobs.swept
    again.on_job_start(
        job(0, f"trainer.default_local_dir={tmp_path}/run", "allocator.n_max=16", "data.seed=3")
    )
    other = Jobs()
    other.swept = jobs.swept
    with pytest.raises(SystemExit, match=r"where allocator.n_max=16 was trained.*hydra.sweep.dir"):
        other.on_job_start(job(0, f"trainer.default_local_dir={tmp_path}/run", "allocator.n_max=32"))


@pytest.mark.parametrize("named", ["environment", "ray start"])
def test_a_ray_that_is_there_already_needs_folders(jobs, job, tmp_path, monkeypatch, named):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    if named == "environment":
        monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    else:  # what it leaves, and Ray joins where no address is given
        (tmp_path / "ray").mkdir()
        (tmp_path / "ray" / "ray_current_cluster").write_text("10.0.0.1:6379\n")
    config = job(0, f"trainer.default_local_dir={tmp_path}/run")
    with pytest.raises(
        SystemExit, match=r"10.0.0.1:6379.*trainer.default_local_dir='runs/sweep/\$\{allocator.name\}"
    ):
        jobs.on_job_start(config)
    jobs.given, jobs.folders = (), {}
    jobs.on_job_start(config)


@pytest.mark.slow
def test_outside_a_sweep_it_only_writes_down(job, tmp_path):
    before = dict(os.environ)
    callback = Jobs()
    config = job(0, f"trainer.default_local_dir={tmp_path}/run", "allocator=uniform")
    callback.on_job_start(config)
    callback.on_job_end(config, ended())
    assert dict(os.environ) == before
    assert json.loads((tmp_path / "run/cero/job.json").read_text())["allocator"] == "uniform"
    config = job(0, f"trainer.default_local_dir={tmp_path}/none", "cero.log_allocations=false")
    callback.on_job_start(config)
    assert not (tmp_path / "none").exists()


# ---- the value -----------------------------------------------------------------------------------


@pytest.mark.parametrize("which, value", [("last", 0.5), ("best", 0.75), ("area", (0.5 + 0.625) / 2)])
def test_objective(composed, tmp_path, which, value):
    log = RunLog(tmp_path / "cero" / "allocations.jsonl")
    for step, accuracy in enumerate([0.25, 0.75, 0.5]):
        if step:
            log.step(step, 0, 8, 8 * step, ["0"], [8], [4], [8], {})
        log.validation(step, 8 * step, {"val-core/x/acc/mean@1": accuracy})
    config = composed(*OVERRIDES, f"trainer.default_local_dir={tmp_path}", f"cero.objective={which}")
    objective.check_value(config)
    assert objective.objective(config) == pytest.approx(value)


@pytest.mark.parametrize(
    "override, words",
    [
        ("trainer.test_freq=-1", "trainer.test_freq=-1: without validations"),
        ("cero.log_allocations=false", "cero.log_allocations"),
        ("trainer.val_only=True", "trainer.val_only=True: a run that only validates keeps no log"),
        ("~cero", "no 'cero' section; start with"),
    ],
)
def test_a_run_that_would_end_without_a_value(composed, override, words):
    with pytest.raises(ValueError, match=words):
        objective.check_value(composed(*OVERRIDES, override))


def test_no_validation_was_logged(composed, tmp_path):
    RunLog(tmp_path / "cero" / "allocations.jsonl").step(1, 0, 8, 8, ["0"], [8], [4], [8], {})
    with pytest.raises(ValueError, match="no validation was logged"):
        objective.objective(composed(*OVERRIDES, f"trainer.default_local_dir={tmp_path}"))


def test_optuna_composes(composed):
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    config = compose("ppo_trainer", overrides=[*OVERRIDES, "hydra/sweeper=optuna"], return_hydra_config=True)
    assert config.hydra.sweeper._target_.endswith("OptunaSweeper")
