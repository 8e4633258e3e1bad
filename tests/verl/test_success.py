"""Rewards in single precision, as verl keeps them, and ranges that are none."""

import numpy as np
import pytest
import torch

from cero import make_allocator
from cero.verl.reading import read_settings
from cero.verl.success import Success

RUN = ["+recipe=cero", "actor_rollout_ref.rollout.n=8"]


@pytest.mark.parametrize(
    "low, high", [(0.0, 1.1), (-0.1, 0.7), (0.3, 0.9), (-1.7, -0.1), (0.0, 1.0), (-5.0, 1e4)]
)
def test_an_end_in_single_precision_is_that_end(low, high):
    mapping = Success(None, low, high)
    ends = np.array([low, high], np.float32).astype(np.float64)
    assert mapping.of_rewards(ends).tolist() == [0.0, 1.0]
    assert [mapping.of(float(end), None) for end in ends] == [0.0, 1.0]
    assert mapping.of_reward(ends).tolist() == [0.0, 1.0]
    inside = low + (high - low) * np.array([0.1, 0.5, 0.999])
    np.testing.assert_array_equal(mapping.of_rewards(inside), (inside - low) / (high - low))


@pytest.mark.parametrize("beyond", [1.1001, -1e-3, np.inf, np.nan])
def test_what_is_beyond_an_end_is_refused(beyond):
    with pytest.raises(ValueError, match=r"lies outside cero.success.range=\[0.0, 1.1\]"):
        Success(None, 0.0, 1.1).of_rewards(np.array([0.5, beyond]))


def test_a_key_and_a_pass_rate_in_single_precision():
    info = {"reward_extra_info": {"acc": float(np.float32(1) + np.finfo(np.float32).eps)}}
    assert Success("acc", 0.0, 1.0).of(0.0, info) == 1.0
    allocator = make_allocator("cero", rollouts_per_prompt=8, epochs=2)
    allocator.set_pass_rates(["a", "b"], [1 + 2.0**-23, -(2.0**-24)])
    np.testing.assert_allclose(allocator.success_mean(["a", "b"]), [5 / 6, 1 / 6])
    with pytest.raises(ValueError, match="pass_rates=.*1.01"):
        allocator.set_pass_rates(["c"], [1.01])


@pytest.mark.parametrize(
    "ends",
    [
        "1",
        "[1]",
        "[0,1,2]",
        "[a,b]",
        "[0,.inf]",
        "[.nan,1]",
        "[1,0]",
        "[1,1]",
        "null",
        "[true,2]",
        "[null,1]",
    ],
)
def test_ends_that_are_none(composed, ends):
    with pytest.raises(
        ValueError, match=r"cero.success.range=.* must be two finite numbers, \[worst, best\]"
    ):
        read_settings(composed(*RUN, f"cero.success.range={ends}"))


def test_whether_to_log_is_a_yes_or_no(composed):
    with pytest.raises(ValueError, match="cero.log_allocations='maybe'"):
        read_settings(composed(*RUN, "cero.log_allocations=maybe"))


def test_a_run_that_only_validates_writes_no_log(composed):
    def logs(*overrides):
        return read_settings(composed(*RUN, *overrides)).log_allocations

    assert logs() and not logs("trainer.val_only=True")
    assert logs("trainer.val_only=True", "trainer.val_before_train=False")  # verl trains then


@pytest.mark.parametrize("value", [None, "right"])
def test_a_key_without_a_number(value):
    with pytest.raises(
        ValueError, match=f"cero.success.key=acc was {value!r} for one rollout.*every data source"
    ):
        Success("acc", 0.0, 1.0).of(1.0, {"reward_extra_info": {"acc": value}})


def test_a_reward_that_is_no_number_is_the_reward_functions_fault():
    with pytest.raises(ValueError, match="no number; mend the reward function"):
        Success(None, 0.0, 1.0).of(float("nan"), None)


@pytest.mark.parametrize(
    "ends", ["[-1e308,1e308]", "[0,1e39]", "[1e8,100000010.0]", "[0.9999999,1.0]", "[0,1e-46]"]
)
def test_a_range_whose_ends_single_precision_can_not_tell_apart(composed, ends):
    """Between -1e308 and 1e308 every success was 0, between 1e8 and 1e8 + 10 every one was 1."""
    with pytest.raises(ValueError, match=r"cero.success.range=\[.*single precision.*\[0.0, 1.0\]"):
        read_settings(composed(*RUN, f"cero.success.range={ends}"))


@pytest.mark.parametrize(
    "value",
    [b"1", np.timedelta64(1, "D"), {}, [], [1.0, 0.0], 1j, 10**400, object(), np.str_("1"), None],
    ids=lambda value: type(value).__name__,
)
def test_a_key_whose_value_is_no_number(value):
    with pytest.raises(ValueError, match="cero.success.key=acc was .*return a number in"):
        Success("acc", 0.0, 1.0).of(0.0, {"reward_extra_info": {"acc": value}})


@pytest.mark.parametrize(
    "value", [True, np.bool_(True), np.float16(1), np.array(1.0), torch.tensor(1.0, dtype=torch.bfloat16), 1]
)
def test_a_key_whose_value_is_plainly_a_number(value):
    assert Success("acc", 0.0, 1.0).of(0.0, {"reward_extra_info": {"acc": value}}) == 1.0


@pytest.mark.parametrize("info", [None, [1], {1: 1.0}])
def test_a_key_that_is_not_there(info):
    with pytest.raises(ValueError, match="cero.success.key=acc is not among"):
        Success("acc", 0.0, 1.0).of(0.0, {"reward_extra_info": info})


@pytest.mark.parametrize("key", ["1", "true", "[acc]", "{a: 1}", "''"])
def test_a_key_is_text(composed, key):
    with pytest.raises(ValueError, match="cero.success.key=.* must be text"):
        read_settings(composed(*RUN, "algorithm.adv_estimator=grpo", f"cero.success.key={key}"))
