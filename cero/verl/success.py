"""How much of a success, from 0 to 1, is a rollout? One mapping, for the sampler and for the trainer."""

import math
from dataclasses import dataclass

from omegaconf import OmegaConf

from cero.core.checks import FLOAT32_ROUNDING, as_numbers, at_ends, shown

LARGEST = 3.4e38  # of single precision, in which verl keeps rewards


@dataclass(frozen=True)
class Success:
    """Map rewards to successes, by the config's section `cero.success`.

    key : None for the reward itself, or a key of the reward function's dict whose value is in [0, 1]
    low, high : float, the worst and the best reward, mapped to 0 and 1
    """

    key: str | None
    low: float
    high: float

    @classmethod
    def from_config(cls, config):
        """Return the `Success` of the section `cero.success` (DictConfig).

        Raises ValueError if `range` is not two finite numbers in ascending order that single precision tells
        apart, or if `key` is no text.
        """
        if config.key is not None and (not isinstance(config.key, str) or not config.key):
            raise ValueError(
                f"cero.success.key={config.key!r} must be text, a key of the reward function's dict, or null "
                "for the reward itself"
            )
        ends = config.range
        if OmegaConf.is_list(ends):
            ends = OmegaConf.to_container(ends, resolve=True)
        good = isinstance(ends, list) and len(ends) == 2
        good = good and all(isinstance(end, int | float) and not isinstance(end, bool) for end in ends)
        if not good or not all(map(math.isfinite, ends)) or not ends[0] < ends[1]:
            raise ValueError(
                f"cero.success.range={ends} must be two finite numbers, [worst, best] reward, in ascending "
                "order, e.g. [0.0, 1.0]"
            )
        size = max(map(abs, ends))
        if size > LARGEST or ends[1] - ends[0] < 4 * FLOAT32_ROUNDING * size or size < 1 / LARGEST:
            raise ValueError(
                f"cero.success.range={ends}: rewards are kept in single precision, which can't tell these "
                "ends apart, or can't hold them; have the reward function return other numbers, e.g. in "
                "[0.0, 1.0]"
            )
        return cls(config.key, float(ends[0]), float(ends[1]))

    def of_reward(self, reward):
        """Return rewards (number or array) mapped linearly, without a check; float array, or a 0-d one.

        A reward within single precision's rounding of an end is that end.
        """
        return (at_ends(reward, self.low, self.high) - self.low) / (self.high - self.low)

    def of_rewards(self, rewards):
        """Return the success of each of `rewards` (float array), where `key` is None. Raises as `of` does."""
        successes = self.of_reward(rewards)
        bad = ~((successes >= 0) & (successes <= 1))
        if bad.any():
            self.of(float(rewards[bad][0]), None)
        return successes

    def of(self, reward, extra_fields):
        """Return the success, in [0, 1], of one rollout.

        Parameters
        ----------
        reward : float
        extra_fields : dict of verl's agent loop; its `reward_extra_info` is the reward function's dict

        Raises
        ------
        ValueError
            If the key is missing, or the success would lie outside [0, 1].
        """
        if self.key is None:
            value = float(self.of_reward(reward))
            if math.isnan(value):
                raise ValueError(
                    f"a reward of {reward} lies outside cero.success.range=[{self.low}, {self.high}]: it is "
                    "no number; mend the reward function (reward.custom_reward_function)"
                )
            if not 0 <= value <= 1:
                raise ValueError(
                    f"a reward of {reward} lies outside cero.success.range=[{self.low}, {self.high}]; set "
                    "the range to the reward's own, or cero.success.key to a key of the reward function's "
                    "dict that is 0 or 1"
                )
            return value
        info = (extra_fields or {}).get("reward_extra_info")
        info = info if isinstance(info, dict) else {}
        if self.key not in info:
            raise ValueError(
                f"cero.success.key={self.key} is not among what the reward function returned "
                f"({', '.join(map(str, info)) or 'only a number'}); name one of these, or null for the "
                "reward itself"
            )
        value = info[self.key]
        if getattr(value, "ndim", None) == 0:  # of NumPy or PyTorch
            value = value.item()
        try:
            value = float(value) if isinstance(value, bool) else as_numbers(self.key, value).item()
        except (ValueError, TypeError):
            raise ValueError(
                f"cero.success.key={self.key} was {shown(value)} for one rollout; have the reward function "
                "return a number in [0, 1] for every data source, or name another key"
            ) from None
        value = float(at_ends(value, 0.0, 1.0))
        if not 0 <= value <= 1:
            raise ValueError(
                f"cero.success.key={self.key} was {value}, which is not in [0, 1]; name one that is"
            )
        return value
