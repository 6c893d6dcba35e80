"""Running a frontier: the search for its threshold, the closed form, and the report."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import polars as pl

from ecosystem.errors import EcosystemError, path_argument, path_of
from ecosystem.formats import number
from ecosystem.placement.spec import IGNORED_BY_STUDIES
from ecosystem.plugins import load_plugins
from ecosystem.report import charts, publish
from ecosystem.report.html import Figure, Source, Table
from ecosystem.runs.remote.places import open_run
from ecosystem.runs.run import Run
from ecosystem.runs.store import Store
from ecosystem.scenario.inputs import require_inputs
from ecosystem.scenario.presets import STUDIES, located
from ecosystem.scenario.scenario import Scenario
from ecosystem.sources.base import Truth
from ecosystem.streams import Streams
from ecosystem.studies.executors.options import ExecutionKeywords, ExecutionOptions
from ecosystem.studies.frontier_result import (
    CHART,
    FrontierResult,
    crossing_chart,
    finding,
    means,
    notes,
    summary,
    tried_values,
)
from ecosystem.studies.progress import StudyProgress
from ecosystem.studies.report.pages import PAGES
from ecosystem.studies.results import TRAINING, training_rows, untrained, write_table
from ecosystem.studies.run_plan import RunPlan
from ecosystem.studies.run_study import StudyRunner, finished, study_folder
from ecosystem.studies.spec.frontier import Frontier
from ecosystem.studies.spec.measure import course_of, value_of
from ecosystem.studies.threshold import Threshold, most_values, search
from ecosystem.theory.laws import predict
from ecosystem.types import Floats

_GRID = 2001  # values of the lever at which the closed form is evaluated


def frontier(
    file: Frontier | str | Path,
    out: str | Path = "outputs",
    *,
    quiet: bool = True,
    base: Path = Path(),
    plugins: Iterable[str | Path] = (),
    **options: Unpack[ExecutionKeywords],
) -> FrontierResult:
    """Search for the threshold of a frontier (a Frontier or the path of a file); return it and the path of its report.

    ``base`` is the folder to which the base scenario of a Frontier object is relative. ``plugins`` are Python files
    with kinds that the scenario uses (:func:`ecosystem.load_plugin`), and ``options`` are fields of
    :class:`~ecosystem.studies.executors.options.ExecutionOptions` (engine, jobs, threads, device, …). The command
    ``ecosystem threshold`` does the same. Raises EcosystemError for errors that the user can correct.
    """
    load_plugins(plugins)
    if not isinstance(file, Frontier):
        path = located(path_of(file, "Frontier"), prefer=STUDIES)
        base, file = path.parent, Frontier.load(path)
    return run_frontier(
        file, base, ExecutionOptions.of(options), StudyProgress(quiet=quiet), out=str(path_argument(out, "out"))
    )


def run_frontier(
    frontier: Frontier, base: Path, options: ExecutionOptions, progress: StudyProgress, *, out: str = "outputs"
) -> FrontierResult:
    """Search for the threshold of a frontier; return it and the path of its report.

    ``base`` is the folder of the frontier's file. Finished runs are reused. Raises ScenarioError if a value gives an
    invalid scenario, and EcosystemError if a run fails after all attempts.
    """
    frontier = frontier.resolved(base)
    frontier.check(base)
    scenario, folder = frontier.scenario(base, frontier.range.at(1.0), frontier.seeds[0])
    if scenario.placement is not None:
        progress.say(f"note: {IGNORED_BY_STUDIES}.")
    with study_folder(frontier, out, "frontiers", "frontier.json") as store, StudyRunner(options, progress) as runner:
        runs = _FrontierRuns(frontier, base, options, out, runner)
        threshold = search(runs.evaluate, frontier.range, frontier.limit, frontier.precision)
        threshold = replace(
            threshold,
            predicted=predicted_threshold(frontier, scenario, folder),
            untrained=dict(sorted(runs.untrained.items())),
        )
        store.write("frontier.json", json.dumps(summary(frontier, threshold), indent=1).encode())
        write_table(store, "tried", tried_values(frontier, threshold))
        report = _write_report(frontier, threshold, store)
    return FrontierResult(threshold, report, frontier)


def planned_search(frontier: Frontier, base: Path, out: str) -> tuple[list[dict[str, Any]], int]:
    """Return a record for each run at the ends of the range, and the most runs that the search may need.

    A record has the keys of those of :func:`planned`; ``base`` is the folder of the frontier's file.
    """
    frontier = frontier.resolved(base)
    folder, cells = frontier.base_scenario(base)[1], []
    plan = RunPlan(folder, ExecutionOptions(), out)
    for value in (frontier.range.at(0.0), frontier.range.at(1.0)):
        scenarios = [frontier.scenario(base, value, seed)[0] for seed in frontier.seeds]
        require_inputs(scenarios, folder, frontier.where)
        cells += [(f"{frontier.path} = {value:g}, seed {s.seed}", plan.add_run(s, "")) for s in scenarios]
    done = finished(plan.runs)
    records = [{"cell": label, "run": plan.runs[n].place, "finished": done[n]} for label, n in cells]
    return records, most_values(frontier.range, frontier.precision) * len(frontier.seeds)


class _FrontierRuns:
    """Runs all seeds at the values of the lever that the search tries."""

    def __init__(
        self, frontier: Frontier, base: Path, options: ExecutionOptions, out: str, runner: StudyRunner
    ) -> None:
        self._frontier, self._base = frontier, base
        self._options, self._out, self._runner = options, out, runner
        self.untrained: dict[float, str] = {}  # value of the lever → trainers that did not train

    def evaluate(self, x: float | int) -> Floats:
        """Run all seeds at one value of the lever; return the values to compare with the limit, shape [seeds]."""
        frontier = self._frontier
        scenarios = [frontier.scenario(self._base, x, seed)[0] for seed in frontier.seeds]
        runs = self._runs(x, scenarios)
        rows = [
            ("", "", scenario.seed, *row)
            for scenario, run in zip(scenarios, runs, strict=True)
            for row in training_rows(run.metrics, scenario)
        ]
        if note := untrained(pl.DataFrame(rows, schema=TRAINING, orient="row"), frontier.measure.of):
            self.untrained[x] = note
        steps = [scenario.steps for scenario in scenarios]
        return np.array([compared_value(frontier, run, last) for run, last in zip(runs, steps, strict=True)])

    def _runs(self, x: float | int, scenarios: Sequence[Scenario]) -> list[Run]:
        """Execute the unfinished runs of these scenarios and open all; raise EcosystemError if one fails."""
        plan = RunPlan(self._frontier.base_scenario(self._base)[1], self._options, self._out)
        numbers = [plan.add_run(scenario, f"{x:g}, seed {scenario.seed}") for scenario in scenarios]
        results = self._runner.execute(plan, f"{self._frontier.name} at {x:g}")
        error = next((result.error for result in results if result.error), "")
        if error:
            raise EcosystemError(f"{self._frontier.where}: a run failed: {error}")
        return [open_run(results[n].run) for n in numbers]


def compared_value(frontier: Frontier, run: Run, steps: int) -> float:
    """Return the value of a run of ``steps`` steps to compare with the limit; NaN if it was not measured."""
    course = course_of(run.metrics, frontier.measure)
    value = value_of(course, frontier.measure, steps)
    if value is None or frontier.since is None:
        return math.nan if value is None else value
    start = course.filter(pl.col("step") == frontier.since)["value"]
    return math.nan if start.is_empty() else value - float(start[0])


def predicted_threshold(frontier: Frontier, scenario: Scenario, base: Path) -> float | None:
    """Return the value of the lever at which the closed form crosses the limit; None if there is none.

    ``scenario`` provides the source and the steps of the law; ``base`` is the folder of its relative paths. The law is
    evaluated on a fixed grid over the range, so the error is at most half a cell.
    """
    form = frontier.closed_form
    if form is None:
        return None
    truth: Truth | None = None
    if scenario.web.initial is not None:
        name = scenario.web.initial.source
        truth = scenario.sources[name].open(name, Streams(scenario.seed), base).truth
    t = np.array([frontier.measure.steps(scenario.steps)[1] + form.first])
    shares = np.linspace(0, 1, _GRID)
    arguments = [{**form.parameters, form.varies: frontier.range.at(u) / form.divided_by} for u in shares]
    above = np.array([float(predict(form.law, t, values, truth)[0]) - frontier.limit for values in arguments])
    crossings = np.flatnonzero(np.sign(above[:-1]) != np.sign(above[1:]))
    if not crossings.size:
        return None
    first = crossings[0]
    return float(frontier.range.at(float(shares[first] + shares[first + 1]) / 2))


def _write_report(frontier: Frontier, threshold: Threshold, store: Store) -> Path:
    rows = means(threshold)
    table = Table(
        [frontier.path, frontier.measure.name, "95 % interval", *(f"seed {seed}" for seed in frontier.seeds)],
        [
            [f"{r['value']:g}", number(r["measure"], 4), f"{number(r['low'], 4)} to {number(r['high'], 4)}"]
            + [number(float(y), 4) for y in threshold.tried[r["value"]]]
            for r in rows.iter_rows(named=True)
        ],
    )
    specs = {CHART: charts.specification(crossing_chart(frontier, threshold))}
    context = {
        "title": frontier.name,
        "description": frontier.description,
        "findings": " ".join(filter(None, [finding(frontier, threshold), *notes(frontier, threshold)])),
        "figure": Figure.of(CHART, specs[CHART], Source(store.folder.name), full=True),
        "table": table,
    }
    return publish(store, "frontier.html", context, specs, 0, PAGES)
