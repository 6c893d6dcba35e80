"""What every part of a report reads: the tables of a run, and what all its charts share."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import polars as pl

from ecosystem.metrics.laws import TRUTH
from ecosystem.report import charts, closed_forms, summaries
from ecosystem.report.charts import ChartTheme
from ecosystem.report.closed_forms import Agreement
from ecosystem.report.html import Figure
from ecosystem.report.summaries import Outcome
from ecosystem.runs.run import Run
from ecosystem.scenario.scenario import Scenario
from ecosystem.sources.base import EndlessSource, Truth
from ecosystem.streams import Streams


@dataclass
class RunReportData:
    """A run being reported: its tables, what all charts share, and the charts drawn so far."""

    run: Run
    metrics: pl.DataFrame
    theme: ChartTheme
    models: dict[str, str]  # population → name of its model
    started: dict[str, str]  # the same, of populations that start from given weights rather than anew at each fit
    specs: dict[str, dict[str, Any]] = field(default_factory=dict)
    _segments: dict[int, pl.DataFrame] = field(default_factory=dict)
    _laws: dict[str, pl.DataFrame] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        run: Run,
        metrics: pl.DataFrame | None = None,
        scenario: Scenario | None = None,
        last: int | None = None,
    ) -> RunReportData:
        """Read the tables of a run; raise StoreError where one is damaged.

        Of a run that goes on are given its metrics so far, the scenario that it is at, and where its charts are to end.
        """
        scenario, last = scenario or run.scenario, run.steps if last is None else last
        changes = [(c.at, ", ".join(f"{path} = {value}" for path, value in c.set.items())) for c in scenario.changes]
        trainers = scenario.trainers
        return cls(
            run=run,
            metrics=run.metrics if metrics is None else metrics,
            theme=ChartTheme(list(trainers), last, 0, sorted((at, what) for at, what in changes if at <= last)),
            models={name: recipe.model for name, recipe in trainers.items()},
            started={name: recipe.model for name, recipe in trainers.items() if recipe.start != "scratch"},
        )

    @property
    def populations(self) -> list[str]:
        """All populations, in the order of their colours."""
        return list(self.theme.populations)

    @cached_property
    def outcomes(self) -> list[Outcome]:
        """What became of each population, in the order of the scenario."""
        by_name = {o.population: o for o in summaries.outcomes(self.metrics, self.models, self.started)}
        return [by_name[name] for name in self.theme.populations if name in by_name]

    @cached_property
    def agreements(self) -> list[Agreement]:
        """What the scenario's closed forms predict for the last step, and what came out."""
        return closed_forms.agreements(self.metrics, self.run.scenario.theory, self.run.steps, self.truth)

    @cached_property
    def truth(self) -> Truth | None:
        """What the initial source knows exactly of its documents: an endless one, or where closed forms ask for it."""
        scenario = self.run.scenario
        initial = scenario.web.initial
        if initial is None:
            return None
        source = scenario.sources[initial.source]
        if not isinstance(source, EndlessSource) and not any(TRUTH in t.parameters.values() for t in scenario.theory):
            return None  # to open it might mean to read files, which need not be where they were
        return source.open(initial.source, Streams(self.run.seed), self.run.path).truth

    def laws(self, metric: str) -> pl.DataFrame:
        """Return the scenario's closed forms of a metric up to where charts end (as :func:`closed_forms.laws`)."""
        if metric not in self._laws:
            self._laws[metric] = closed_forms.laws(self.run.scenario.theory, metric, self.theme.last, self.truth)
        return self._laws[metric]

    def segment(self, step: int) -> pl.DataFrame:
        """Return the documents of a step (columns of ``schema.SEGMENT``), read once."""
        if step not in self._segments:
            self._segments[step] = self.run.store.table("corpus", range(step, step + 1))
        return self._segments[step]

    def published(self, step: int) -> pl.DataFrame:
        """Return the documents of a step that no gate refused."""
        return self.segment(step).filter(pl.col("verdict").is_null())

    def figure(self, name: str, chart: Any, *, full: bool = False) -> Figure:
        """Keep a chart and return its place on the page."""
        self.specs[name] = charts.specification(chart)
        return Figure.of(name, self.specs[name], full=full)
