"""Checks of the arguments of closed forms, and arrays over generations."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from ecosystem.errors import DataError
from ecosystem.types import Floats, Ints

SUM_TOLERANCE = 1e-9  # largest difference of the sum of a distribution from 1


def check_at_least(minimum: float, **values: float) -> None:
    """Raise DataError unless every named argument is a finite number of at least ``minimum``."""
    for name, value in values.items():
        if not (value >= minimum and math.isfinite(value)):
            raise DataError(f"{name} must be a finite number of at least {minimum:g}, not {value}.")


def check_positive(**values: float) -> None:
    """Raise DataError unless every named argument is a finite number above 0."""
    for name, value in values.items():
        if not (value > 0 and math.isfinite(value)):
            raise DataError(f"{name} must be a finite number above 0, not {value}.")


def check_share(**values: float) -> None:
    """Raise DataError unless every named argument is between 0 and 1, inclusive."""
    for name, value in values.items():
        if not 0 <= value <= 1:
            raise DataError(f"{name} must be between 0 and 1, not {value}.")


def whole_numbers(name: str, values: ArrayLike, least: int = 0) -> Ints:
    """Return ``values`` as an integer array of the same shape; raise DataError unless all are integers >= ``least``."""
    array = np.asarray(values)
    if array.dtype.kind not in "iu" and array.size:
        raise DataError(f"{name} must hold whole numbers, not values of type {array.dtype}.")
    if (array < least).any():
        raise DataError(f"{name} must hold whole numbers of at least {least}, not {array.min()}.")
    return array.astype(np.int64)


def probabilities(p: ArrayLike) -> Floats:
    """Return ``p`` as a vector (types,); raise DataError unless it is a distribution, up to SUM_TOLERANCE."""
    array = np.asarray(p, np.float64)
    if array.ndim != 1 or array.size == 0:
        raise DataError(f"A distribution must be a vector with at least one type, not an array of shape {array.shape}.")
    if not (array >= 0).all():
        raise DataError("The probabilities of a distribution must not be negative or NaN.")
    if not abs(array.sum() - 1) <= SUM_TOLERANCE:
        raise DataError(f"The probabilities of a distribution must add up to 1, not {array.sum():.12g}.")
    return array


def products(factors: Floats) -> Floats:
    """Return the cumulative products of ``factors``, starting with the empty product 1; one more than ``factors``."""
    return np.concatenate([[1.0], np.cumprod(factors)])


def generations_until(t: Ints) -> Floats:
    """Return the generations 1, 2, ..., max(t) as floats."""
    return np.arange(1, t.max(initial=0) + 1, dtype=np.float64)


def as_floats(values: ArrayLike) -> Floats:
    """Return ``values`` as a float64 array of the same shape."""
    return np.asarray(values, np.float64)
