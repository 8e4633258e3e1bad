"""State files: torn, damaged and foreign ones are refused; a failed write leaves the old one."""

import os
import stat

import numpy as np
import pytest

from cero import make_allocator
from cero.core.state import load_state, save_state


def some_state(spent=160):
    allocator = make_allocator("cero", rollouts_per_prompt=8, epochs=3)
    n = allocator.allocate(np.arange(20), budget=spent)
    allocator.observe(np.arange(20), n * 0.25, n)
    return allocator.state_dict()


def test_every_flipped_byte_of_the_data_is_noticed(tmp_path):
    path = tmp_path / "state.npz"
    save_state(some_state(), path)
    good, reference = path.read_bytes(), load_state(path)
    for position in np.random.default_rng(0).choice(len(good), 300, replace=False):
        path.write_bytes(good[:position] + bytes([good[position] ^ 0xFF]) + good[position + 1 :])
        try:
            state = load_state(path)
        except ValueError as error:
            assert "damaged" in str(error) or "not an allocator state" in str(error)
            continue
        # Some bytes of a zip file's directory (dates, attributes) mean nothing to us.
        allocator = make_allocator("cero", rollouts_per_prompt=8, epochs=3)
        try:
            allocator.load_state_dict(state)
        except ValueError:
            continue
        np.testing.assert_equal(state, reference)


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.9, 0.999])
def test_truncated(tmp_path, keep):
    path = tmp_path / "state.npz"
    save_state(some_state(), path)
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data))])
    with pytest.raises(ValueError, match="damaged"):
        load_state(path)


def test_foreign(tmp_path):
    path = tmp_path / "state.npz"
    np.savez(path, something=np.arange(3))
    with pytest.raises(ValueError, match="not an allocator state"):
        load_state(path)


def test_missing(tmp_path):
    with pytest.raises(FileNotFoundError):
        load_state(tmp_path / "state.npz")


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "state.npz"
    save_state(some_state(), path)
    before = path.read_bytes()

    def full_disk(*args, **kwargs):
        raise OSError("No space left on device")

    monkeypatch.setattr(np, "savez", full_disk)
    with pytest.raises(OSError):
        save_state(some_state(200), path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["state.npz"]


def test_permissions_follow_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        save_state(some_state(), tmp_path / "state.npz")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "state.npz").stat().st_mode) == 0o640


def test_what_killed_saves_left_is_removed(tmp_path):
    path = tmp_path / "state[1].npz"
    for left in (".state[1].npz.123", ".state[1].npz.tmpabc"):
        (tmp_path / left).write_bytes(b"half of a state")
    (tmp_path / ".state2.npz.1").write_bytes(b"of another file")
    save_state(some_state(), path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".state2.npz.1", "state[1].npz"]


def test_a_compressed_file_is_not_unpacked(tmp_path):
    path = tmp_path / "state.npz"
    np.savez_compressed(path, **{"meta.json": np.zeros(2**24, np.uint8)})
    assert path.stat().st_size < 2**20
    with pytest.raises(ValueError, match="compressed, which no state's is"):
        load_state(path)
    np.savez(path, **{"meta.json": np.zeros(2, np.uint8), "more": np.zeros(2)})
    with pytest.raises(ValueError, match="member 'more.npy', which no state has"):
        load_state(path)


@pytest.mark.parametrize("where", ["scalar", "column"])
def test_what_could_not_be_loaded_is_not_written(tmp_path, where):
    path, state = tmp_path / "state.npz", some_state()
    save_state(state, path)
    before = path.read_bytes()
    if where == "scalar":
        state["scalars"]["price"] = float("nan")
    else:
        state["table"]["slope"][3] = np.inf
    with pytest.raises(ValueError, match="not finite"):
        save_state(state, path)
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["state.npz"]


def test_what_a_killed_save_left_is_no_reason_to_fail(tmp_path):
    """Another account's, say, which can't be removed; here a folder, which nobody unlinks."""
    (tmp_path / ".state.npz.99").mkdir()
    save_state(some_state(), tmp_path / "state.npz")
    assert load_state(tmp_path / "state.npz")["scalars"] == some_state()["scalars"]
