"""How is an allocator's state kept in a file, so that a torn or foreign one is never taken for it?"""

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

META = "meta.json"
STATE_FILE = Path("cero") / "allocator.npz"  # under <default_local_dir>/global_step_N
BASELINE_FILE = STATE_FILE.with_name("baseline.npz")  # beside it, with algorithm.cero.baseline=optimal
COMMIT_MARKER = "latest_checkpointed_iteration.txt"  # verl's name, under <default_local_dir>
TABLE_PREFIX = "table."


def save_state(state: dict[str, Any], path: str | os.PathLike[str]) -> None:
    """Write `state`, the `state_dict` of an allocator or a baseline, to `path` atomically.

    The file is an uncompressed .npz: one array for each table column, each with its CRC-32, and the rest as
    JSON. It is written beside its place, flushed to disk and then renamed. So a crash leaves the old file or
    the new one.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    meta = {key: value for key, value in state.items() if key != "table"}
    arrays: dict[str, Any] = {f"{TABLE_PREFIX}{name}": column for name, column in state["table"].items()}
    arrays[META] = np.frombuffer(json.dumps(meta).encode(), dtype=np.uint8)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez(file, **arrays)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def load_state(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the state that `save_state` wrote to `path`. Nothing in the file is unpickled or run.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is damaged (truncated, bits flipped) or is not such a state.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no allocator state at {path}")
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        state = json.loads(arrays.pop(META).tobytes())
        columns = {name.removeprefix(TABLE_PREFIX): array for name, array in arrays.items()}
    except Exception as error:  # a damaged archive fails in a dozen ways; all mean the same
        raise ValueError(
            f"{path} is damaged or is not an allocator state ({type(error).__name__}: {error}); "
            "resume from an earlier checkpoint"
        ) from error
    if not isinstance(state, dict):
        raise ValueError(f"{path} is not an allocator state; resume from an earlier checkpoint")
    return state | {"table": columns}
