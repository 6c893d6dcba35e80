"""Measures: the one number per run that a study or a frontier compares."""

from __future__ import annotations

from typing import Annotated, Literal

import polars as pl
from pydantic import AfterValidator, Field, model_validator

from ecosystem.errors import nearest
from ecosystem.metrics.catalogue import definitions, name_of
from ecosystem.scenario.scenario import Scenario
from ecosystem.spec import Spec
from ecosystem.times import InTime, as_written

Step = Annotated[int, Field(ge=0, le=10**9), InTime("moment")]
WEB = "web"  # the value of Measure.of that selects the metrics of the whole web
_PARTS = {"instruments.": "instrument", "web.types.": "site_type"}  # paths of entries of a scenario: their scope


class Measure(Spec):
    """One number per run: a metric of some trainers or of the web, at one step or averaged over a window of steps."""

    metric: Annotated[str, AfterValidator(name_of)] = Field(description="name of a metric (`ecosystem list metrics`)")
    of: str | None = Field(
        None,
        description="a population of trainers to average over, web, an instrument (instruments.NAME) or a type of "
        "sites (web.types.NAME); default: all trainers",
    )
    at: Step | None = Field(None, description="the step of the value; default: the last step")
    window: Annotated[list[Step], Field(min_length=2, max_length=2)] | None = Field(
        None, description="first and last step of the window to average over, instead of one step"
    )
    goal: Literal["lower", "higher"] | None = Field(
        None, description="whether lower or higher values are better; default: the direction of the metric"
    )

    @model_validator(mode="after")
    def _check(self) -> Measure:
        metrics = definitions()
        if self.metric not in metrics:
            close = nearest(self.metric, metrics)
            raise ValueError(f'metric: there is no metric "{self.metric}"{close}; see `ecosystem list metrics`')
        if self.at is not None and self.window is not None:
            raise ValueError("window: give either at (one step) or window (first and last step), not both")
        if self.window is not None and self.window[0] > self.window[1]:
            raise ValueError(f"window: {self.window[0]} comes after {self.window[1]}; give the first step first")
        if self.goal is None and not metrics[self.metric].better:
            raise ValueError(f'goal: set goal = "lower" or "higher"; {self.metric} has no preferred direction')
        return self

    def mismatch(self, scenario: Scenario) -> str:
        """Explain why runs of this scenario lack the measure; "" if they have it.

        The explanation starts with the name of the wrong field.
        """
        allowed = [*scenario.trainers, WEB, *(f"instruments.{name}" for name in scenario.instruments)]
        allowed += [f"web.types.{name}" for name in scenario.web.types or {}]
        if self.of is not None and self.of not in allowed:
            entry = self.of if any(self.of.startswith(path) for path in _PARTS) else f"trainers.{self.of}"
            return f"of: there is no [{entry}]{nearest(self.of, allowed)}; choose from {', '.join(allowed)}"
        last = self.steps(scenario.steps)[1]
        if last > scenario.steps:
            field = "at" if self.window is None else "window"
            return f"{field}: {scenario.step_name(last)} comes after the last step, {scenario.steps}"
        return ""

    @property
    def name(self) -> str:
        """The name in tables: population, metric and steps, for instance ``lab/w2@2-4``."""
        when = "" if self.at is None else f"@{as_written(self.at)}"
        if self.window is not None:
            when = f"@{as_written(self.window[0])}-{as_written(self.window[1])}"
        return f"{self.of}/{self.metric}{when}" if self.of else f"{self.metric}{when}"

    @property
    def unit(self) -> str:
        """The unit of the metric; "1" for a pure number."""
        return definitions()[self.metric].unit

    @property
    def axis(self) -> str:
        """The title of a chart axis: the unit, or the metric's name if it has none."""
        return self.unit if self.unit != "1" else self.metric

    @property
    def lower_is_better(self) -> bool:
        """Whether a smaller value is better."""
        return (self.goal or definitions()[self.metric].better) == "lower"

    def steps(self, last: int) -> tuple[int, int]:
        """Return the first and last step to average over in a run of ``last`` steps."""
        if self.window is not None:
            return self.window[0], self.window[1]
        step = last if self.at is None else self.at
        return step, step


def course_of(metrics: pl.DataFrame, measure: Measure) -> pl.DataFrame:
    """Return a measure's metric over the steps of a run: columns ``step`` and ``value``.

    Values are means over trainers, or over training sets if trainers do not have the metric. They are the web's if
    neither has it or ``measure.of`` is ``web``, or those of the instrument or type of sites that it names.
    """
    rows = metrics.filter((pl.col("metric") == measure.metric) & pl.col("value").is_not_null())
    for path, part in _PARTS.items():
        if measure.of is not None and measure.of.startswith(path):
            own = rows.filter((pl.col("scope") == part) & (pl.col("id") == measure.of.removeprefix(path)))
            return own.select(pl.col("step").cast(pl.Int64), "value").sort("step")
    scopes = set(rows["scope"].unique())
    scope = next((s for s in ("trainer", "training_set") if s in scopes and measure.of != WEB), WEB)
    rows = rows.filter(pl.col("scope") == scope)
    if measure.of not in (None, WEB):
        rows = rows.filter(pl.col("id").str.split("/").list.first() == measure.of)
    means = rows.group_by("step", maintain_order=True).agg(pl.col("value").mean()).sort("step")
    return means.select(pl.col("step").cast(pl.Int64), "value")


def value_of(course: pl.DataFrame, measure: Measure, last: int) -> float | None:
    """Return the value of a measure in a run of ``last`` steps; None if none of its steps has a value.

    ``course`` is a table from :func:`course_of`.
    """
    first, final = measure.steps(last)
    values = course.filter(pl.col("step").is_between(first, final))["value"]
    return None if values.is_empty() else float(values.mean())  # type: ignore[arg-type]


def populations(metrics: pl.DataFrame, measure: Measure) -> frozenset[str]:
    """Return the populations that a measure of all trainers averages over."""
    rows = metrics.filter((pl.col("metric") == measure.metric) & pl.col("scope").is_in(["trainer", "training_set"]))
    return frozenset(rows["id"].str.split("/").list.first().unique())
