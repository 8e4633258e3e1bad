"""How is an allocator's state kept in a file, so that a torn or foreign one is never taken for it?"""

import glob
import json
import os
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

META = "meta.json"
STATE_FILE = Path("cero") / "allocator.npz"  # under <default_local_dir>/global_step_N
BASELINE_FILE = STATE_FILE.with_name("baseline.npz")  # beside it, with algorithm.cero.baseline=optimal
STEP_FILE = STATE_FILE.with_name("step.json")  # beside it: the log's line of that step
COMMIT_MARKER = "latest_checkpointed_iteration.txt"  # verl's name, under <default_local_dir>
TABLE_PREFIX = "table."
TEMPORARY = ".{}."  # and the number of the process that writes it


def save_state(state: dict[str, Any], path: str | os.PathLike[str]) -> None:
    """Write `state`, the `state_dict` of an allocator or a baseline, to `path` atomically.

    The file is an uncompressed .npz: one array for each table column, each with its CRC-32, and the rest as
    JSON. A crash leaves the old file or the new one (`write_atomically`). Its permissions follow the umask,
    as those of verl's own files do.

    Raises
    ------
    ValueError
        If the state holds a number that is not finite, which `load_state_dict` would refuse.
    """
    path = Path(path)
    meta = {key: value for key, value in state.items() if key != "table"}
    try:
        text = json.dumps(meta, allow_nan=False)
    except ValueError as error:
        raise ValueError(f"{path}: the state holds a number that is not finite ({error})") from error
    arrays: dict[str, Any] = {f"{TABLE_PREFIX}{name}": column for name, column in state["table"].items()}
    for name, column in state["table"].items():
        if column.dtype.kind == "f" and not np.isfinite(column).all():
            raise ValueError(f"{path}: column {name!r} of the state holds a number that is not finite")
    arrays[META] = np.frombuffer(text.encode(), dtype=np.uint8)
    write_atomically(path, lambda file: np.savez(file, **arrays))


def write_atomically(path: str | os.PathLike[str], write: Callable[[BinaryIO], object]) -> None:
    """Have `write`, a function of an open binary file, make the file `path`, of which a crash leaves no part.

    It is written beside its place, flushed to disk and then renamed, and so is the folder's entry. What
    earlier crashes left is removed.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f"{TEMPORARY.format(glob.escape(path.name))}*"):
        with suppress(OSError):  # of a save that was killed; what can't be removed is in nobody's way
            left.unlink()
    temporary = path.with_name(f"{TEMPORARY.format(path.name)}{os.getpid()}")
    try:
        with temporary.open("xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def sync_folder(folder: Path) -> None:
    """Have the folder's entries on disk; where the system can't, the rename is as durable as it makes it."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError:
        pass
    finally:
        os.close(handle)


def load_state(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the state that `save_state` wrote to `path`. Nothing in the file is unpickled or run.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is damaged (truncated, bits flipped) or is not such a state.
    """
    meta, columns = _read(Path(path), with_columns=True)
    return meta | {"table": columns}


def load_meta(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return what `load_state` returns, without the table, which is not read. Raises what that raises."""
    return _read(Path(path), with_columns=False)[0]


def _read(path: Path, with_columns: bool) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    if not path.is_file():
        raise FileNotFoundError(f"no allocator state at {path}")
    try:
        _check_archive(path)
        with np.load(path, allow_pickle=False) as archive:
            state = json.loads(archive[META].tobytes())
            columns = {
                name.removeprefix(TABLE_PREFIX): archive[name]
                for name in archive.files
                if with_columns and name != META
            }
    except Exception as error:  # a damaged archive fails in a dozen ways; all mean the same
        raise ValueError(
            f"{path} is damaged or is not an allocator state ({type(error).__name__}: {error}); "
            "resume from an earlier checkpoint"
        ) from error
    if not isinstance(state, dict):
        raise ValueError(f"{path} is not an allocator state; resume from an earlier checkpoint")
    return state, columns


def _check_archive(path: Path) -> None:
    """Raise ValueError unless the archive's members are those that `save_state` writes, uncompressed.

    So what is read is never larger than the file.
    """
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            name = member.filename.removesuffix(".npy")
            if name != META and not name.startswith(TABLE_PREFIX):
                raise ValueError(f"it has a member {member.filename!r}, which no state has")
            if member.compress_type != zipfile.ZIP_STORED or member.file_size > path.stat().st_size:
                raise ValueError(f"its member {member.filename!r} is compressed, which no state's is")
