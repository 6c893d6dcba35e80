"""The data of a report: the tables of a run and the theme of its charts."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import polars as pl

from ecosystem.calendar import step_name
from ecosystem.report import charts, closed_forms, profile, summaries
from ecosystem.report.charts import ChartTheme
from ecosystem.report.closed_forms import Agreement
from ecosystem.report.html import Figure, Source
from ecosystem.report.profile import signals
from ecosystem.report.summaries import Outcome
from ecosystem.runs.run import Run
from ecosystem.scenario.scenario import Scenario
from ecosystem.sources.base import EndlessSource, Truth
from ecosystem.streams import Streams
from ecosystem.theory.laws import TRUTH


@dataclass
class RunReportData:
    """The tables of a run, the theme of its charts, and the charts drawn so far."""

    run: Run
    metrics: pl.DataFrame
    theme: ChartTheme
    models: dict[str, str]  # population → model name
    started: dict[str, str]  # the same, without populations that train from scratch at every fit
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
        """Read the tables of a run.

        For a run in progress, pass its ``metrics`` so far, its current ``scenario``, and the ``last`` step of charts.
        Raises StoreError if a table is damaged.
        """
        scenario, last = scenario or run.scenario, run.last_step if last is None else last
        changes = [
            (change.at, ", ".join(f"{path} = {value}" for path, value in change.set.items()))
            for change in scenario.changes
        ]
        trainers, metrics = scenario.trainers, run.store.table("metrics") if metrics is None else metrics
        changes += summaries.switches(metrics)
        return cls(
            run=run,
            metrics=metrics,
            theme=ChartTheme(
                list(trainers),
                last,
                0,
                sorted((step, text) for step, text in changes if step <= last),
                scenario.calendar,
            ),
            models={name: spec.model for name, spec in trainers.items()},
            started={name: spec.model for name, spec in trainers.items() if spec.start != "scratch"},
        )

    def step_name(self, t: int) -> str:
        """Return a step as sentences name it, with its date if there is a calendar."""
        return step_name(t, self.theme.calendar)

    @property
    def populations(self) -> list[str]:
        """Populations of trainers, in the order of their colours."""
        return list(self.theme.populations)

    @cached_property
    def choosing(self) -> ChartTheme:
        """Theme of the charts of writers with a choice."""
        names = [name for name, writer in self.run.scenario.writers.items() if writer.choice is not None]
        return replace(self.theme, populations=names)

    @cached_property
    def outcomes(self) -> list[Outcome]:
        """Outcomes of the populations, in the order of the scenario."""
        by_name = {o.population: o for o in summaries.outcomes(self.metrics, self.models, self.started)}
        return [by_name[name] for name in self.theme.populations if name in by_name]

    @cached_property
    def agreements(self) -> list[Agreement]:
        """Closed forms of the scenario and the simulated values, at the last step."""
        return closed_forms.agreements(self.metrics, self.run.scenario.theory, self.run.last_step, self.truth)

    @cached_property
    def profile(self) -> pl.DataFrame:
        """Verdicts of the eight definitions of collapse (columns of :data:`profile.PROFILE`)."""
        groups = profile.size_groups(self.run.scenario.trainers)
        return profile.profile(self.metrics, self.models, self.started, profile.useless(self.truth), groups)

    @cached_property
    def departures(self) -> pl.DataFrame:
        """Order in which signals left their baseline (columns of :data:`signals.DEPARTURES`)."""
        return signals.departures(signals.changes(self.metrics))

    @cached_property
    def truth(self) -> Truth | None:
        """Truth of the true source, if it is endless or a closed form of the scenario needs it; else None."""
        scenario = self.run.scenario
        name = scenario.true_source
        if name is None:
            return None
        source = scenario.sources[name]
        if not isinstance(source, EndlessSource) and not any(TRUTH in t.parameters.values() for t in scenario.theory):
            return None  # opening the source may read files that have moved
        return source.open(name, Streams(self.run.seed), self.run.path).truth

    def laws(self, metric: str) -> pl.DataFrame:
        """Return :func:`closed_forms.laws` of a metric up to the last step of the charts."""
        if metric not in self._laws:
            self._laws[metric] = closed_forms.laws(self.run.scenario.theory, metric, self.theme.last, self.truth)
        return self._laws[metric]

    def segment(self, step: int) -> pl.DataFrame:
        """Return the documents of a step (columns of ``schema.SEGMENT``), cached after the first read.

        Of an opening in batches, only the first batch is read.
        """
        if step not in self._segments:
            self._segments[step] = next(self.run.store.frames("corpus", range(step, step + 1)))
        return self._segments[step]

    def published(self, step: int) -> pl.DataFrame:
        """Return the documents of a step that no gate refused."""
        return self.segment(step).filter(pl.col("verdict").is_null())

    def figure(self, name: str, chart: Any, *, full: bool = False) -> Figure:
        """Store a chart by name and return its figure."""
        self.specs[name] = charts.specification(chart)
        folder = "/".join(self.run.path.resolve().parts[-2:])
        return Figure.of(name, self.specs[name], Source(folder, is_run=True), full=full)
