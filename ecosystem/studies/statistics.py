"""Paired comparison of arms: what each changes against the base arm, with intervals, ties and corrected p-values.

Every seed is a block: with common random numbers (the same named streams in every arm) most of what varies between
seeds is the same in both arms of a pair, and drops out of their difference.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from scipy import stats

from ecosystem.errors import DataError
from ecosystem.types import Floats

LEVEL = 0.95
PAIRS = 3  # seeds from which on it can be seen whether two arms vary alike: any two points lie on a line
_RESAMPLES = 4000


@dataclass(frozen=True)
class Interval:
    """An estimate and its ends at the level of confidence."""

    mean: float
    low: float
    high: float

    @property
    def half(self) -> float:
        """Half its width."""
        return (self.high - self.low) / 2

    @property
    def settled(self) -> bool:
        """Whether zero lies outside."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class Effect:
    """One arm against the base arm in one measure: per-seed differences, arm minus base.

    ``unpaired`` is Welch's interval of the same difference, as if the arms had not shared their seeds;
    ``correlation`` is that of the arms over seeds; ``saved`` how many replicates an unpaired comparison would have
    needed beyond those there are, for the paired interval; two seeds say nothing of either (NaN, None). ``p`` is of
    the paired t test, ``holm`` corrected for all comparisons of its family (Holm 1979).
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
        """How many times narrower the paired interval is than the unpaired one; infinite if it has no width."""
        return self.unpaired.half / self.paired.half if self.paired.half > 0 else float("inf")


def effects(
    measure: str, base: Floats, arms: Mapping[str, Floats], *, level: float = LEVEL, seed: int = 1
) -> list[Effect]:
    """Compare arms with the base arm, seed by seed (all arrays of shape [seeds], at least 2); Holm over the arms.

    Raises DataError if a value is missing or there are too few.
    """
    found: list[Effect] = []
    for name, values in arms.items():
        if values.shape != base.shape or values.ndim != 1 or values.size < 2:
            raise DataError(
                f"{measure}: {name} has {values.size} values and the base arm {base.size}; at least 2 of each."
            )
        if not (np.isfinite(values).all() and np.isfinite(base).all()):
            raise DataError(f"{measure}: {name} or the base arm has a value that is not a finite number.")
        difference = values - base
        paired = mean_interval(difference, level)
        unpaired = welch_interval(values, base, level)
        enough = values.size >= PAIRS
        both = enough and np.std(values) > 0 and np.std(base) > 0
        found.append(
            Effect(
                arm=name,
                measure=measure,
                seeds=values.size,
                base_mean=float(base.mean()),
                paired=paired,
                bootstrap=bootstrap_interval(difference, level, seed),
                unpaired=unpaired,
                correlation=float(np.corrcoef(values, base)[0, 1]) if both else float("nan"),
                saved=_saved(values, base, difference) if enough else None,
                p=_p(difference),
                holm=float("nan"),
            )
        )
    corrected = holm([effect.p for effect in found])
    return [Effect(**{**vars(effect), "holm": p}) for effect, p in zip(found, corrected, strict=True)]


def mean_interval(x: Floats, level: float = LEVEL) -> Interval:
    """Student's interval of a mean, x [n]."""
    mean, error = float(x.mean()), stats.sem(x)
    if error == 0:  # of which SciPy knows no interval
        return Interval(mean, mean, mean)
    low, high = stats.t.interval(level, x.size - 1, loc=mean, scale=error)
    return Interval(mean, float(low), float(high))


def welch_interval(a: Floats, b: Floats, level: float = LEVEL) -> Interval:
    """Welch's interval of the difference of two means, as if the samples were independent."""
    mean = float(a.mean() - b.mean())
    if a.std() == b.std() == 0:
        return Interval(mean, mean, mean)
    with _constants_allowed():
        ends = stats.ttest_ind(a, b, equal_var=False).confidence_interval(level)
    return Interval(mean, float(ends.low), float(ends.high))


def bootstrap_interval(x: Floats, level: float = LEVEL, seed: int = 1) -> Interval:
    """Percentile bootstrap of a mean over seeds, widened by sqrt(n / (n - 1)) as Efron & Tibshirani do for small n."""
    rng = np.random.default_rng(seed)
    found = stats.bootstrap((x,), np.mean, n_resamples=_RESAMPLES, confidence_level=level, method="percentile", rng=rng)
    mean, wider = float(x.mean()), math.sqrt(x.size / (x.size - 1))
    ends = found.confidence_interval
    return Interval(mean, mean + wider * (float(ends.low) - mean), mean + wider * (float(ends.high) - mean))


def holm(p: Sequence[float]) -> list[float]:
    """Correct p-values for their number so that the chance of any false one stays at the level (Holm 1979)."""
    values = np.asarray(p, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    steps = np.maximum.accumulate(values[order] * np.arange(values.size, 0, -1))
    corrected = np.empty_like(values)
    corrected[order] = np.minimum(steps, 1.0)
    found: list[float] = corrected.tolist()
    return found


def ranking(values: Mapping[str, Floats], *, lower_is_better: bool, level: float = LEVEL) -> list[list[str]]:
    """Order arms by their mean, best first, in groups of ties: neighbours whose paired difference is not settled.

    An arm joins the group above it if it cannot be told from the best of that group, all comparisons being corrected by
    Holm's method; the order within a group is that of the means.
    """
    names = sorted(values, key=lambda name: float(values[name].mean()) * (1 if lower_is_better else -1))
    pairs = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
    p = dict(zip(pairs, holm([_p(values[a] - values[b]) for a, b in pairs]), strict=True)) if pairs else {}
    groups: list[list[str]] = []
    for name in names:
        if groups and p[groups[-1][0], name] > 1 - level:
            groups[-1].append(name)
        else:
            groups.append([name])
    return groups


def _p(difference: Floats) -> float:
    """Two-sided p of the paired t test; 1 where nothing differs, 0 where all seeds differ by exactly the same."""
    if not difference.any():
        return 1.0
    with _constants_allowed():
        return float(stats.ttest_1samp(difference, 0.0).pvalue)


@contextmanager
def _constants_allowed() -> Iterator[None]:
    """Silence SciPy's warning about samples with next to no spread, for which its results are right."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Precision loss occurred", RuntimeWarning)
        yield


def _saved(a: Floats, b: Floats, difference: Floats) -> int:
    """Replicates an unpaired comparison needs for the same standard error, less those there are (both arms counted)."""
    paired = difference.var(ddof=1)
    if paired == 0:
        return 0
    needed = a.size * (a.var(ddof=1) + b.var(ddof=1)) / paired
    return max(0, round(2 * (float(needed) - a.size)))
