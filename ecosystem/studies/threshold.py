"""The search for a threshold: bisection for the crossing of a mean over seeds with a limit, and its interval.

The same seeds run at every value of the lever (common random numbers). Their mean is therefore a fixed function of the
lever and can be bisected. Its standard error at each value gives the interval of the crossing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from ecosystem.errors import EcosystemError
from ecosystem.metrics.intervals import LEVEL, Interval, mean_interval, paired_difference
from ecosystem.studies.spec.design import Range
from ecosystem.types import Floats

Evaluate = Callable[[float | int], Floats]
"""Value of the lever → the measure of every seed, shape [seeds]; NaN if a seed has none."""
Curve = Literal["mean", "low", "high"]
"""The mean over seeds as a function of the lever, or an end of its interval."""


@dataclass(frozen=True)
class Threshold:
    """The value of the lever at which the mean over seeds crosses the limit; None if it does not within the range.

    ``low`` and ``high`` are the ends of the 95 % interval: the values at which Student's test does not distinguish the
    mean from the limit, widened by the resolution of the search. If an end coincides with that of the range, the
    interval may extend beyond it.
    """

    value: float | None
    low: float
    high: float
    rising: bool | None  # whether the measure increases with the lever; None: no crossing and no significant change
    predicted: float | None = None  # by the closed form
    tried: dict[float, Floats] = field(default_factory=dict)  # value of the lever → measures, each of shape [seeds]
    untrained: dict[float, str] = field(default_factory=dict)  # value of the lever → trainers that did not train


def most_values(span: Range, precision: float = 0.01) -> int:
    """Return the most values of the lever that :func:`search` may try: both ends, and three bisections."""
    bisections = 2 + 3 * math.ceil(math.log2(1 / precision))
    return min(bisections, round(span.high) - round(span.low) + 1) if span.whole else bisections


def search(evaluate: Evaluate, span: Range, limit: float, precision: float = 0.01, level: float = LEVEL) -> Threshold:
    """Find by bisection where the mean of a measure crosses ``limit``; it must be monotonic in the lever.

    The crossings of the mean and of both ends of its interval are each bisected to ``precision``, a share of the range.
    No value is tried twice. If the mean is on the same side of the limit at both ends of the range, only these ends are
    tried. Raises EcosystemError if a run has no value.
    """
    tried = _TriedValues(evaluate, span, limit, level)
    change = tried.change()
    rising = change.mean > 0
    # Where the measure rises, the upper end of its interval crosses first; where it falls, the lower end.
    ends: tuple[Curve, Curve] = ("high", "low") if rising else ("low", "high")
    centre = tried.crossing("mean", rising, precision)
    crosses = centre[0] < centre[1]
    precision = precision if crosses else 1.0
    first, last = (tried.crossing(curve, rising, precision) for curve in ends)
    return Threshold(
        value=float(span.at(sum(centre) / 2)) if crosses else None,
        low=float(span.at(first[0])),
        high=float(span.at(last[1])),
        rising=rising if crosses or not change.low <= 0 <= change.high else None,
        tried=dict(sorted(tried.measures.items())),
    )


class _TriedValues:
    """The values of the lever tried so far, with the measures of all seeds at each."""

    def __init__(self, evaluate: Evaluate, span: Range, limit: float, level: float) -> None:
        self._evaluate, self._span, self._limit, self._level = evaluate, span, limit, level
        self.measures: dict[float, Floats] = {}

    def change(self) -> Interval:
        """Return the interval of the mean change from one end of the range to the other, paired by seed."""
        return mean_interval(paired_difference(self._at(1.0), self._at(0.0)), self._level)

    def above(self, u: float, curve: Curve) -> float:
        """Return how far a curve is above the limit at the fraction ``u`` of the range."""
        interval = mean_interval(paired_difference(self._at(u), self._limit), self._level)
        return {"mean": interval.mean, "low": interval.low, "high": interval.high}[curve]

    def _at(self, u: float) -> Floats:
        x = self._span.at(u)
        if x not in self.measures:
            self.measures[x] = self._evaluate(x)
            missing = int((~np.isfinite(self.measures[x])).sum())
            if missing:
                raise EcosystemError(
                    f"at {x:g}: {missing} of {self.measures[x].size} runs failed or have no value of the measure at "
                    "its step."
                )
        return self.measures[x]

    def crossing(self, curve: Curve, rising: bool, precision: float) -> tuple[float, float]:
        """Return the two fractions of the range between which a curve crosses the limit.

        If it crosses below the range, both are 0; if above the range or not at all, both are 1.
        """
        sign, low, high = 1 if rising else -1, 0.0, 1.0
        if sign * self.above(low, curve) > 0:
            return low, low
        if sign * self.above(high, curve) < 0:
            return high, high
        while high - low > precision:
            middle = (low + high) / 2
            if self._span.at(middle) in (self._span.at(low), self._span.at(high)):
                break  # neighbouring whole numbers
            low, high = (low, middle) if sign * self.above(middle, curve) > 0 else (middle, high)
        return low, high
