"""Analyses of a study's results: effects with intervals, rankings, regrets over worlds, sensitivity, equal cost."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import astuple, dataclass, fields

import numpy as np
import polars as pl

from ecosystem.errors import DataError
from ecosystem.metrics.intervals import Interval, mean_interval, paired_difference
from ecosystem.studies.results import Results
from ecosystem.studies.sensitivity import Index, indices
from ecosystem.studies.spec.measure import Measure
from ecosystem.studies.statistics import Effect, effects, holm, ranking
from ecosystem.types import Floats


@dataclass(frozen=True)
class Row:
    """A row of the table of effects: one arm against the base arm in one measure and one world."""

    measure: str
    unit: str
    world: str
    arm: str
    seeds: int
    base_mean: float
    effect: float
    low: float
    high: float
    size: float | None  # Hedges' g of the paired differences; None: see intervals.paired_size
    size_low: float | None
    size_high: float | None
    bootstrap_low: float | None  # None: see statistics.bootstrap_interval
    bootstrap_high: float | None
    unpaired_low: float
    unpaired_high: float
    correlation: float
    narrower: float
    saved: int | None
    p: float
    p_holm: float
    training: str  # description of trainers of the arm that did not train to the end; "" if all did

    @classmethod
    def of(cls, effect: Effect, measure: Measure, world: str, p_holm: float, training: str) -> Row:
        """Build the row of an effect; ``p_holm`` is corrected for all comparisons of the measure."""
        return cls(
            measure=measure.name,
            unit=measure.unit,
            world=world,
            arm=effect.arm,
            seeds=effect.seeds,
            base_mean=effect.base_mean,
            effect=effect.paired.mean,
            low=effect.paired.low,
            high=effect.paired.high,
            size=effect.size.mean if effect.size else None,
            size_low=effect.size.low if effect.size else None,
            size_high=effect.size.high if effect.size else None,
            bootstrap_low=effect.bootstrap.low if effect.bootstrap else None,
            bootstrap_high=effect.bootstrap.high if effect.bootstrap else None,
            unpaired_low=effect.unpaired.low,
            unpaired_high=effect.unpaired.high,
            correlation=effect.correlation,
            narrower=effect.narrower,
            saved=effect.saved,
            p=effect.p,
            p_holm=p_holm,
            training=training,
        )

    @property
    def effect_size(self) -> Interval | None:
        """The effect size with its interval; None if there is none."""
        if self.size is None or self.size_low is None or self.size_high is None:
            return None
        return Interval(self.size, self.size_low, self.size_high)

    @property
    def significant(self) -> bool:
        """Whether the arm differs from the base arm at 5 %, corrected for all comparisons of the measure."""
        return self.p_holm < 0.05

    def better(self, measure: Measure) -> bool:
        """Whether the arm's mean is better than the base arm's."""
        return (self.effect < 0) == measure.lower_is_better


@dataclass(frozen=True)
class Regret:
    """An arm's mean of a measure over uncertain worlds, and its regrets (>= 0).

    The regret of an arm in a world is the difference between its mean and that of the best arm there.
    """

    arm: str
    mean: float
    mean_regret: float
    worst_regret: float
    worst_world: str


@dataclass(frozen=True)
class EqualCostDifference:
    """The difference in a measure between one way to spend and the first one, at equal cost, with its interval."""

    measure: str
    cost: float
    way: str
    against: str
    seeds: int
    difference: float
    low: float
    high: float


def values_by_arm(results: Results, measure: Measure, world: str) -> dict[str, dict[int, float]]:
    """Return arm → seed → value of one measure in one world; only finite values are included."""
    rows = results.values.filter(
        (pl.col("measure") == measure.name) & (pl.col("world") == world) & pl.col("value").is_finite()
    )
    values: dict[str, dict[int, float]] = {}
    for arm, seed, value in rows.select("arm", "seed", "value").iter_rows():
        values.setdefault(arm, {})[seed] = value
    return values


def on_common_seeds(values: dict[str, dict[int, float]], *arms: str) -> list[Floats]:
    """Return the values of each arm over the seeds common to all of these arms, each of shape [seeds]."""
    seeds = [seed for seed in values.get(arms[0], {}) if all(seed in values.get(arm, {}) for arm in arms)]
    return [np.array([values[arm][seed] for seed in seeds]) for arm in arms]


def compare_arms(results: Results) -> list[Row]:
    """Compare every arm with the base arm in each measure and world, with Holm's correction over each measure.

    Only seeds with a value in both arms are used. An arm with fewer than two of them is omitted.
    """
    rows: list[Row] = []
    for measure in results.study.measures:
        pairs = [(effect, world) for world in results.study.settings() for effect in _effects(results, measure, world)]
        corrected = holm([effect.p for effect, _ in pairs])
        rows += [
            Row.of(effect, measure, world, p, results.untrained(effect.arm, world, measure.of))
            for (effect, world), p in zip(pairs, corrected, strict=True)
        ]
    return rows


def _effects(results: Results, measure: Measure, world: str) -> list[Effect]:
    """Compare every arm with the base arm in one measure and one world."""
    study, values = results.study, values_by_arm(results, measure, world)
    comparisons: list[Effect] = []
    for arm in study.levers():
        base_values, arm_values = on_common_seeds(values, study.base_arm, arm)
        if arm != study.base_arm and len(arm_values) > 1:
            comparisons += effects(measure.name, base_values, {arm: arm_values})
    return comparisons


def effect_table(rows: list[Row]) -> pl.DataFrame:
    """Return the table of effects: the fields of :class:`Row`."""
    kinds = {"str": pl.String, "int": pl.Int64, "float": pl.Float64}
    schema = {field.name: kinds[str(field.type).removesuffix(" | None")] for field in fields(Row)}
    return pl.DataFrame([astuple(row) for row in rows], schema=schema, orient="row")


def rank_arms(results: Results, measure: Measure, world: str) -> list[list[tuple[str, float]]]:
    """Return the arms, best first, in groups of ties, each with its mean over the seeds common to all arms."""
    values = values_by_arm(results, measure, world)
    arms = [arm for arm in results.study.levers() if len(values.get(arm, {})) > 1]
    if not arms:
        return []
    paired = dict(zip(arms, on_common_seeds(values, *arms), strict=True))
    if len(next(iter(paired.values()))) < 2:
        return []
    groups = ranking(paired, lower_is_better=measure.lower_is_better)
    return [[(arm, float(paired[arm].mean())) for arm in group] for group in groups]


def regrets(results: Results, measure: Measure) -> list[Regret]:
    """Return the regrets of the arms with a value in every world, by increasing worst regret.

    In each world, means are over the seeds common to all of these arms.
    """
    worlds = list(results.study.settings())
    values = [values_by_arm(results, measure, world) for world in worlds]
    arms = [arm for arm in results.study.levers() if all(arm in by_arm for by_arm in values)]
    paired = [on_common_seeds(by_arm, *arms) for by_arm in values] if arms else []
    if not arms or any(columns[0].size == 0 for columns in paired):
        return []
    grid = np.array([[float(column.mean()) for column in columns] for columns in paired]).T  # [arms, worlds]
    sign = 1 if measure.lower_is_better else -1
    regret = sign * grid - (sign * grid).min(axis=0)
    rows = [
        Regret(arm, float(grid[i].mean()), float(regret[i].mean()), float(regret[i].max()), worlds[regret[i].argmax()])
        for i, arm in enumerate(arms)
    ]
    return sorted(rows, key=lambda r: r.worst_regret)


def rankings(results: Results) -> pl.DataFrame:
    """Return the rankings of all measures and worlds, best first; ``tied`` is the number of arms at the same place."""
    study, rows = results.study, []
    for measure in study.measures if study.compares else []:
        for world in study.settings():
            place = 1
            for group in rank_arms(results, measure, world):
                rows += [
                    (measure.name, world, place, len(group), arm, mean, results.untrained(arm, world, measure.of))
                    for arm, mean in group
                ]
                place += len(group)
    kinds = {"measure": pl.String, "world": pl.String, "place": pl.Int64, "tied": pl.Int64, "arm": pl.String}
    return pl.DataFrame(rows, schema={**kinds, "mean": pl.Float64, "training": pl.String}, orient="row")


def regret_table(results: Results) -> pl.DataFrame:
    """Return the regrets of all measures: ``measure`` and the fields of :class:`Regret`."""
    study = results.study
    rows = [(m.name, *astuple(r)) for m in study.measures if study.compares for r in regrets(results, m)]
    kinds = {"arm": pl.String, "mean": pl.Float64, "mean_regret": pl.Float64, "worst_regret": pl.Float64}
    return pl.DataFrame(rows, schema={"measure": pl.String, **kinds, "worst_world": pl.String}, orient="row")


def indices_of(results: Results, measure: Measure, world: str) -> list[Index]:
    """Return the sensitivity indices for the means of a measure; raise DataError if a point has no value."""
    study, values = results.study, values_by_arm(results, measure, world)
    y = np.array([np.mean(list(values[arm].values())) if arm in values else np.nan for arm in study.levers()])
    return indices(list(study.axes), study.design, y)


def sensitivity_table(results: Results) -> pl.DataFrame:
    """Return the indices of all measures and worlds: ``measure``, ``world`` and the fields of :class:`Index`.

    ``main`` and ``total`` are mu* and sigma of a Morris design, or first-order and total Sobol indices. A half interval
    is null if the method gives none. A measure with a missing point of the design has no rows.
    """
    rows = []
    for measure in results.study.measures:
        for world in results.study.settings():
            with suppress(DataError):
                rows += [(measure.name, world, *astuple(i)) for i in indices_of(results, measure, world)]
    kinds = {"measure": pl.String, "world": pl.String, "axis": pl.String}
    schema = {**kinds, "main": pl.Float64, "main_half": pl.Float64, "total": pl.Float64, "total_half": pl.Float64}
    return pl.DataFrame(rows, schema=schema, orient="row").fill_nan(None)


def compare_at_equal_cost(results: Results) -> list[EqualCostDifference]:
    """Compare the ways to spend at equal cost, seed by seed, in the first world of the study.

    The measure of a way at a cost is interpolated linearly between its arms and the base arm, whose cost is 0. There is
    no extrapolation: a cost above that of a way's most expensive arm is not compared.
    """
    study = results.study
    if study.equal_cost is None:
        return []
    world = next(iter(study.settings()))
    costs: dict[str, dict[int, float]] = {}
    rows = results.spending().filter(pl.col("world") == world)
    for arm, seed, cost in rows.select("arm", "seed", "cost").iter_rows():
        costs.setdefault(arm, {})[seed] = cost
    comparisons: list[EqualCostDifference] = []
    for measure in study.measures:
        values = values_by_arm(results, measure, world)
        for cost in study.equal_cost.at:
            by_way = {
                way: _at_cost(values, costs, study.base_arm, arms, cost)
                for way, arms in study.equal_cost.levers.items()
            }
            comparisons += _differences_at(measure, cost, by_way)
    return comparisons


def _differences_at(measure: Measure, cost: float, by_way: dict[str, dict[int, float]]) -> list[EqualCostDifference]:
    """Compare every way to spend with the first one at one cost; ``by_way`` is way → seed → value at this cost."""
    comparisons = []
    first, *others = by_way
    for way in others:
        seeds = [seed for seed in by_way[first] if seed in by_way[way]]
        if len(seeds) < 2:
            continue
        values, reference = (np.array([by_way[name][seed] for seed in seeds]) for name in (way, first))
        interval = mean_interval(paired_difference(values, reference))
        comparisons.append(
            EqualCostDifference(measure.name, cost, way, first, len(seeds), interval.mean, interval.low, interval.high)
        )
    return comparisons


def _at_cost(
    values: dict[str, dict[int, float]], costs: dict[str, dict[int, float]], base: str, arms: list[str], cost: float
) -> dict[int, float]:
    """Return seed → measure at ``cost`` above the base arm's, for the seeds whose arms reach it."""
    interpolated = {}
    for seed, base_value in values.get(base, {}).items():
        complete = [arm for arm in arms if seed in values.get(arm, {}) and seed in costs.get(arm, {})]
        points = [(0.0, base_value), *((costs[arm][seed] - costs[base][seed], values[arm][seed]) for arm in complete)]
        points.sort()
        x, y = zip(*points, strict=True)
        if x[0] <= cost <= x[-1]:
            interpolated[seed] = float(np.interp(cost, x, y))
    return interpolated
