"""Results of a study: tidy tables read from its run folders, with one number per row."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from io import BytesIO

import polars as pl

from ecosystem.calendar import Calendar
from ecosystem.errors import EcosystemError
from ecosystem.metrics.tables import with_dates
from ecosystem.runs.remote.mirror import out_root
from ecosystem.runs.remote.places import open_run, with_store_paths
from ecosystem.runs.store import Store
from ecosystem.scenario.scenario import Scenario
from ecosystem.studies.executors.jobs import JobResult
from ecosystem.studies.law_fit import POINTS, read_points
from ecosystem.studies.origins import SURVIVAL, survival_of
from ecosystem.studies.spec.law_fit import LawFit
from ecosystem.studies.spec.measure import WEB, course_of, populations, value_of
from ecosystem.studies.spec.study import Cell, Study

CELL = {"arm": pl.String, "world": pl.String, "seed": pl.Int64}
RUNS = {
    **CELL,
    "run": pl.String,  # folder or URL; null if the run failed
    "error": pl.String,  # null if the run succeeded
    "attempts": pl.Int64,  # by the latest call; 0 if the run was already finished
    "seconds": pl.Float64,  # wall time of the committed steps
}
VALUES = {**CELL, "measure": pl.String, "value": pl.Float64}
SERIES = {**CELL, "of": pl.String, "metric": pl.String, "step": pl.Int64, "value": pl.Float64}
TRAINING = {
    **CELL,
    "of": pl.String,  # a population
    "trainers": pl.Int64,
    "never": pl.Int64,  # trainers with scheduled fits that never trained
    "stopped": pl.Int64,  # trainers that trained but missed the last scheduled fit
    "due": pl.Int64,  # scheduled fits of all trainers
    "starved": pl.Int64,  # scheduled fits without anything to train on
}
PROFILE = {
    **CELL,
    "population": pl.String,
    "definition": pl.String,
    "holds": pl.Boolean,  # null: not measured
    "metric": pl.String,
    "statistic": pl.Float64,
    "error": pl.Float64,
    "step": pl.Int64,  # when it set in; null: it does not hold
}
SIGNALS = {
    **CELL,
    "population": pl.String,
    "signal": pl.String,
    "step": pl.Int64,
    "change": pl.Float64,  # since the first measurement, mean over trainers
}
COSTS = {**CELL, "cost": pl.String, "amount": pl.Float64}
WALL = "wall_seconds"
_PARALLEL_READS = 8  # of runs, which may be in an object store


@dataclass(frozen=True)
class Results:
    """All numbers of a study as tables.

    They are: runs, values of measures, series over steps, costs, training, collapse profiles and early-warning signals.
    """

    study: Study
    runs: pl.DataFrame  # columns RUNS
    values: pl.DataFrame  # VALUES
    series: pl.DataFrame  # SERIES
    costs: pl.DataFrame  # COSTS
    mixed: tuple[str, ...] = ()  # measures whose means are over different populations in different arms
    training: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=TRAINING))
    profile: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=PROFILE))
    signals: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=SIGNALS))
    points: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema={**CELL, **POINTS}))  # if a law is fitted
    survival: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema={**CELL, **SURVIVAL}))
    calendar: Calendar | None = None  # that of all runs; None if they have none, or different ones

    @classmethod
    def of(cls, study: Study, cells: Sequence[Cell], job_results: Sequence[JobResult]) -> Results:
        """Read the metrics of every cell's run; an unreadable run counts as failed."""
        runs, values, series, costs, training, profiles, signals = [], [], [], [], [], [], []
        points, survival = [], []
        measured: dict[str, set[frozenset[str]]] = {}  # measure of all trainers → populations by run
        with ThreadPoolExecutor(_PARALLEL_READS) as pool:
            readings = list(pool.map(partial(_read, fit=study.fit), cells, job_results))
        for cell, result, reading in zip(cells, job_results, readings, strict=True):
            key, metrics = (cell.arm, cell.world, cell.scenario.seed), reading.metrics
            runs.append((*key, result.run or None, reading.error or None, result.attempts, reading.seconds))
            if metrics is None:
                continue
            for measure in study.measures:
                course = course_of(metrics, measure)
                values.append((*key, measure.name, value_of(course, measure, cell.scenario.steps)))
                if measure.of is None:
                    measured.setdefault(measure.name, set()).add(populations(metrics, measure))
                series += [(*key, measure.of or "", measure.metric, *point) for point in course.iter_rows()]
            costs += [(*key, *row) for row in costs_of(metrics).iter_rows()]
            costs.append((*key, WALL, reading.seconds))
            profiles += [(*key, *row) for row in reading.profile]
            signals += [(*key, *row) for row in reading.signals]
            training += [(*key, *row) for row in training_rows(metrics, cell.scenario)]
            survival += [(*key, *row) for row in survival_of(metrics, cell.scenario)]
            points += [(*key, *row) for row in reading.points]
        return cls(
            study,
            pl.DataFrame(runs, schema=RUNS, orient="row"),
            pl.DataFrame(values, schema=VALUES, orient="row"),
            pl.DataFrame(series, schema=SERIES, orient="row").unique(maintain_order=True),
            with_zeros(pl.DataFrame(costs, schema=COSTS, orient="row")),
            tuple(name for name, sets in measured.items() if len(sets) > 1),
            pl.DataFrame(training, schema=TRAINING, orient="row"),
            pl.DataFrame(profiles, schema=PROFILE, orient="row"),
            pl.DataFrame(signals, schema=SIGNALS, orient="row"),
            pl.DataFrame(points, schema={**CELL, **POINTS}, orient="row"),
            pl.DataFrame(survival, schema={**CELL, **SURVIVAL}, orient="row"),
            _common({cell.scenario.calendar for cell in cells}),
        )

    def untrained(self, arm: str, world: str, of: str | None = None) -> str:
        """Describe which trainers of an arm did not train to the end, over all seeds; "" if all did.

        ``of`` is a population; None includes all.
        """
        rows = self.training.filter((pl.col("arm") == arm) & (pl.col("world") == world))
        return untrained(rows, of)

    def spending(self) -> pl.DataFrame:
        """Return the cost of every run in units of the study's prices: the columns of CELL and ``cost``."""
        prices = pl.DataFrame(
            {"cost": list(self.study.prices), "price": list(self.study.prices.values())},
            schema={"cost": pl.String, "price": pl.Float64},
        )
        priced = self.costs.join(prices, on="cost", how="left").with_columns(pl.col("price").fill_null(0.0))
        return priced.group_by(list(CELL), maintain_order=True).agg(cost=(pl.col("amount") * pl.col("price")).sum())

    def write(self, store: Store) -> None:
        """Write every table into the study's folder, as Parquet and as CSV; steps have dates if there is a calendar."""
        tables = ["runs", "values", "series", "costs", "training", "profile", "signals"]
        tables += [name for name in ("points", "survival") if getattr(self, name).height]
        for name in tables:
            table = getattr(self, name)
            if "step" in table.columns and table.height:
                last = int(table["step"].max() or 0)
                table = with_dates(table, self.calendar, last)
            write_table(store, name, table)


def _common(calendars: set[Calendar | None]) -> Calendar | None:
    return next(iter(calendars)) if len(calendars) == 1 else None


@dataclass(frozen=True)
class Reading:
    """The metrics of a cell's run, the seconds of its steps, its profile, signals and points; or the error."""

    metrics: pl.DataFrame | None = None
    seconds: float | None = None
    error: str = ""
    profile: Sequence[tuple[object, ...]] = ()
    signals: Sequence[tuple[object, ...]] = ()
    points: Sequence[tuple[object, ...]] = ()  # if a law is fitted


def _read(cell: Cell, result: JobResult, fit: LawFit | None) -> Reading:
    from ecosystem.report.data import RunReportData
    from ecosystem.report.profile import signals

    if result.error:
        return Reading(error=result.error)
    try:
        run = open_run(result.run)
        run.verify_scenario()
        seconds = sum(c.seconds for c in run.store.commits() if c.step <= cell.scenario.steps)
        metrics = run.store.table("metrics").filter(pl.col("step") <= cell.scenario.steps)
        changes = signals.changes(metrics).drop("error").rows()
        points = [] if fit is None else read_points(run, cell.scenario, fit.metric)
        return Reading(metrics, seconds, "", RunReportData.of(run, metrics).profile.rows(), changes, points)
    except EcosystemError as problem:
        return Reading(error=with_store_paths(str(problem), out_root(result.run)))


def untrained(rows: pl.DataFrame, of: str | None = None) -> str:
    """Describe which trainers of a population (None: of all) did not train to the end; "" if all did.

    ``rows`` has the columns of TRAINING.
    """
    if of not in (None, WEB):
        rows = rows.filter(pl.col("of") == of)
    trainers, parts = rows["trainers"].sum(), []
    for count, state in ((rows["never"].sum(), "never trained"), (rows["stopped"].sum(), "stopped training")):
        if count:
            parts.append(state if count == trainers else f"{count} of {trainers} trainers {state}")
    return ", ".join(parts)


def training_rows(metrics: pl.DataFrame, scenario: Scenario) -> list[tuple[str, int, int, int, int, int]]:
    """Return a row for each population with scheduled fits: the columns of TRAINING after those of CELL.

    Actual fits come from the cost ledger, scheduled ones from the scenario. A trainer with nothing to train on keeps
    its model and is still measured.
    """
    fitted: dict[str, set[int]] = {}
    fits = metrics.filter((pl.col("scope") == "cost") & pl.col("metric").is_in(["tokens_trained", "documents_trained"]))
    for trainer, step in fits.select("id", "step").iter_rows():
        fitted.setdefault(trainer, set()).add(step)
    rows = []
    for population, steps in _due_steps(scenario).items():
        count = scenario.trainers[population].count
        trainers = [fitted.get(f"trainers/{population}/{number}", set()) for number in range(count)]
        never = sum(not fits for fits in trainers)
        stopped = sum(bool(fits) and steps[-1] not in fits for fits in trainers)
        starved = sum(len(set(steps) - fits) for fits in trainers)
        rows.append((population, count, never, stopped, count * len(steps), starved))
    return rows


def _due_steps(scenario: Scenario) -> dict[str, list[int]]:
    """Return population → steps of the scheduled fits of its trainers, including timed changes."""
    state, change_steps = scenario, {change.at for change in scenario.changes}
    due: dict[str, list[int]] = {}
    for t in range(1, scenario.steps + 1):
        state = scenario.at(t) if t in change_steps else state
        for population, trainer in state.trainers.items():
            if trainer.fits_at(t):
                due.setdefault(population, []).append(t)
    return due


def costs_of(metrics: pl.DataFrame) -> pl.DataFrame:
    """Return the total costs of a run over steps and payers: columns ``cost`` and ``amount``."""
    rows = metrics.filter((pl.col("scope") == "cost") & pl.col("value").is_not_null())
    return rows.group_by("metric", maintain_order=True).agg(pl.col("value").sum()).select(cost="metric", amount="value")


def with_zeros(costs: pl.DataFrame) -> pl.DataFrame:
    """Return costs with an amount of 0 for each cost that is missing from a run."""
    kinds = costs.select("cost").unique(maintain_order=True)
    cells = costs.select(CELL.keys()).unique(maintain_order=True)
    grid = cells.join(kinds, how="cross", maintain_order="left_right")
    return grid.join(costs, on=[*CELL, "cost"], how="left", maintain_order="left").fill_null(0.0)


def write_table(store: Store, name: str, table: pl.DataFrame) -> None:
    """Write a table into a study's folder, as Parquet and as CSV."""
    parquet = BytesIO()
    table.write_parquet(parquet)
    store.write(f"{name}.parquet", parquet.getvalue())
    store.write(f"{name}.csv", table.write_csv().encode())
