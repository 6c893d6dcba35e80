"""The domains of the arguments of closed forms, and arrays of generations."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from ecosystem.errors import DataError
from ecosystem.types import Floats, Ints

SUM_TOLERANCE = 1e-9  # how far from one the sum of a distribution may be


def check_at_least(least: float, **values: float) -> None:
    """Raise DataError for a named argument that is not a finite number of at least ``least``."""
    for name, value in values.items():
        if not (value >= least and math.isfinite(value)):
            raise DataError(f"{name} must be a finite number of at least {least:g}, not {value}.")


def check_positive(**values: float) -> None:
    """Raise DataError for a named argument that is not a finite number above 0."""
    for name, value in values.items():
        if not (value > 0 and math.isfinite(value)):
            raise DataError(f"{name} must be a finite number above 0, not {value}.")


def check_share(**values: float) -> None:
    """Raise DataError for a named argument outside the interval from 0 to 1."""
    for name, value in values.items():
        if not 0 <= value <= 1:
            raise DataError(f"{name} must lie between 0 and 1, not {value}.")


def whole_numbers(name: str, values: ArrayLike, least: int = 0) -> Ints:
    """Return ``values`` as an integer array of their shape; raise DataError unless all are integers >= ``least``."""
    array = np.asarray(values)
    if array.dtype.kind not in "iu" and array.size:
        raise DataError(f"{name} must hold whole numbers, not values of type {array.dtype}.")
    if (array < least).any():
        raise DataError(f"{name} must hold whole numbers of at least {least}, not {array.min()}.")
    return array.astype(np.int64)


def probabilities(p: ArrayLike) -> Floats:
    """Return a distribution as a vector (types,); raise DataError unless it is one (see SUM_TOLERANCE)."""
    array = np.asarray(p, np.float64)
    if array.ndim != 1 or array.size == 0:
        raise DataError(f"A distribution must be a vector with at least one type, not an array of shape {array.shape}.")
    if not (array >= 0).all():
        raise DataError("A distribution must hold no negative probability and no NaN.")
    if not abs(array.sum() - 1) <= SUM_TOLERANCE:
        raise DataError(f"The probabilities of a distribution must add up to 1, not {array.sum():.12g}.")
    return array


def products(factors: Floats) -> Floats:
    """Return the products of the first 0, 1, 2, ... factors."""
    return np.concatenate([[1.0], np.cumprod(factors)])


def generations_until(t: Ints) -> Floats:
    """Return 1, 2, ..., up to the last generation asked for."""
    return np.arange(1, t.max(initial=0) + 1, dtype=np.float64)


def as_floats(values: ArrayLike) -> Floats:
    """Return ``values`` as an array of float64, of their shape."""
    return np.asarray(values, np.float64)
