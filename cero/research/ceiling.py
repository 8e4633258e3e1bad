"""How much of what an oracle gains does a contender gain? Its share of the ceiling.

    share = (contender - even) / (oracle - even)

*Even* gives every prompt the same rollouts, the *oracle* knows every prompt's success probability, and all
three train on the same task, shape of a step and seeds. Where the ceiling itself, oracle - even, can't be
told from zero, a share of it means nothing, and there is none. Source: this project.
"""

import math
from typing import NamedTuple

import numpy as np
from scipy import stats

LEVEL = 0.95


class Share(NamedTuple):
    """Holds a share of the ceiling and its standard error; both nan where there is none."""

    value: float
    error: float

    def __str__(self):
        if math.isnan(self.value):
            return "-"
        return f"{self.value:.2f}" + ("" if math.isnan(self.error) else f" ± {self.error:.2f}")


NO_SHARE = Share(math.nan, math.nan)


class MeanGain(NamedTuple):
    """Holds the mean of paired differences, its standard error (nan for a single pair), and their number."""

    mean: float
    error: float
    pairs: int

    @classmethod
    def of(cls, gains):
        """Return the mean gain of `gains`, shape (pairs,)."""
        gains = np.asarray(gains, np.float64)
        if not gains.size:
            return cls(math.nan, math.nan, 0)
        error = float(gains.std(ddof=1) / math.sqrt(gains.size)) if gains.size > 1 else math.nan
        return cls(float(gains.mean()), error, gains.size)

    @property
    def is_above_zero(self):
        """Return whether the lower end of Student's 95 % interval is above 0; False for a single pair."""
        if self.pairs < 2:
            return False
        return self.mean > stats.t.ppf(0.5 + LEVEL / 2, self.pairs - 1) * self.error


def paired_share(gains, ceilings):
    """Return the `Share` of contender and oracle that were compared with even on the same seeds.

    The error is that of a ratio of means, from the residuals gain - share x ceiling of each pair.

    Parameters
    ----------
    gains, ceilings : floats, shape (pairs,): contender - even and oracle - even, seed by seed

    Returns
    -------
    `Share`; without one if the ceiling can't be told from zero
    """
    gains, ceilings = np.asarray(gains, np.float64), np.asarray(ceilings, np.float64)
    ceiling = MeanGain.of(ceilings)
    if not ceiling.is_above_zero:
        return NO_SHARE
    value = float(gains.mean()) / ceiling.mean
    return Share(value, MeanGain.of(gains - value * ceilings).error / ceiling.mean)


def separate_share(gains, ceiling):
    """Return the `Share` where the ceiling was measured in other runs.

    The error adds up the variances of both, each relative to the ceiling.

    Parameters
    ----------
    gains : floats, shape (pairs,): contender - even, seed by seed
    ceiling : `MeanGain` of oracle - even, in the same units

    Returns
    -------
    `Share`; without one if there are no pairs, or if the ceiling can't be told from zero
    """
    gain = MeanGain.of(gains)
    if not gain.pairs or not ceiling.is_above_zero:
        return NO_SHARE
    value = gain.mean / ceiling.mean
    return Share(value, math.hypot(gain.error, value * ceiling.error) / ceiling.mean)
