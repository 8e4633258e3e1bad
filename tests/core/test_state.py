"""State files: torn, damaged and foreign ones are refused; a failed write leaves the old one."""

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
