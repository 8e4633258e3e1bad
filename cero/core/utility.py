"""What is a prompt's cumulative allocation worth? Concave utilities, their derivatives and conjugates.

Every utility is U(y) = v u(y) of the prompt's cumulative rollouts y, with the prompt's value v as a factor
and u'(0) = 1: the first rollout is worth the value itself. `scale` is the saturation scale t > 0, in
rollouts. That the utility is concave and saturating is in CERO's abstract (arXiv 2606.05606); the three forms
are this project's.

With the price m = v x and the slope x in (0, 1]:

    conjugate  U_*(m) = inf_y { m y - U(y) } = v u_*(x),   U(y) = inf_m { m y - U_*(m) }

So one normalised function of x serves every v. Arguments are numbers or arrays of shape (n,); results have
their shape.
"""

from collections.abc import Mapping
from typing import Literal, Protocol

import numpy as np
from numpy.typing import ArrayLike

from cero.core.arrays import FloatOrFloats, Floats

UtilityName = Literal["exp", "rational", "log"]


class Utility(Protocol):
    """What every utility offers."""

    name: str

    @staticmethod
    def value(y: ArrayLike, scale: float) -> Floats:
        """Return u(y), in rollouts, for y >= 0."""

    @staticmethod
    def slope(y: ArrayLike, scale: float) -> Floats:
        """Return u'(y), in (0, 1], for y >= 0."""

    @staticmethod
    def demand(slope: FloatOrFloats, scale: float) -> Floats:
        """Return y*(x) = (u')^-1(x), in rollouts, for 0 < x <= 1."""

    @staticmethod
    def conjugate(slope: ArrayLike, scale: float) -> Floats:
        """Return u_*(x) = inf_y { x y - u(y) }, in rollouts, for 0 < x <= 1."""


class Exponential:
    """u(y) = t (1 - exp(-y/t)); saturates at t."""

    name = "exp"

    @staticmethod
    def value(y: ArrayLike, scale: float) -> Floats:
        """Return u(y), in rollouts, for y >= 0."""
        return -scale * np.expm1(-np.asarray(y) / scale)

    @staticmethod
    def slope(y: ArrayLike, scale: float) -> Floats:
        """Return u'(y), in (0, 1], for y >= 0."""
        return np.exp(-np.asarray(y) / scale)

    @staticmethod
    def demand(slope: FloatOrFloats, scale: float) -> Floats:
        """Return y*(x) = (u')^-1(x), in rollouts, for 0 < x <= 1."""
        return -scale * np.log(slope)

    @staticmethod
    def conjugate(slope: ArrayLike, scale: float) -> Floats:
        """Return u_*(x) = inf_y { x y - u(y) }, in rollouts, for 0 < x <= 1."""
        slope = np.asarray(slope)
        return scale * (-slope * np.log(slope) - 1.0 + slope)


class Rational:
    """u(y) = t y / (y + t); saturates at t, more slowly than `exp`."""

    name = "rational"

    @staticmethod
    def value(y: ArrayLike, scale: float) -> Floats:
        """Return u(y), in rollouts, for y >= 0."""
        y = np.asarray(y)
        return scale * y / (y + scale)

    @staticmethod
    def slope(y: ArrayLike, scale: float) -> Floats:
        """Return u'(y), in (0, 1], for y >= 0."""
        return (scale / (np.asarray(y) + scale)) ** 2

    @staticmethod
    def demand(slope: FloatOrFloats, scale: float) -> Floats:
        """Return y*(x) = (u')^-1(x), in rollouts, for 0 < x <= 1."""
        return scale * (1.0 / np.sqrt(slope) - 1.0)

    @staticmethod
    def conjugate(slope: ArrayLike, scale: float) -> Floats:
        """Return u_*(x) = inf_y { x y - u(y) }, in rollouts, for 0 < x <= 1."""
        return -scale * (1.0 - np.sqrt(slope)) ** 2


class Logarithmic:
    """u(y) = t ln(1 + y/t); never saturates: for ablations."""

    name = "log"

    @staticmethod
    def value(y: ArrayLike, scale: float) -> Floats:
        """Return u(y), in rollouts, for y >= 0."""
        return scale * np.log1p(np.asarray(y) / scale)

    @staticmethod
    def slope(y: ArrayLike, scale: float) -> Floats:
        """Return u'(y), in (0, 1], for y >= 0."""
        return scale / (scale + np.asarray(y))

    @staticmethod
    def demand(slope: FloatOrFloats, scale: float) -> Floats:
        """Return y*(x) = (u')^-1(x), in rollouts, for 0 < x <= 1."""
        return scale * (1.0 / np.asarray(slope) - 1.0)

    @staticmethod
    def conjugate(slope: ArrayLike, scale: float) -> Floats:
        """Return u_*(x) = inf_y { x y - u(y) }, in rollouts, for 0 < x <= 1."""
        slope = np.asarray(slope)
        return scale * (1.0 - slope + np.log(slope))


_ALL: tuple[type[Utility], ...] = (Exponential, Rational, Logarithmic)
UTILITIES: Mapping[str, type[Utility]] = {utility.name: utility for utility in _ALL}
