"""What is a prompt's cumulative allocation worth? Concave utilities, their derivatives and conjugates.

Every utility is U(y) = v u(y) with the prompt's value v as a factor and u'(0) = 1: the first rollout is worth
the value itself. `scale` is the saturation scale t, in rollouts. That the utility is concave and saturating
is the abstract's (arXiv 2606.05606); these three forms are ours. With the price m = v x, the slope x in (0,
1]:

    conjugate  U_*(m) = inf_y { m y - U(y) } = v u_*(x),   U(y) = inf_m { m y - U_*(m) }

so that one normalised function of x serves every v.
"""

import numpy as np


class Exponential:
    """u(y) = t (1 - exp(-y/t)); saturates at t."""

    name = "exp"

    @staticmethod
    def value(y, scale):
        """u(y), in rollouts, for y >= 0."""
        return -scale * np.expm1(-np.asarray(y) / scale)

    @staticmethod
    def slope(y, scale):
        """u'(y), in (0, 1]."""
        return np.exp(-np.asarray(y) / scale)

    @staticmethod
    def demand(slope, scale):
        """y*(x) = (u')^-1(x), in rollouts, for 0 < x <= 1."""
        return -scale * np.log(slope)

    @staticmethod
    def conjugate(slope, scale):
        """u_*(x) = inf_y { x y - u(y) }, 0 < x <= 1."""
        slope = np.asarray(slope)
        return scale * (-slope * np.log(slope) - 1.0 + slope)


class Rational:
    """u(y) = t y / (y + t); saturates at t, more slowly than `exp`."""

    name = "rational"

    @staticmethod
    def value(y, scale):
        """u(y), in rollouts, for y >= 0."""
        y = np.asarray(y)
        return scale * y / (y + scale)

    @staticmethod
    def slope(y, scale):
        """u'(y), in (0, 1]."""
        return (scale / (np.asarray(y) + scale)) ** 2

    @staticmethod
    def demand(slope, scale):
        """y*(x) = (u')^-1(x), in rollouts, for 0 < x <= 1."""
        return scale * (1.0 / np.sqrt(slope) - 1.0)

    @staticmethod
    def conjugate(slope, scale):
        """u_*(x) = inf_y { x y - u(y) }, 0 < x <= 1."""
        return -scale * (1.0 - np.sqrt(slope)) ** 2


class Logarithmic:
    """u(y) = t ln(1 + y/t); never saturates: for ablations."""

    name = "log"

    @staticmethod
    def value(y, scale):
        """u(y), in rollouts, for y >= 0."""
        return scale * np.log1p(np.asarray(y) / scale)

    @staticmethod
    def slope(y, scale):
        """u'(y), in (0, 1]."""
        return scale / (scale + np.asarray(y))

    @staticmethod
    def demand(slope, scale):
        """y*(x) = (u')^-1(x), in rollouts, for 0 < x <= 1."""
        return scale * (1.0 / np.asarray(slope) - 1.0)

    @staticmethod
    def conjugate(slope, scale):
        """u_*(x) = inf_y { x y - u(y) }, 0 < x <= 1."""
        slope = np.asarray(slope)
        return scale * (1.0 - slope + np.log(slope))


UTILITIES = {utility.name: utility for utility in (Exponential, Rational, Logarithmic)}
