"""What the tables of a study say: effects with intervals, rankings, regret over worlds, and ways to spend compared."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import astuple, dataclass, fields

import numpy as np
import polars as pl

from ecosystem.errors import DataError
from ecosystem.studies.results import Results
from ecosystem.studies.sensitivity import Index, indices
from ecosystem.studies.statistics import Effect, effects, holm, mean_interval, ranking
from ecosystem.studies.study import Measure, Study
from ecosystem.types import Floats


@dataclass(frozen=True)
class Row:
    """One arm against the base arm in one measure and one world, as it stands in the table of effects."""

    measure: str
    unit: str
    world: str
    arm: str
    seeds: int
    base_mean: float
    effect: float
    low: float
    high: float
    bootstrap_low: float
    bootstrap_high: float
    unpaired_low: float
    unpaired_high: float
    correlation: float
    narrower: float
    saved: int | None
    p: float
    p_holm: float
    training: str  # which of the arm's trainers did not train, in a few words

    @classmethod
    def of(cls, effect: Effect, measure: Measure, world: str, p_holm: float, training: str) -> Row:
        """Lay an effect out flat."""
        e = effect
        return cls(
            *(measure.name, measure.unit, world, e.arm, e.seeds, e.base_mean, e.paired.mean),
            *(e.paired.low, e.paired.high, e.bootstrap.low, e.bootstrap.high, e.unpaired.low, e.unpaired.high),
            *(e.correlation, e.narrower, e.saved, e.p, p_holm, training),
        )

    @property
    def settled(self) -> bool:
        """Whether the arm differs from the base arm, all comparisons of this measure being counted."""
        return self.p_holm < 0.05

    def better(self, measure: Measure) -> bool:
        """Whether its mean is the better one."""
        return (self.effect < 0) == measure.lower_is_better


@dataclass(frozen=True)
class Regret:
    """How an arm fares over uncertain worlds: ``mean`` of the measure over worlds, and regrets (>= 0).

    A regret is how much worse an arm is than the best arm of the same world.
    """

    arm: str
    mean: float
    mean_regret: float
    worst_regret: float
    worst_world: str


@dataclass(frozen=True)
class Matched:
    """A way to spend against the first one at the same cost: its difference in the measure, with an interval."""

    measure: str
    cost: float
    way: str
    against: str
    seeds: int
    difference: float
    low: float
    high: float


def values_by_arm(results: Results, measure: Measure, world: str) -> dict[str, dict[int, float]]:
    """Return arm → seed → value of one measure in one world, values that are missing or infinite left out."""
    rows = results.values.filter(
        (pl.col("measure") == measure.name) & (pl.col("world") == world) & pl.col("value").is_finite()
    )
    found: dict[str, dict[int, float]] = {}
    for arm, seed, value in rows.select("arm", "seed", "value").iter_rows():
        found.setdefault(arm, {})[seed] = value
    return found


def common(found: dict[str, dict[int, float]], *arms: str) -> list[Floats]:
    """Return the values of arms over the seeds that all of them have, each of shape [seeds]."""
    seeds = [seed for seed in found.get(arms[0], {}) if all(seed in found.get(arm, {}) for arm in arms)]
    return [np.array([found[arm][seed] for seed in seeds]) for arm in arms]


def compared(study: Study, results: Results) -> list[Row]:
    """Compare every arm with the base arm, measure by measure and world by world; Holm over each measure's comparisons.

    A seed counts where both arms have a value; an arm with fewer than two such seeds is left out.
    """
    rows: list[Row] = []
    for measure in study.measures:
        found: list[tuple[Effect, str]] = []
        for world in study.settings():
            values = values_by_arm(results, measure, world)
            for arm in study.levers():
                if arm == study.base_arm:
                    continue
                base, mine = common(values, study.base_arm, arm)
                if len(mine) > 1:
                    found += [(effect, world) for effect in effects(measure.name, base, {arm: mine})]
        corrected = holm([effect.p for effect, _ in found])
        rows += [
            Row.of(effect, measure, world, p, results.untrained(effect.arm, world, measure.of))
            for (effect, world), p in zip(found, corrected, strict=True)
        ]
    return rows


def table(rows: list[Row]) -> pl.DataFrame:
    """Return the table of effects."""
    kinds = {"str": pl.String, "int": pl.Int64, "int | None": pl.Int64, "float": pl.Float64}
    schema = {field.name: kinds[str(field.type)] for field in fields(Row)}
    return pl.DataFrame([astuple(row) for row in rows], schema=schema, orient="row")


def ranked(study: Study, results: Results, measure: Measure, world: str) -> list[list[tuple[str, float]]]:
    """Return the arms, best first, in groups of ties, each with its mean over the seeds that all arms have."""
    values = values_by_arm(results, measure, world)
    arms = [arm for arm in study.levers() if len(values.get(arm, {})) > 1]
    if not arms:
        return []
    shared = dict(zip(arms, common(values, *arms), strict=True))
    if len(next(iter(shared.values()))) < 2:
        return []
    groups = ranking(shared, lower_is_better=measure.lower_is_better)
    return [[(arm, float(shared[arm].mean())) for arm in group] for group in groups]


def regrets(study: Study, results: Results, measure: Measure) -> list[Regret]:
    """Return how every arm fares over the worlds, least worst regret first; only arms with a value in every world.

    In each world all of them are held against each other over the seeds that all have.
    """
    worlds = list(study.settings())
    values = [values_by_arm(results, measure, world) for world in worlds]
    arms = [arm for arm in study.levers() if all(arm in found for found in values)]
    shared = [common(found, *arms) for found in values] if arms else []
    if not arms or any(columns[0].size == 0 for columns in shared):
        return []
    grid = np.array([[float(column.mean()) for column in columns] for columns in shared]).T  # [arms, worlds]
    sign = 1 if measure.lower_is_better else -1
    regret = sign * grid - (sign * grid).min(axis=0)
    found = [
        Regret(arm, float(grid[i].mean()), float(regret[i].mean()), float(regret[i].max()), worlds[regret[i].argmax()])
        for i, arm in enumerate(arms)
    ]
    return sorted(found, key=lambda r: r.worst_regret)


def places(study: Study, results: Results) -> pl.DataFrame:
    """Return the rankings of all measures and worlds, best first; the ``tied`` arms of a group share its place."""
    rows = []
    for measure in study.measures if study.compares else []:
        for world in study.settings():
            place = 1
            for group in ranked(study, results, measure, world):
                rows += [
                    (measure.name, world, place, len(group), arm, mean, results.untrained(arm, world, measure.of))
                    for arm, mean in group
                ]
                place += len(group)
    kinds = {"measure": pl.String, "world": pl.String, "place": pl.Int64, "tied": pl.Int64, "arm": pl.String}
    return pl.DataFrame(rows, schema={**kinds, "mean": pl.Float64, "training": pl.String}, orient="row")


def regret_table(study: Study, results: Results) -> pl.DataFrame:
    """Return the regrets of all measures: columns of :class:`Regret`, behind the measure."""
    rows = [(m.name, *astuple(r)) for m in study.measures if study.compares for r in regrets(study, results, m)]
    kinds = {"arm": pl.String, "mean": pl.Float64, "mean_regret": pl.Float64, "worst_regret": pl.Float64}
    return pl.DataFrame(rows, schema={"measure": pl.String, **kinds, "worst_world": pl.String}, orient="row")


def indices_of(study: Study, results: Results, measure: Measure, world: str) -> list[Index]:
    """Return how much each axis matters for a measure, of its means over seeds; DataError where a point has none."""
    values = values_by_arm(results, measure, world)
    y = np.array([np.mean(list(values[arm].values())) if arm in values else np.nan for arm in study.levers()])
    return indices(list(study.axes), study.design, y)


def sensitivity_table(study: Study, results: Results) -> pl.DataFrame:
    """Return the indices of all measures and worlds: the fields of :class:`Index`, with null where there is none.

    ``main`` and ``total`` are mu* and sigma of a Morris design, and first-order and total indices of a Sobol design. A
    measure that some point has no value of has no rows.
    """
    rows = []
    for measure in study.measures:
        for world in study.settings():
            with suppress(DataError):
                rows += [(measure.name, world, *astuple(i)) for i in indices_of(study, results, measure, world)]
    kinds = {"measure": pl.String, "world": pl.String, "axis": pl.String}
    schema = {**kinds, "main": pl.Float64, "main_half": pl.Float64, "total": pl.Float64, "total_half": pl.Float64}
    return pl.DataFrame(rows, schema=schema, orient="row").fill_nan(None)


def matched(study: Study, results: Results) -> list[Matched]:
    """Compare the ways to spend at equal cost, seed by seed, in the first world of the study.

    A way's measure at a cost is interpolated linearly between its arms (and the base arm, where nothing more is spent
    than there); a cost above what its dearest arm spent is not compared, since nothing is known there.
    """
    if study.equal_cost is None:
        return []
    world = next(iter(study.settings()))
    spent: dict[str, dict[int, float]] = {}
    rows = results.spending(study).filter(pl.col("world") == world)
    for arm, seed, cost in rows.select("arm", "seed", "cost").iter_rows():
        spent.setdefault(arm, {})[seed] = cost
    found = []
    for measure in study.measures:
        values = values_by_arm(results, measure, world)
        for cost in study.equal_cost.at:
            at = {
                way: _at_cost(values, spent, study.base_arm, arms, cost)
                for way, arms in study.equal_cost.levers.items()
            }
            first, *others = at
            for way in others:
                seeds = [seed for seed in at[first] if seed in at[way]]
                if len(seeds) < 2:
                    continue
                interval = mean_interval(np.array([at[way][s] - at[first][s] for s in seeds]))
                found.append(
                    Matched(measure.name, cost, way, first, len(seeds), interval.mean, interval.low, interval.high)
                )
    return found


def _at_cost(
    values: dict[str, dict[int, float]], spent: dict[str, dict[int, float]], base: str, arms: list[str], cost: float
) -> dict[int, float]:
    """Return seed → the measure where ``cost`` more is spent than in the base arm; without seeds where nobody did."""
    found = {}
    for seed, start in values.get(base, {}).items():
        mine = [arm for arm in arms if seed in values.get(arm, {}) and seed in spent.get(arm, {})]
        points = [(0.0, start), *((spent[arm][seed] - spent[base][seed], values[arm][seed]) for arm in mine)]
        points.sort()
        x, y = zip(*points, strict=True)
        if x[0] <= cost <= x[-1]:
            found[seed] = float(np.interp(cost, x, y))
    return found
