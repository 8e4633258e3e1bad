"""How much of a success, from 0 to 1, is a rollout? One mapping, for the sampler and for the trainer."""

from dataclasses import dataclass


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

        Raises ValueError if `range` is not two numbers in ascending order.
        """
        value = config.range
        low, high = value if value is not None and len(value) == 2 else (None, None)
        if low is None or high is None or not float(low) < float(high):
            raise ValueError(
                f"cero.success.range={value} must be two numbers, [worst, best] reward, in ascending order"
            )
        return cls(config.key, float(low), float(high))

    def of_reward(self, reward):
        """Return rewards (number or array) mapped linearly, without a check."""
        return (reward - self.low) / (self.high - self.low)

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
            if not 0 <= value <= 1:
                raise ValueError(
                    f"a reward of {reward} lies outside cero.success.range=[{self.low}, {self.high}]; set "
                    "the range to the reward's own, or cero.success.key to a key of the reward function's "
                    "dict that is 0 or 1"
                )
            return value
        info = (extra_fields or {}).get("reward_extra_info", {})
        if self.key not in info:
            raise ValueError(
                f"cero.success.key={self.key} is not among what the reward function returned "
                f"({', '.join(info) or 'only a number'}); name one of these, or null for the reward itself"
            )
        value = float(info[self.key])
        if not 0 <= value <= 1:
            raise ValueError(
                f"cero.success.key={self.key} was {value}, which is not in [0, 1]; name one that is"
            )
        return value
