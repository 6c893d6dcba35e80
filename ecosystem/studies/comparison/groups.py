"""Runs in groups of one scenario, their metrics over seeds, and differences between groups."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from ecosystem.errors import EcosystemError, ScenarioError
from ecosystem.metrics.estimates import error_of_mean
from ecosystem.metrics.intervals import LEVEL, Interval, independent_comparison, paired_comparison
from ecosystem.runs.run import Run
from ecosystem.scenario.scenario import Scenario

SCOPES = ("trainer", "training_set", "community", "web", "instrument", "site_type")
WEB = "web"
SERIES = {"group": pl.String, "seed": pl.Int64, "scope": pl.String, "of": pl.String, "metric": pl.String}
KEY = ("scope", "of", "metric")
OVER_SEEDS = ("group", *KEY, "step", "seeds", "mean", "error", "low", "high")
_NOT_COMPARED = ("name", "description", "knobs", "variants", "seed", "placement")
_NORMAL = 1.959964  # two-sided 95 % quantile of the normal distribution
_LONGEST = 60  # characters of a value in a list of settings


@dataclass(frozen=True)
class Group:
    """Runs of one scenario with different seeds, in the order of their seeds."""

    name: str
    runs: tuple[Run, ...]

    @property
    def scenario(self) -> Scenario:
        """The scenario of the runs; they differ in their seeds, and perhaps in their number of steps."""
        return self.runs[0].scenario

    @property
    def last_step(self) -> int:
        """The last step that all runs have."""
        return min(run.last_step for run in self.runs)


def open_runs(places: Iterable[Path]) -> list[Run]:
    """Open run folders; a folder that holds runs of one scenario, one for each seed, stands for all of them.

    Raises EcosystemError if a folder is given twice or is no run.
    """
    runs: dict[Path, Run] = {}
    for place in places:
        inside = [file.parent for file in place.glob("*/scenario.toml") if file.parent.name.isdecimal()]
        for folder in [place] if (place / "scenario.toml").exists() or not inside else sorted(inside, key=_seed):
            if folder.resolve() in runs:
                raise EcosystemError(f"{folder}: is given twice; name every run once.")
            runs[folder.resolve()] = Run.open(folder)
    return list(runs.values())


def _seed(folder: Path) -> int:
    return int(folder.name)


def groups_of(runs: Sequence[Run]) -> list[Group]:
    """Put runs of one scenario (by its fingerprint) into one group, in the order of their first runs.

    Raises ScenarioError if two runs of one scenario have the same seed.
    """
    members: dict[str, list[Run]] = {}
    for run in runs:
        members.setdefault(run.scenario.fingerprint(), []).append(run)
    names = [group[0].scenario.name for group in members.values()]
    groups = []
    for (fingerprint, group), name in zip(members.items(), names, strict=True):
        seeds = [run.seed for run in group]
        if len(set(seeds)) < len(seeds):
            seed = next(seed for seed in seeds if seeds.count(seed) > 1)
            twice = " and ".join(str(run.path) for run in group if run.seed == seed)
            raise ScenarioError(
                f"{twice} are runs of one scenario with seed {seed}, since a name and a number of steps make no other "
                "scenario; name one run for each seed."
            )
        shown = name if names.count(name) == 1 else f"{name}-{fingerprint[:6]}"
        groups.append(Group(shown, tuple(sorted(group, key=lambda run: run.seed))))
    return groups


def courses(group: Group, last: int) -> pl.DataFrame:
    """Return the metrics of every run up to a step: the columns of SERIES, step, value and error.

    Metrics of trainers and training sets are means over the trainers of a population. Their error is the larger of the
    mean error of a trainer and the standard error over trainers, since trainers are measured on the same text.
    """
    parts = []
    for run in group.runs:
        rows = run.store.table("metrics").filter(
            pl.col("scope").is_in(SCOPES) & (pl.col("step") <= last) & pl.col("value").is_finite()
        )
        own = pl.col("scope").is_in(["trainer", "training_set", "community"])
        rows = rows.with_columns(of=pl.when(own).then(pl.col("id").str.split("/").list.first()).otherwise("id"))
        spread = (pl.col("value").std() / pl.len().sqrt()).fill_null(0.0)
        means = rows.group_by("scope", "of", "metric", "step", maintain_order=True).agg(
            pl.col("value").mean(), error=pl.max_horizontal(pl.col("error").mean(), spread)
        )
        parts.append(means.select(group=pl.lit(group.name), seed=pl.lit(run.seed, pl.Int64), **_columns(means)))
    return pl.concat(parts)


def _columns(frame: pl.DataFrame) -> dict[str, pl.Expr]:
    return {name: pl.col(name) for name in (*KEY, "step", "value", "error")}


def over_seeds(series: pl.DataFrame) -> pl.DataFrame:
    """Return mean, standard error and 95 % interval over seeds of every metric: OVER_SEEDS, mean, error, low, high.

    ``series`` is that of :func:`courses`. The interval is Student's; it and the error are null for one seed.
    """
    from scipy import stats

    means = series.group_by("group", *KEY, "step", maintain_order=True).agg(
        seeds=pl.len().cast(pl.Int64), mean=pl.col("value").mean(), error=error_of_mean("value")
    )
    counts = [n for n in means["seeds"].unique() if n > 1]
    quantiles = {n: float(stats.t.ppf((1 + LEVEL) / 2, n - 1)) for n in counts}
    half = pl.col("error") * pl.col("seeds").replace_strict(quantiles, default=None, return_dtype=pl.Float64)
    means = means.with_columns(low=pl.col("mean") - half, high=pl.col("mean") + half)
    return means.select(*OVER_SEEDS)


def differences(series: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """Return the difference of every group to the first in every metric they share, at the last step of ``series``.

    ``by`` says how the interval was found: paired by common seeds (Student's, of the differences), from independent
    seeds (Welch's), or from errors of measurement alone if there is one run of each, which leaves out how much runs
    differ by chance. ``size`` is Hedges' g, of paired differences or of independent samples, null below three seeds.
    Columns: group, scope, of, metric, base, value, difference, low, high, size, size_low, size_high, seeds, by.
    """
    last = min(int(frame["step"].max() or 0) for frame in series)  # type: ignore[arg-type]
    base, *others = [frame.filter(pl.col("step") == last) for frame in series]
    tables = dict(iter(base.group_by(*KEY, maintain_order=True)))
    rows = []
    for other in others:
        for key, values in other.group_by(*KEY, maintain_order=True):
            if (first := tables.get(key)) is not None:
                interval, size, seeds, by = _difference(values, first)
                means = float(first["value"].mean()), float(values["value"].mean())  # type: ignore[arg-type]
                sizes = (None, None, None) if size is None else (size.mean, size.low, size.high)
                ends = (interval.mean, interval.low, interval.high)
                rows.append((values["group"][0], *key, *means, *ends, *sizes, seeds, by))
    floats = ("base", "value", "difference", "low", "high", "size", "size_low", "size_high")
    schema = {"group": pl.String, **dict.fromkeys(KEY, pl.String), **dict.fromkeys(floats, pl.Float64)}
    return pl.DataFrame(rows, schema={**schema, "seeds": pl.Int64, "by": pl.String}, orient="row")


def _difference(values: pl.DataFrame, base: pl.DataFrame) -> tuple[Interval, Interval | None, int, str]:
    """Return the interval of a difference, its effect size, the number of seeds of both, and how they were found."""
    common = values.join(base, on="seed", suffix="_base").sort("seed")
    if common.height > 1:
        return *paired_comparison(*_arrays(common, "value", "value_base")), common.height, "paired seeds"
    if values.height > 1 and base.height > 1:
        a, b = values["value"].to_numpy(), base["value"].to_numpy()
        return *independent_comparison(a, b), min(a.size, b.size), "independent seeds"
    difference = float(values["value"].mean()) - float(base["value"].mean())  # type: ignore[arg-type]
    errors = [float(frame["error"].mean() or 0.0) for frame in (values, base)]  # type: ignore[arg-type]
    half = _NORMAL * math.hypot(*errors)
    return Interval(difference, difference - half, difference + half), None, 1, "measurement only"


def _arrays(frame: pl.DataFrame, *names: str) -> list[np.ndarray[Any, np.dtype[np.float64]]]:
    return [frame[name].to_numpy() for name in names]


def settings(groups: Sequence[Group]) -> list[tuple[str, list[str]]]:
    """Return the settings in which scenarios differ: dotted path → the value in every group ("–": not set)."""
    plain = [_flat({k: v for k, v in group.scenario.plain().items() if k not in _NOT_COMPARED}) for group in groups]
    paths = list(dict.fromkeys(path for values in plain for path in values))
    shown = {path: [_text(values.get(path)) for values in plain] for path in paths}
    return [(path, values) for path, values in shown.items() if len({repr(each.get(path)) for each in plain}) > 1]


def _flat(values: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        place = f"{path}{key}"
        flat |= _flat(value, f"{place}.") if isinstance(value, Mapping) else {place: value}
    return flat


def _text(value: Any) -> str:
    text = "–" if value is None else str(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
