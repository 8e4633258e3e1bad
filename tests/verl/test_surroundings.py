"""What the machine must have, and what preflight makes of anything that goes wrong."""

import os
import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from omegaconf import OmegaConf, open_dict
from verl.trainer import main_ppo

from cero.core.state import COMMIT_MARKER
from cero.verl import preflight, surroundings, sweep
from cero.verl.preflight import Preflight
from cero.verl.reading import read_settings
from cero.verl.surroundings import check_surroundings, ray_to_join

RUN = ["+recipe=cero", "actor_rollout_ref.rollout.n=8", "actor_rollout_ref.rollout.name=vllm"]
MINI = "actor_rollout_ref.actor.ppo_mini_batch_size=64"
CPU = ["+recipe=cero_cpu", "actor_rollout_ref.rollout.n=8"]


@pytest.fixture(autouse=True)
def no_ray(monkeypatch, tmp_path):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / "ray-tmp"))


def stops(config, message):
    with pytest.raises(SystemExit, match=message) as stop:
        Preflight().on_job_start(config=config)
    assert str(stop.value).startswith("cero: ") and "Traceback" not in str(stop.value)


REFUSED = {
    "a range that is a number": (
        ["cero.success.range=1"],
        r"cero.success.range=1 must be two finite numbers",
    ),
    "a value in a list": (
        ["allocator.value=[signal]"],
        r"value=\['signal'\] is not known; choose one of variance",
    ),
    "epochs": (["trainer.total_epochs=null"], r"trainer.total_epochs=None must be an integer"),
    "rollouts": (["actor_rollout_ref.rollout.n=0"], r"actor_rollout_ref.rollout.n=0 must be an integer"),
    "no path to resume": (["trainer.resume_mode=resume_path"], r"resume_from_path=None: name the folder"),
    "a path that is none": (
        ["trainer.resume_mode=resume_path", "trainer.resume_from_path=/nowhere/global_step_3"],
        r"resume_from_path=/nowhere/global_step_3: there is no such folder",
    ),
    "another mode": (["trainer.resume_mode=last"], r"trainer.resume_mode=last is not known.*resume_path"),
    "minibatch above the batch": (
        ["data.train_batch_size=32", "actor_rollout_ref.actor.ppo_mini_batch_size=64"],
        r"ppo_mini_batch_size=64 is more than data.train_batch_size=32",
    ),
    "an adapter on a CPU": (
        ["trainer.device=cpu", "actor_rollout_ref.model.lora_rank=8"],
        r"lora_rank=8 with trainer.device=cpu",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(composed, tmp_path, case):
    overrides, message = REFUSED[case]
    stops(composed(*RUN, f"trainer.default_local_dir={tmp_path}", *overrides), message)


@pytest.mark.parametrize("text", ["", "\n", "twelve", "-3", "\ufffd"])
def test_a_marker_that_holds_no_step(composed, tmp_path, text):
    (tmp_path / COMMIT_MARKER).write_text(text)
    stops(
        composed(*RUN, f"trainer.default_local_dir={tmp_path}"),
        f"its {COMMIT_MARKER} holds .* instead of a step",
    )


def test_a_folder_that_can_not_be_written_to(composed, tmp_path, monkeypatch):
    monkeypatch.setattr(
        surroundings.os, "access", lambda place, mode: place != tmp_path
    )  # root may write anywhere
    config = composed(*RUN, f"trainer.default_local_dir={tmp_path}/run/1")
    stops(config, rf"trainer.default_local_dir={tmp_path}/run/1: {tmp_path} can't be written to")
    monkeypatch.undo()
    (tmp_path / "file").write_text("")
    stops(composed(*RUN, f"trainer.default_local_dir={tmp_path}/file/run"), "file is a file; name a folder")
    assert sorted(os.listdir(tmp_path)) == ["file"]


def test_a_batch_larger_than_the_data(composed, tmp_path):
    for name, count in (("a", 20), ("b", 11)):
        pq.write_table(pa.table({"prompt": ["x"] * count}), tmp_path / f"{name}.parquet")
    words = [f"trainer.default_local_dir={tmp_path}", "data.train_batch_size=32"]
    words += ["actor_rollout_ref.actor.ppo_mini_batch_size=32"]
    both = f"data.train_files=[{tmp_path}/a.parquet,{tmp_path}/b.parquet]"
    message = r"data.train_batch_size=32 is more than the {} rows of data.train_files=.*a.parquet"
    stops(composed(*RUN, *words, both), message.format(31))
    stops(composed(*RUN, *words, f"data.train_files={tmp_path}/a.parquet"), message.format(20))
    check_surroundings(composed(*RUN, *words[:1], "data.train_batch_size=31", both))
    fewer = composed(*RUN, *words[:1], "data.train_batch_size=31", both, "data.train_max_samples=30")
    with pytest.raises(ValueError, match="more than data.train_max_samples=30: .* raise the second"):
        check_surroundings(fewer)
    for all_of_them in (0, -1, 40):  # as verl has it
        check_surroundings(
            composed(
                *RUN, *words[:1], "data.train_batch_size=31", both, f"data.train_max_samples={all_of_them}"
            )
        )
    for none in ("null", "[]", "[null]"):
        with pytest.raises(ValueError, match="data.train_files=.* must name one file or more"):
            check_surroundings(composed(*RUN, *words[:1], f"data.train_files={none}"))


def test_an_engine_that_is_not_installed(composed, tmp_path, monkeypatch):
    def version(name):
        raise surroundings.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(surroundings.metadata, "version", version)
    config = composed(*RUN, f"trainer.default_local_dir={tmp_path}")
    stops(config, "actor_rollout_ref.rollout.name=vllm, and no package vllm is installed.*(sglang)")
    other = composed(*RUN, f"trainer.default_local_dir={tmp_path}", "actor_rollout_ref.rollout.name=sglang")
    stops(other, "actor_rollout_ref.rollout.name=sglang, and no package sglang is installed.*(vllm)")
    check_surroundings(
        composed(*RUN, f"trainer.default_local_dir={tmp_path}", "actor_rollout_ref.rollout.name=trtllm")
    )


@pytest.mark.parametrize("name", ["vlm", "null", "7"])
def test_an_engine_that_is_not_known(composed, tmp_path, name):
    config = composed(*RUN, f"trainer.default_local_dir={tmp_path}", f"actor_rollout_ref.rollout.name={name}")
    with pytest.raises(ValueError, match=r"rollout.name=.* is not known; choose one of .*vllm"):
        check_surroundings(config)


def test_an_engine_that_is_not_named(composed, tmp_path):
    with pytest.raises(ValueError, match="actor_rollout_ref.rollout.name is not set; name the engine"):
        check_surroundings(composed(*RUN[:2], f"trainer.default_local_dir={tmp_path}"))


def test_a_ray_that_is_there_already(composed, tmp_path, monkeypatch):
    folder = f"trainer.default_local_dir={tmp_path}"
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    stops(composed(*CPU, folder), r"a Ray is there already \(RAY_ADDRESS: 10.0.0.1:6379\).*ray stop")
    check_surroundings(composed(*RUN, folder))  # on GPUs a cluster is joined as ever
    check_surroundings(composed(*CPU, folder, "+ray_kwargs.ray_init.address=local"))
    monkeypatch.delenv("RAY_ADDRESS")
    check_surroundings(composed(*CPU, folder))
    note = tmp_path / "ray-tmp" / "ray" / "ray_current_cluster"
    note.parent.mkdir(parents=True)
    note.write_text("127.0.0.1:6379")
    stops(composed(*CPU, folder), r"ray_current_cluster: 127.0.0.1:6379")
    assert ray_to_join(composed(*RUN, folder)) == ("127.0.0.1:6379", str(note))
    assert ray_to_join(composed(*RUN, folder, "+ray_kwargs.ray_init.address=local"))[0] == ""


def test_whatever_else_goes_wrong_ends_the_run(composed, tmp_path, monkeypatch):
    def fails(config):
        raise KeyError("what nobody foresaw")

    monkeypatch.setattr(preflight, "check_surroundings", fails)
    with pytest.raises(
        SystemExit, match="the settings could not be checked: KeyError: 'what nobody foresaw'"
    ):
        Preflight().on_job_start(config=composed(*RUN, f"trainer.default_local_dir={tmp_path}"))


@pytest.fixture
def neighbour(tmp_path):
    """(a list of open sockets, as the kernel has it, on which another Ray is; the folder of that Ray)"""
    ray = tmp_path / "ray" / "session_2026"
    (ray / "sockets").mkdir(parents=True)
    sockets = tmp_path / "unix"
    sockets.write_text(
        "Num       RefCount Protocol Flags    Type St Inode Path\n"
        "00000000: 00000002 00000000 00010000 0001 01 12345 @abstract\n"
        "00000000: 00000003 00000000 00000000 0001 03 12346\n"
        f"00000000: 00000002 00000000 00010000 0001 01 12347 {ray}/sockets/raylet\n"
    )
    return sockets, ray


def test_another_run_that_is_live_is_warned_about(composed, neighbour, monkeypatch, capsys):
    sockets, ray = neighbour
    surroundings.warn_of_neighbours(composed(*RUN), sockets)
    told = capsys.readouterr().err
    assert told.startswith(f"cero: warning: another run is live on this machine ({ray})")
    assert "a /tmp of its own" in told and "RAY_ADDRESS" in told
    for overrides in (
        CPU,  # has a path of its own
        [*RUN[:-1], "actor_rollout_ref.rollout.name=sglang"],  # has no such path
        [*RUN, "+ray_kwargs.ray_init.address=10.0.0.1:6379"],  # one Ray, which counts both
    ):
        surroundings.warn_of_neighbours(composed(*overrides), sockets)
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    surroundings.warn_of_neighbours(composed(*RUN), sockets)
    assert capsys.readouterr().err == ""


def test_no_warning_without_another_run(composed, neighbour, capsys):
    sockets, ray = neighbour
    (ray / "sockets").rmdir()
    ray.rmdir()  # it lies in another /tmp than ours
    surroundings.warn_of_neighbours(composed(*RUN), sockets)
    surroundings.warn_of_neighbours(composed(*RUN), ray / "no such list")
    assert capsys.readouterr().err == ""


WORD = r"must be (an integer|a section|text)"
ODD_VALUES = {
    "data.train_batch_size": ("null", "abc", "[1]", "nan", ".inf", "1.5", "-1", "0", "64.0"),
    "data.gen_batch_size": ("x", "0", "32.0"),
    "actor_rollout_ref.rollout.n": ("8.0", "null"),
    "actor_rollout_ref.actor.ppo_mini_batch_size": ("null", "abc", "{}", "0", "-1", "true", "64.0"),
    "trainer.total_training_steps": ("abc", "1.5", "-1", "0", "[]", "1.0e3"),
    "trainer.total_epochs": ("2.0",),
    "trainer.n_gpus_per_node": ("null", "0", "two", "1.0"),
    "trainer.nnodes": ("-1", "[2]", "2.0"),
    "trainer.critic_warmup": ("abc", "-1"),
    "trainer.v1.sync.parameter_sync_step": ("0", "1.0", "null"),
    "trainer.default_local_dir": ("null", "7", "[]", "''"),
    "data.train_max_samples": ("many", "1.5", "null", "64.0"),
    "cero": ("7", "abc", "[]"),
    "cero.success": ("null", "1", "[0]"),
    "cero.pass_rates": ("null", "rate"),
    "cero.pass_rates.column": ("[]", "0", "true", "''"),
    "cero.keep": ("null", "aero"),
    "algorithm.cero": ("null", "0", "posterior"),
    "trainer.v1": ("null", "sync"),
    "trainer.v1.sampler": ("null", "true"),
}


@pytest.mark.parametrize(
    "key, value", [(key, value) for key, values in ODD_VALUES.items() for value in values]
)
def test_odd_values_are_refused_with_their_key(composed, key, value):
    config = composed(*RUN)
    with open_dict(config):
        OmegaConf.update(config, key, OmegaConf.create(f"value: {value}").value, merge=False)
    Preflight().on_run_start(config=config)
    stops(config, rf"^cero: {re.escape(key)}=.* {WORD}")


@pytest.mark.parametrize("value", ["${nope}", "${oc.env:CERO_NO_SUCH_VARIABLE}"])
def test_a_value_that_refers_to_nothing(composed, value):
    stops(composed(*RUN, f"allocator.n_max={value}"), r"^cero: allocator.n_max: .*set it, or leave")


@pytest.mark.parametrize("mode", ["colocate_async", "separate_async"])
@pytest.mark.parametrize("parts, message", [
    ("0", "must be an integer"), ("null", "must be an integer"), ("abc", "must be an integer"),
    ("-4", "must be an integer"), ("1.0", "without point"), ("3", "does not divide data.train_batch_size=64"),
])  # fmt: skip
def test_the_parts_of_a_step(composed, mode, parts, message):
    key = f"trainer.v1.{mode}.parameter_sync_step"
    config = composed(*RUN, "data.train_batch_size=64", f"trainer.v1.trainer_mode={mode}", MINI)
    with open_dict(config):
        OmegaConf.update(config, key, OmegaConf.create(f"value: {parts}").value, merge=False)
    Preflight().on_run_start(config=config)
    stops(config, rf"^cero: {re.escape(key)}=.*{message}")


def test_devices_of_their_own(composed):
    words = ("trainer.v1.trainer_mode=separate_async", "actor_rollout_ref.rollout.nnodes=abc")
    config = composed(*RUN, *words)
    Preflight().on_run_start(config=config)
    stops(config, "^cero: actor_rollout_ref.rollout.nnodes='abc' must be an integer")


def test_a_section_that_lacks_a_key(composed):
    config = composed(*RUN)
    with open_dict(config):
        del config.cero.keep.rule
    stops(config, "cero: cero.keep.rule: .*set it, or leave its section as the recipe has it")


def test_a_step_is_read_in_whole_portions(composed):
    for size in (48, 128):
        config = composed(*RUN, "data.train_batch_size=64", f"+data.gen_batch_size={size}", MINI)
        stops(config, f"data.gen_batch_size={size} does not divide data.train_batch_size=64.*null")
    read_settings(composed(*RUN, "data.train_batch_size=64", "+data.gen_batch_size=16", MINI))


def test_an_objective_without_a_sweep(composed, tmp_path):
    config = composed(
        *RUN, "cero.objective=best", f"trainer.default_local_dir={tmp_path}", "trainer.test_freq=10"
    )
    with pytest.raises(SystemExit, match="cero.objective=best has no effect with verl.trainer.main_ppo"):
        Preflight().on_job_start(config=config, task_function=main_ppo.main.__wrapped__)
    Preflight().on_job_start(config=config, task_function=sweep.main.__wrapped__)
    config.trainer.test_freq = -1
    with pytest.raises(SystemExit, match="cero: trainer.test_freq=-1: without validations"):
        Preflight().on_job_start(config=config, task_function=sweep.main.__wrapped__)
