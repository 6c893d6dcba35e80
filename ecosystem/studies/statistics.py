"""Paired comparison of arms with the base arm: effects, intervals, corrected p-values and rankings with ties.

Every seed is a block. With common random numbers (the same named streams in every arm), most of the variation between
seeds is common to both arms of a pair and cancels in their difference.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats

from ecosystem.errors import DataError
from ecosystem.types import Floats

LEVEL = 0.95
PAIRS = 3  # fewest seeds for a correlation; that of two points is always ±1
_RESAMPLES = 4000


@dataclass(frozen=True)
class Interval:
    """A mean and the ends of its confidence interval."""

    mean: float
    low: float
    high: float

    @property
    def half(self) -> float:
        """Half the width of the interval."""
        return (self.high - self.low) / 2

    @property
    def significant(self) -> bool:
        """Whether the interval excludes zero."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class Effect:
    """The effect of one arm on one measure, from per-seed differences (arm minus base arm).

    ``unpaired`` is Welch's interval of the same difference, which ignores the common seeds. ``correlation`` is that of
    the two arms over seeds. ``saved`` is the number of additional runs that an unpaired comparison would need for the
    standard error of the paired one. With fewer than PAIRS seeds, the correlation is NaN and ``saved`` is None. ``p``
    is from the paired t test; ``holm`` is ``p`` corrected for all comparisons of its family (Holm 1979).
    """

    arm: str
    measure: str
    seeds: int
    base_mean: float
    paired: Interval
    bootstrap: Interval
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
        difference = values - base
        paired = mean_interval(difference, level)
        unpaired = welch_interval(values, base, level)
        enough_pairs = values.size >= PAIRS
        both_vary = np.std(values) > 0 and np.std(base) > 0
        comparisons.append(
            Effect(
                arm=name,
                measure=measure,
                seeds=values.size,
                base_mean=float(base.mean()),
                paired=paired,
                bootstrap=bootstrap_interval(difference, level, seed),
                unpaired=unpaired,
                correlation=float(np.corrcoef(values, base)[0, 1]) if enough_pairs and both_vary else float("nan"),
                saved=_runs_saved(values, base, difference) if enough_pairs else None,
                p=_p_value(difference),
                holm=float("nan"),
            )
        )
    corrected = holm([effect.p for effect in comparisons])
    return [replace(effect, holm=p) for effect, p in zip(comparisons, corrected, strict=True)]


def mean_interval(x: Floats, level: float = LEVEL) -> Interval:
    """Return Student's interval of the mean of x [n]."""
    mean, error = float(x.mean()), stats.sem(x)
    if error == 0:  # SciPy's interval would be NaN
        return Interval(mean, mean, mean)
    low, high = stats.t.interval(level, x.size - 1, loc=mean, scale=error)
    return Interval(mean, float(low), float(high))


def welch_interval(a: Floats, b: Floats, level: float = LEVEL) -> Interval:
    """Return Welch's interval of the difference of the means of two independent samples, a [n] minus b [m]."""
    mean = float(a.mean() - b.mean())
    if a.std() == b.std() == 0:
        return Interval(mean, mean, mean)
    with _constants_allowed():
        ends = stats.ttest_ind(a, b, equal_var=False).confidence_interval(level)
    return Interval(mean, float(ends.low), float(ends.high))


def bootstrap_interval(x: Floats, level: float = LEVEL, seed: int = 1) -> Interval:
    """Return the percentile bootstrap interval of the mean of x [n].

    It is widened by sqrt(n / (n - 1)), Efron & Tibshirani's correction for small n.
    """
    rng = np.random.default_rng(seed)
    result = stats.bootstrap(
        (x,), np.mean, n_resamples=_RESAMPLES, confidence_level=level, method="percentile", rng=rng
    )
    mean, factor = float(x.mean()), math.sqrt(x.size / (x.size - 1))
    ends = result.confidence_interval
    return Interval(mean, mean + factor * (float(ends.low) - mean), mean + factor * (float(ends.high) - mean))


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
    p = dict(zip(pairs, holm([_p_value(values[a] - values[b]) for a, b in pairs]), strict=True)) if pairs else {}
    groups: list[list[str]] = []
    for name in names:
        if groups and p[groups[-1][0], name] > 1 - level:
            groups[-1].append(name)
        else:
            groups.append([name])
    return groups


def _p_value(difference: Floats) -> float:
    """Return the two-sided p-value of the paired t test: 1 if all differences are 0, 0 if they are equal otherwise."""
    if not difference.any():
        return 1.0
    with _constants_allowed():
        return float(stats.ttest_1samp(difference, 0.0).pvalue)


@contextmanager
def _constants_allowed() -> Iterator[None]:
    """Silence SciPy's warning about nearly constant samples; its results for them are correct."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Precision loss occurred", RuntimeWarning)
        yield


def _runs_saved(a: Floats, b: Floats, difference: Floats) -> int:
    """Return how many more runs (of both arms) an unpaired comparison would need for the same standard error."""
    paired = difference.var(ddof=1)
    if paired == 0:
        return 0
    needed = a.size * (a.var(ddof=1) + b.var(ddof=1)) / paired
    return max(0, round(2 * (float(needed) - a.size)))
