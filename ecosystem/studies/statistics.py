"""Paired comparison of arms with the base arm: effects, intervals, corrected p-values and rankings with ties.

Every seed is a block. With common random numbers (the same named streams in every arm), most of the variation between
seeds is common to both arms of a pair and cancels in their difference. ``python -m benchmarks.coverage`` measures how
often the intervals cover the true value.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats

from ecosystem.errors import DataError
from ecosystem.metrics.intervals import (
    LEVEL,
    ROUNDING,
    Interval,
    constants_allowed,
    mean_interval,
    paired_difference,
    paired_size,
    welch_interval,
)
from ecosystem.types import Floats

PAIRS = 3  # fewest seeds for a correlation; that of two points is always ±1
BOOTSTRAP_SEEDS = 5  # fewest seeds for the bootstrap: with 4 it is twice as wide as Student's, with 3 infinite
MOST_SAVED = 10**15  # largest number of runs saved that is given: a double and a column of whole numbers hold it
_RESAMPLES = 3999  # so that 2.5 % and 97.5 % are whole ranks


@dataclass(frozen=True)
class Effect:
    """The effect of one arm on one measure, from per-seed differences (arm minus base arm).

    ``unpaired`` is Welch's interval of the same difference, which ignores the common seeds. ``correlation`` is that of
    the two arms over seeds. ``saved`` is the number of additional runs that an unpaired comparison would need for the
    standard error of the paired one, at most MOST_SAVED; it is None if the differences do not vary, since no number is
    enough. With fewer than PAIRS seeds, the correlation is NaN and ``saved`` is None. ``bootstrap`` is that of
    :func:`bootstrap_interval`. ``size`` is the effect in standard deviations of the differences
    (:func:`ecosystem.metrics.intervals.paired_size`). ``p`` is from the paired t test; ``holm`` is ``p`` corrected for
    all comparisons of its family (Holm 1979).
    """

    arm: str
    measure: str
    seeds: int
    base_mean: float
    paired: Interval
    size: Interval | None
    bootstrap: Interval | None
    unpaired: Interval
    correlation: float
    saved: int | None
    p: float
    holm: float

    @property
    def narrower(self) -> float:
        """Width of the unpaired interval divided by that of the paired one; infinite if the latter is 0."""
        return self.unpaired.half / self.paired.half if self.paired.half > 0 else float("inf")


def effects(
    measure: str, base: Floats, arms: Mapping[str, Floats], *, level: float = LEVEL, seed: int = 1
) -> list[Effect]:
    """Compare arms with the base arm seed by seed, with Holm's correction over the arms.

    All arrays have shape [seeds]. Raises DataError for fewer than 2 seeds, and for values that are not finite.
    """
    comparisons: list[Effect] = []
    for name, values in arms.items():
        if values.shape != base.shape or values.ndim != 1 or values.size < 2:
            raise DataError(
                f"{measure}: {name} has {values.size} values and the base arm {base.size}; give at least 2 of each."
            )
        if not (np.isfinite(values).all() and np.isfinite(base).all()):
            raise DataError(f"{measure}: a value of {name} or of the base arm is not a finite number.")
        difference = paired_difference(values, base)
        paired = mean_interval(difference, level)
        unpaired = welch_interval(values, base, level)
        enough_pairs = values.size >= PAIRS
        both_vary = _varies(values) and _varies(base)
        comparisons.append(
            Effect(
                arm=name,
                measure=measure,
                seeds=values.size,
                base_mean=float(base.mean()),
                paired=paired,
                size=paired_size(difference),
                bootstrap=bootstrap_interval(difference, level, seed),
                unpaired=unpaired,
                correlation=float(np.corrcoef(values, base)[0, 1]) if enough_pairs and both_vary else float("nan"),
                saved=_runs_saved(values, base, difference) if enough_pairs else None,
                p=p_value(difference),
                holm=float("nan"),
            )
        )
    corrected = holm([effect.p for effect in comparisons])
    return [replace(effect, holm=p) for effect, p in zip(comparisons, corrected, strict=True)]


def bootstrap_interval(x: Floats, level: float = LEVEL, seed: int = 1) -> Interval | None:
    """Return the studentised bootstrap interval of the mean of x [n] (Efron & Tibshirani 1993, section 12.5).

    Quantiles of (mean of a resample - mean) / standard error of the resample replace those of Student's t, so the
    interval follows the skewness of the data. It is None for fewer than BOOTSTRAP_SEEDS values, and for values so alike
    that too many resamples have no standard error, since it would be infinite.
    """
    if x.size < BOOTSTRAP_SEEDS:
        return None
    mean, error = float(x.mean()), float(stats.sem(x))
    if np.ptp(x) == 0:
        return Interval(mean, mean, mean)
    resamples = np.random.default_rng(seed).choice(x, (_RESAMPLES, x.size))
    varied = np.ptp(resamples, axis=1) > 0
    shift = resamples.mean(axis=1) - mean
    t = np.where(shift > 0, math.inf, -math.inf)  # of a resample without a standard error
    t[varied] = shift[varied] / stats.sem(resamples[varied], axis=1)
    t.sort()
    rank = round((1 - level) / 2 * (_RESAMPLES + 1))
    low, high = float(t[rank - 1]), float(t[-rank])
    if not (math.isfinite(low) and math.isfinite(high)):
        return None
    return Interval(mean, mean - high * error, mean - low * error)


def holm(p: Sequence[float]) -> list[float]:
    """Return p-values corrected for multiple comparisons, in their order (family-wise error rate; Holm 1979)."""
    values = np.asarray(p, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    steps = np.maximum.accumulate(values[order] * np.arange(values.size, 0, -1))
    corrected = np.empty_like(values)
    corrected[order] = np.minimum(steps, 1.0)
    p_values: list[float] = corrected.tolist()
    return p_values


def ranking(values: Mapping[str, Floats], *, lower_is_better: bool, level: float = LEVEL) -> list[list[str]]:
    """Rank arms by their mean, best first, in groups of ties.

    An arm joins the group above it if its paired difference from the best arm of that group is not significant, with
    Holm's correction over all pairs. Arms of a group are ordered by their means.
    """
    names = sorted(values, key=lambda name: float(values[name].mean()) * (1 if lower_is_better else -1))
    pairs = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
    p = (
        dict(zip(pairs, holm([p_value(paired_difference(values[a], values[b])) for a, b in pairs]), strict=True))
        if pairs
        else {}
    )
    groups: list[list[str]] = []
    for name in names:
        if groups and p[groups[-1][0], name] > 1 - level:
            groups[-1].append(name)
        else:
            groups.append([name])
    return groups


def p_value(difference: Floats) -> float:
    """Return the two-sided p-value of the paired t test: 1 if all differences are 0, 0 if they are equal otherwise."""
    if np.ptp(difference) == 0:
        return 0.0 if difference.any() else 1.0
    with constants_allowed():
        return float(stats.ttest_1samp(difference, 0.0).pvalue)


def _varies(x: Floats) -> bool:
    """Return whether the values x [n] differ by more than rounding."""
    return bool(np.ptp(x) > ROUNDING * np.abs(x).max())


def _runs_saved(a: Floats, b: Floats, difference: Floats) -> int | None:
    """Return how many more runs (of both arms) an unpaired comparison would need for the same standard error."""
    if np.ptp(difference) == 0:
        return None
    needed = a.size * float((a.var(ddof=1) + b.var(ddof=1)) / difference.var(ddof=1))
    return max(0, round(min(2 * (needed - a.size), MOST_SAVED)))
