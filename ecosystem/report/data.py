"""The data of a report: the tables of a run, and the theme of its charts."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import polars as pl

from ecosystem.report import charts, closed_forms, summaries
from ecosystem.report.charts import ChartTheme
from ecosystem.report.closed_forms import Agreement
from ecosystem.report.html import Figure
from ecosystem.report.summaries import Outcome
from ecosystem.runs.run import Run
from ecosystem.scenario.scenario import Scenario
from ecosystem.sources.base import EndlessSource, Truth
from ecosystem.streams import Streams
from ecosystem.theory.laws import TRUTH


@dataclass
class RunReportData:
    """A run being reported: its tables, the theme of its charts, and the charts drawn so far."""

    run: Run
    metrics: pl.DataFrame
    theme: ChartTheme
    models: dict[str, str]  # population → name of its model
    started: dict[str, str]  # the same, for populations that start from given weights instead of anew at each fit
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
        """Read the tables of a run; raise StoreError if one is damaged.

        For a running run, give its ``metrics`` so far, its current ``scenario``, and the ``last`` step of its charts.
        """
        scenario, last = scenario or run.scenario, run.last_step if last is None else last
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
        """Outcome of each population, in the order of the scenario."""
        by_name = {o.population: o for o in summaries.outcomes(self.metrics, self.models, self.started)}
        return [by_name[name] for name in self.theme.populations if name in by_name]

    @cached_property
    def agreements(self) -> list[Agreement]:
        """Predictions of the closed forms of the scenario for the last step, and the simulated values."""
        return closed_forms.agreements(self.metrics, self.run.scenario.theory, self.run.last_step, self.truth)

    @cached_property
    def truth(self) -> Truth | None:
        """Truth of the initial source: of an endless source, or if a closed form of the scenario needs it."""
        scenario = self.run.scenario
        initial = scenario.web.initial
        if initial is None:
            return None
        source = scenario.sources[initial.source]
        if not isinstance(source, EndlessSource) and not any(TRUTH in t.parameters.values() for t in scenario.theory):
            return None  # opening it may read files, which may have moved
        return source.open(initial.source, Streams(self.run.seed), self.run.path).truth

    def laws(self, metric: str) -> pl.DataFrame:
        """Return the closed forms of a metric up to the last step of the charts (as :func:`closed_forms.laws`)."""
        if metric not in self._laws:
            self._laws[metric] = closed_forms.laws(self.run.scenario.theory, metric, self.theme.last, self.truth)
        return self._laws[metric]

    def segment(self, step: int) -> pl.DataFrame:
        """Return the documents of a step (columns of ``schema.SEGMENT``); read them once."""
        if step not in self._segments:
            self._segments[step] = self.run.store.table("corpus", range(step, step + 1))
        return self._segments[step]

    def published(self, step: int) -> pl.DataFrame:
        """Return the documents of a step that no gate refused."""
        return self.segment(step).filter(pl.col("verdict").is_null())

    def figure(self, name: str, chart: Any, *, full: bool = False) -> Figure:
        """Store a chart and return its place on the page."""
        self.specs[name] = charts.specification(chart)
        return Figure.of(name, self.specs[name], full=full)
