"""Has the machine what the run needs: a folder to write to, data, an engine, a Ray, and room beside others?

Asked in the process of the command line, before Ray starts; nothing here is asked again by workers.
"""

import os
import re
import sys
from importlib import metadata
from pathlib import Path

from omegaconf import OmegaConf

from cero.verl.resume import most_rows

ENGINES = {"vllm", "sglang"}  # those whose package has the same name


def check_surroundings(config):
    """Raise ValueError, naming key, value and remedy, if the run of `config` (verl's) can't get far here."""
    _check_folder(config)
    _check_data(config)
    _check_engine(config)
    _check_ray(config)


def _check_folder(config):
    """Look whether trainer.default_local_dir can be made and written to; makes nothing."""
    folder = Path(os.path.abspath(config.trainer.default_local_dir))
    place = next(each for each in (folder, *folder.parents) if each.exists())
    if not place.is_dir():
        raise ValueError(
            f"trainer.default_local_dir={config.trainer.default_local_dir}: {place} is a file; name a folder"
        )
    if not os.access(place, os.W_OK | os.X_OK):
        raise ValueError(
            f"trainer.default_local_dir={config.trainer.default_local_dir}: {place} can't be written to, and "
            "checkpoints and the log go there; name another folder, or change its permissions"
        )


def _check_data(config):
    """Compare the batch with the rows of the training files, where these are Parquet files at hand."""
    _check_files(config)
    rows = most_rows(config)
    if rows is None:
        return  # verl fetches or makes it
    if rows < config.data.train_batch_size:
        most = config.data.get("train_max_samples", -1)
        if rows == most:
            raise ValueError(
                f"data.train_batch_size={config.data.train_batch_size} is more than "
                f"data.train_max_samples={most}: no step could be filled; lower the first or raise the second"
            )
        raise ValueError(
            f"data.train_batch_size={config.data.train_batch_size} is more than the {rows} rows of "
            f"data.train_files={config.data.train_files}: no step could be filled; lower it, or add data"
        )


def _check_files(config):
    """Look whether the training files are named; they may lie on the machine that verl's task runs on."""
    if OmegaConf.select(config, "data.custom_cls.path"):
        return  # of a data set of the user's own, for which this may be anything
    files = config.data.train_files
    names = list(files) if OmegaConf.is_list(files) else [files]
    if not names or not all(isinstance(name, str) and name for name in names):
        raise ValueError(f"data.train_files={files} must name one file or more; set it to a path")


def _check_engine(config):
    """Look whether the engine is known and installed; verl asks for it after the workers are up."""
    from verl.workers.rollout.replica import RolloutReplicaRegistry

    if OmegaConf.is_missing(config.actor_rollout_ref.rollout, "name"):
        raise ValueError("actor_rollout_ref.rollout.name is not set; name the engine, e.g. vllm")
    name = config.actor_rollout_ref.rollout.name
    known = RolloutReplicaRegistry._registry
    if (
        not isinstance(name, str)
        or name not in known
        and not config.actor_rollout_ref.model.get("external_lib")
    ):
        raise ValueError(
            f"actor_rollout_ref.rollout.name={name} is not known; choose one of {', '.join(known)}"
        )
    if name not in ENGINES or ray_to_join(config)[0]:
        return  # the engine runs where the Ray is that is joined
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        raise ValueError(
            f"actor_rollout_ref.rollout.name={name}, and no package {name} is installed here; install it, or "
            f"set actor_rollout_ref.rollout.name to the engine that is ({' or '.join(ENGINES - {name})})"
        ) from None


def _check_ray(config):
    """Look whether a Ray would be joined that can't be told what the recipes for the CPU tell a new one."""
    address, source = ray_to_join(config)
    if address and config.trainer.device == "cpu":
        raise ValueError(
            f"trainer.device=cpu, and a Ray is there already ({source}: {address}): it would be joined, and "
            "it has not the slots that the recipe asks a new one for (ray_kwargs.ray_init.num_cpus and "
            ".num_gpus); "
            "unset RAY_ADDRESS, end it with `ray stop`, or set +ray_kwargs.ray_init.address=local"
        )


def ray_to_join(config):
    """Return (address of the Ray that the run will join, "" if it starts its own; where that is named)."""
    address, source = _ray_address(config)
    if address == "local":
        return "", source
    if not address:
        # What `ray start` writes down; Ray joins it where no address is given.
        note = Path(os.environ.get("RAY_TMPDIR") or "/tmp", "ray", "ray_current_cluster")
        address, source = (note.read_text().strip(), str(note)) if note.is_file() else ("", "")
    return address, source


def _ray_address(config):
    """Return (address of the Ray that is named, or None; where it is named)."""
    given = (OmegaConf.select(config, "ray_kwargs.ray_init") or {}).get("address")
    if given:
        return given, "ray_kwargs.ray_init.address"
    return os.environ.get("RAY_ADDRESS"), "RAY_ADDRESS"


def warn_of_neighbours(config, sockets="/proc/net/unix"):
    """Say on stderr if another run is live here that may hand over its weights at the same path.

    The path that verl's vLLM uses has the number of Ray's job in it, and every Ray counts from 1. On the CPU
    path each run has its own (`cero.verl.cpu.weight_path`).

    sockets : the kernel's list of the sockets that are open, which has their paths
    """
    address, _ = _ray_address(config)
    of_vllm = config.actor_rollout_ref.rollout.name == "vllm" and config.trainer.device != "cpu"
    if not of_vllm or address not in (None, "", "local") or not os.path.exists(sockets):
        return
    paths = re.findall(r"(/\S+)$", Path(sockets).read_text(errors="replace"), re.MULTILINE)
    # A socket lasts only while weights are sent; a Ray is there all the time. Either may lie in another /tmp.
    weights = [path for path in paths if path.startswith("/tmp/rl-colocate-zmq-01") and os.path.exists(path)]
    rays = {path.rpartition("/sockets/")[0] for path in paths if path.endswith("/sockets/raylet")}
    rays = sorted(ray for ray in rays if os.path.exists(ray))
    if weights or rays:
        print(
            f"cero: warning: another run is live on this machine ({(weights or rays)[0]}). If it is one of "
            "verl with vLLM and a Ray of its own, both hand over their weights at the same path "
            "(/tmp/rl-colocate-zmq-01000000-...), so that one may hang or sample with the other's. Give each "
            "run a /tmp of its own (a container does), or have both join one Ray (RAY_ADDRESS)",
            file=sys.stderr,
        )
