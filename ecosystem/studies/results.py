"""From the run folders of a study to tidy tables: one row per number, named by arm, world and seed."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from io import BytesIO

import polars as pl

from ecosystem.errors import EcosystemError
from ecosystem.runs.store import Store
from ecosystem.scenario.scenario import Scenario
from ecosystem.studies.executors.jobs import Outcome
from ecosystem.studies.object_store import addressed, opened, out_of
from ecosystem.studies.study import WEB, Cell, Measure, Study

CELL = {"arm": pl.String, "world": pl.String, "seed": pl.Int64}
RUNS = {
    **CELL,
    "run": pl.String,  # its folder or address, null if it failed
    "error": pl.String,  # why it failed, else null
    "attempts": pl.Int64,  # by this study; 0 for a run that was there
    "seconds": pl.Float64,  # of its committed steps
}
VALUES = {**CELL, "measure": pl.String, "value": pl.Float64}
SERIES = {**CELL, "of": pl.String, "metric": pl.String, "step": pl.Int64, "value": pl.Float64}
TRAINING = {
    **CELL,
    "of": pl.String,  # a population
    "trainers": pl.Int64,
    "never": pl.Int64,  # of them never trained, though they were to
    "stopped": pl.Int64,  # of them trained, but not when they last were to
    "due": pl.Int64,  # times that one of them was to train
    "starved": pl.Int64,  # of these it had nothing to train on
}
COSTS = {**CELL, "cost": pl.String, "amount": pl.Float64}
WALL = "wall_seconds"
_READ_AT_ONCE = 8  # runs, which may lie in an object store


@dataclass(frozen=True)
class Results:
    """All numbers of a study.

    ``runs``, ``values`` of measures, their ``series`` over steps, ``costs`` of runs, and whether trainers trained.
    """

    runs: pl.DataFrame
    values: pl.DataFrame
    series: pl.DataFrame
    costs: pl.DataFrame
    mixed: tuple[str, ...] = ()  # measures over all trainers of which arms have measured different populations
    training: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=TRAINING))

    @classmethod
    def of(cls, study: Study, cells: Sequence[Cell], outcomes: Sequence[Outcome]) -> Results:
        """Read what every cell's run measured and cost; a run that cannot be read counts as failed."""
        runs, values, series, costs, training = [], [], [], [], []
        whose: dict[str, set[frozenset[str]]] = {}
        with ThreadPoolExecutor(_READ_AT_ONCE) as pool:
            read = list(pool.map(_read, cells, outcomes))
        for cell, outcome, (metrics, seconds, error) in zip(cells, outcomes, read, strict=True):
            who = (cell.arm, cell.world, cell.scenario.seed)
            runs.append((*who, outcome.run or None, error or None, outcome.attempts, seconds))
            if metrics is None:
                continue
            for measure in study.measures:
                course = course_of(metrics, measure)
                values.append((*who, measure.name, value_of(course, measure, cell.scenario.steps)))
                if measure.of is None:
                    whose.setdefault(measure.name, set()).add(populations(metrics, measure))
                series += [(*who, measure.of or "", measure.metric, *point) for point in course.iter_rows()]
            costs += [(*who, *row) for row in costs_of(metrics).iter_rows()]
            costs.append((*who, WALL, seconds))
            training += [(*who, *row) for row in trained(metrics, cell.scenario)]
        return cls(
            pl.DataFrame(runs, schema=RUNS, orient="row"),
            pl.DataFrame(values, schema=VALUES, orient="row"),
            pl.DataFrame(series, schema=SERIES, orient="row").unique(maintain_order=True),
            whole(pl.DataFrame(costs, schema=COSTS, orient="row")),
            tuple(name for name, found in whose.items() if len(found) > 1),
            pl.DataFrame(training, schema=TRAINING, orient="row"),
        )

    def untrained(self, arm: str, world: str, of: str | None = None) -> str:
        """Return in a few words which trainers of an arm (of one population) did not train; "" if all did to the end.

        They are counted over all seeds.
        """
        rows = self.training.filter((pl.col("arm") == arm) & (pl.col("world") == world))
        return untrained(rows if of in (None, WEB) else rows.filter(pl.col("of") == of))

    def spending(self, study: Study) -> pl.DataFrame:
        """Return what every run cost at the study's prices: the cell's columns and ``cost``, in their units."""
        prices = pl.DataFrame(
            {"cost": list(study.prices), "price": list(study.prices.values())},
            schema={"cost": pl.String, "price": pl.Float64},
        )
        priced = self.costs.join(prices, on="cost", how="left").with_columns(pl.col("price").fill_null(0.0))
        return priced.group_by(list(CELL), maintain_order=True).agg(cost=(pl.col("amount") * pl.col("price")).sum())

    def write(self, store: Store) -> None:
        """Write every table beside the report, as Parquet and as CSV."""
        for name in ("runs", "values", "series", "costs", "training"):
            write_table(store, name, getattr(self, name))


def _read(cell: Cell, outcome: Outcome) -> tuple[pl.DataFrame | None, float | None, str]:
    """Return what a cell's run measured and the seconds of its steps, or why that cannot be told."""
    if outcome.error:
        return None, None, outcome.error
    try:
        run = opened(outcome.run)
        run.verify_scenario()
        seconds = sum(c.seconds for c in run.store.commits() if c.step <= cell.scenario.steps)
        return run.metrics.filter(pl.col("step") <= cell.scenario.steps), seconds, ""
    except EcosystemError as problem:
        return None, None, addressed(str(problem), out_of(outcome.run))


def untrained(rows: pl.DataFrame) -> str:
    """Return in a few words which trainers of rows of TRAINING did not train; "" if all did to the end."""
    trainers, told = rows["trainers"].sum(), []
    for count, what in ((rows["never"].sum(), "never trained"), (rows["stopped"].sum(), "stopped training")):
        if count:
            told.append(what if count == trainers else f"{count} of {trainers} trainers {what}")
    return ", ".join(told)


def whole(costs: pl.DataFrame) -> pl.DataFrame:
    """Return costs with a row of 0 for every run and sort of cost that it never had."""
    kinds = costs.select("cost").unique(maintain_order=True)
    cells = costs.select(CELL.keys()).unique(maintain_order=True)
    every = cells.join(kinds, how="cross", maintain_order="left_right")
    return every.join(costs, on=[*CELL, "cost"], how="left", maintain_order="left").fill_null(0.0)


def trained(metrics: pl.DataFrame, scenario: Scenario) -> list[tuple[str, int, int, int, int, int]]:
    """Return, per population that was to train, the columns of TRAINING from ``of`` on.

    Who trained stands in the cost ledger, and who was to in the scenario: a trainer with nothing to train on keeps its
    model, and goes on being measured.
    """
    did: dict[str, set[int]] = {}
    fits = metrics.filter((pl.col("scope") == "cost") & pl.col("metric").is_in(["tokens_trained", "documents_trained"]))
    for who, step in fits.select("id", "step").iter_rows():
        did.setdefault(who, set()).add(step)
    state, moments = scenario, {change.at for change in scenario.changes}
    due: dict[str, list[int]] = {}
    for t in range(1, scenario.steps + 1):
        state = scenario.at(t) if t in moments else state
        for population, recipe in state.trainers.items():
            if recipe.fits_at(t):
                due.setdefault(population, []).append(t)
    rows = []
    for population, steps in due.items():
        count = scenario.trainers[population].count
        mine = [did.get(f"trainers/{population}/{number}", set()) for number in range(count)]
        never = sum(not fit for fit in mine)
        stopped = sum(bool(fit) and steps[-1] not in fit for fit in mine)
        rows.append((population, count, never, stopped, count * len(steps), sum(len(set(steps) - fit) for fit in mine)))
    return rows


def populations(metrics: pl.DataFrame, measure: Measure) -> frozenset[str]:
    """Return the populations over which a measure of all trainers is a mean."""
    rows = metrics.filter((pl.col("metric") == measure.metric) & pl.col("scope").is_in(["trainer", "training_set"]))
    return frozenset(rows["id"].str.split("/").list.first().unique())


def write_table(store: Store, name: str, table: pl.DataFrame) -> None:
    """Write a table into a study's folder, as Parquet and as CSV."""
    parquet = BytesIO()
    table.write_parquet(parquet)
    store.write(f"{name}.parquet", parquet.getvalue())
    store.write(f"{name}.csv", table.write_csv().encode())


def course_of(metrics: pl.DataFrame, measure: Measure) -> pl.DataFrame:
    """Return a measure's metric over steps (step, value): of the web, or the mean over trainers (their training sets).

    A metric that belongs to no trainer and to no training set is the web's.
    """
    rows = metrics.filter((pl.col("metric") == measure.metric) & pl.col("value").is_not_null())
    found = set(rows["scope"].unique())
    scope = next((s for s in ("trainer", "training_set") if s in found and measure.of != WEB), WEB)
    rows = rows.filter(pl.col("scope") == scope)
    if measure.of not in (None, WEB):
        rows = rows.filter(pl.col("id").str.split("/").list.first() == measure.of)
    means = rows.group_by("step", maintain_order=True).agg(pl.col("value").mean()).sort("step")
    return means.select(pl.col("step").cast(pl.Int64), "value")


def value_of(course: pl.DataFrame, measure: Measure, last: int) -> float | None:
    """Return the one number of a run, from a metric's course; None if it was not measured when it counts."""
    first, until = measure.steps(last)
    counted = course.filter(pl.col("step").is_between(first, until))["value"]
    return None if counted.is_empty() else float(counted.mean())  # type: ignore[arg-type]


def costs_of(metrics: pl.DataFrame) -> pl.DataFrame:
    """Return what a run cost in all (cost, amount), summed over its steps and over whom it cost."""
    rows = metrics.filter((pl.col("scope") == "cost") & pl.col("value").is_not_null())
    return rows.group_by("metric", maintain_order=True).agg(pl.col("value").sum()).select(cost="metric", amount="value")
