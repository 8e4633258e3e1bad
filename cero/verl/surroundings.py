"""Has the machine what the run needs: a folder to write to, data, an engine, and a Ray that can be had?

Asked in the process of the command line, before Ray starts; nothing here is asked again by workers.
"""

import os
from importlib import metadata
from pathlib import Path

from omegaconf import ListConfig, OmegaConf


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
    import pyarrow.parquet

    files = config.data.train_files
    files = list(files) if isinstance(files, ListConfig | list) else [files]
    rows = 0
    for file in files:
        if not isinstance(file, str) or not file.endswith(".parquet") or not os.path.isfile(file):
            return  # verl fetches or makes it
        rows += pyarrow.parquet.read_metadata(file).num_rows
    most = config.data.get("train_max_samples", -1)
    rows = rows if most is None or most < 0 else min(rows, most)
    if rows < config.data.train_batch_size:
        raise ValueError(
            f"data.train_batch_size={config.data.train_batch_size} is more than the {rows} rows of "
            f"data.train_files={config.data.train_files}: no step could be filled; lower it, or add data"
        )


def _check_engine(config):
    """Look whether the engine that is asked for is installed; verl asks for it after the workers are up."""
    if OmegaConf.is_missing(config.actor_rollout_ref.rollout, "name"):
        raise ValueError("actor_rollout_ref.rollout.name is not set; name the engine, e.g. vllm")
    if config.actor_rollout_ref.rollout.name != "vllm":
        return
    try:
        metadata.version("vllm")
    except metadata.PackageNotFoundError:
        raise ValueError(
            "actor_rollout_ref.rollout.name=vllm, and no package vllm is installed here; install it, or set "
            "actor_rollout_ref.rollout.name to the engine that is (sglang)"
        ) from None


def _check_ray(config):
    """Look whether a Ray would be joined that can't be told what the recipes for the CPU tell a new one."""
    given = OmegaConf.select(config, "ray_kwargs.ray_init") or {}
    address = given.get("address") or os.environ.get("RAY_ADDRESS")
    if config.trainer.device != "cpu" or address == "local":
        return
    source = "ray_kwargs.ray_init.address" if given.get("address") else "RAY_ADDRESS"
    if not address:
        # What `ray start` writes down; Ray joins it where no address is given.
        note = Path(os.environ.get("RAY_TMPDIR") or "/tmp", "ray", "ray_current_cluster")
        address, source = (note.read_text().strip(), str(note)) if note.is_file() else ("", "")
    if address:
        raise ValueError(
            f"trainer.device=cpu, and a Ray is there already ({source}: {address}): it would be joined, and "
            "it has not the slots that the recipe asks a new one for (ray_kwargs.ray_init.num_cpus and "
            ".num_gpus); "
            "unset RAY_ADDRESS, end it with `ray stop`, or set +ray_kwargs.ray_init.address=local"
        )
