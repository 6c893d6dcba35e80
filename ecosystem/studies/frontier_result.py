"""The result of a search for a threshold: its sentences, its tables, and its card and chart for notebooks."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from ecosystem.cards import Grid, card
from ecosystem.metrics.intervals import mean_interval
from ecosystem.notebook.chart_set import ChartSet
from ecosystem.report import charts
from ecosystem.report.charts import ChartLabels
from ecosystem.studies.spec.frontier import Frontier
from ecosystem.studies.threshold import Threshold

if TYPE_CHECKING:
    import pandas as pd
    from altair.typing import ChartType

CHART = "frontier"  # the name of the only chart


class FrontierResult(tuple[Threshold, Path]):
    """The result of a frontier; it can be unpacked: ``threshold, report = ecosystem.frontier(file)``."""

    frontier: Frontier
    """What was asked."""

    def __new__(cls, threshold: Threshold, report: Path, frontier: Frontier) -> FrontierResult:
        """Return a result with its parts."""
        result = super().__new__(cls, (threshold, report))
        result.frontier = frontier
        return result

    def __getnewargs__(self) -> tuple[Any, ...]:
        """Return what a copy is made from."""
        return *self, self.frontier

    @property
    def threshold(self) -> Threshold:
        """The value of the lever at the crossing, with its interval and all values tried."""
        return self[0]

    @property
    def report(self) -> Path:
        """The path of the report."""
        return self[1]

    @cached_property
    def plot(self) -> FrontierPlots:
        """The chart of the search as an Altair object: ``result.plot.crossing()``."""
        return FrontierPlots(self.frontier, self.threshold)

    def to_pandas(self) -> pd.DataFrame:
        """Return the measure of every run as a pandas data frame: columns value (of the lever), seed and measure."""
        return tried_values(self.frontier, self.threshold).to_pandas()

    def summary(self) -> dict[str, Any]:
        """Return a machine-readable summary."""
        return summary(self.frontier, self.threshold) | {"report": str(self.report)}

    def __repr__(self) -> str:
        return f"<FrontierResult {self.frontier.name}: {finding(self.frontier, self.threshold)} Report {self.report}>"

    def _repr_html_(self) -> str:
        frontier, threshold = self.frontier, self.threshold
        facts = {
            "finding": " ".join([finding(frontier, threshold), *notes(frontier, threshold)]),
            "closed form": threshold.predicted,
            "report": str(self.report),
        }
        head = [frontier.path, frontier.measure.name, "95 % interval from", "to"]
        grid = Grid(f"Mean over {len(frontier.seeds)} seeds at every value tried", head, means(threshold).rows())
        return card(f"Threshold {frontier.name}", frontier.description, facts, grid)


class FrontierPlots(ChartSet):
    """The chart of a search for a threshold, by method or by its name in the report."""

    def __init__(self, frontier: Frontier, threshold: Threshold) -> None:
        super().__init__()
        self._frontier, self._threshold = frontier, threshold

    def crossing(self) -> ChartType:
        """Draw the measure at every value tried, with the limit and the interval of the threshold."""
        return self[CHART]

    def _specs(self) -> Mapping[str, dict[str, Any]]:
        return {CHART: charts.specification(crossing_chart(self._frontier, self._threshold))}


def tried_values(frontier: Frontier, threshold: Threshold) -> pl.DataFrame:
    """Return the measure of every run: columns value (of the lever), seed, measure."""
    rows = [(x, seed, y) for x, ys in threshold.tried.items() for seed, y in zip(frontier.seeds, ys, strict=True)]
    return pl.DataFrame(rows, schema=["value", "seed", "measure"], orient="row")


def means(threshold: Threshold) -> pl.DataFrame:
    """Return the mean over seeds at every value tried, with its 95 % interval: columns value, measure, low, high."""
    intervals = ((x, mean_interval(y)) for x, y in threshold.tried.items())
    rows = [(x, interval.mean, interval.low, interval.high) for x, interval in intervals]
    return pl.DataFrame(rows, schema=["value", "measure", "low", "high"], orient="row")


def crossing_chart(frontier: Frontier, threshold: Threshold) -> Any:
    """Draw the mean at every value tried, the limit, and the threshold with its interval."""
    since = f", change since step {frontier.since}" if frontier.since is not None else ""
    labels = ChartLabels(
        f"{frontier.measure.name}{since}",
        f"mean over {len(frontier.seeds)} seeds with 95 % interval at every value tried; shaded: interval of the "
        "threshold",
        frontier.measure.axis,
        ".3~g",
    )
    marks = {"threshold": threshold.value, "closed form": threshold.predicted}
    return charts.crossing(
        means(threshold),
        frontier.limit,
        (threshold.low, threshold.high) if threshold.value is not None else None,
        {name: x for name, x in marks.items() if x is not None},
        labels,
        frontier.path,
        log=frontier.range.scale == "log",
    )


def summary(frontier: Frontier, threshold: Threshold) -> dict[str, Any]:
    """Return a machine-readable summary, for ``frontier.json`` and ``--json``."""
    return {
        "frontier": frontier.plain(),
        "threshold": threshold.value,
        "interval": [threshold.low, threshold.high],
        "closed_form": threshold.predicted,
        "rising": threshold.rising,
        "values_tried": len(threshold.tried),
        "untrained": {f"{x:g}": trainers for x, trainers in threshold.untrained.items()},
    }


def finding(frontier: Frontier, threshold: Threshold) -> str:
    """Describe the threshold, its interval, and whether the interval contains the closed form."""
    means = [float(y.mean()) for y in threshold.tried.values()]
    name = frontier.measure.name
    if threshold.value is None:
        changes = {True: "rises", False: "falls", None: "goes"}[threshold.rising]
        noise = ", no significant change (5 %)," if threshold.rising is None else ""
        return (
            f"{name} {changes} from {means[0]:.4g} to {means[-1]:.4g}{noise} between {frontier.path} = "
            f"{frontier.range.low:g} and {frontier.range.high:g}, and does not cross {frontier.limit:g}; "
            f"{_outside(frontier, threshold)}."
        )
    beyond = [
        f"{end:.4g}"
        for end, edge in ((threshold.low, frontier.range.at(0.0)), (threshold.high, frontier.range.at(1.0)))
        if end == edge
    ]
    open_end = f" and perhaps beyond {' and '.join(beyond)}" if beyond else ""
    sentence = (
        f"{name} crosses {frontier.limit:g} at {frontier.path} = {threshold.value:.4g} (95 % interval "
        f"{threshold.low:.4g} to {threshold.high:.4g}{open_end}; {len(frontier.seeds)} seeds at each of "
        f"{len(threshold.tried)} values)."
    )
    if threshold.predicted is None:
        return sentence
    inside = "inside" if threshold.low <= threshold.predicted <= threshold.high else "outside"
    return f"{sentence} The closed form predicts {threshold.predicted:.4g}, {inside} the interval."


def _outside(frontier: Frontier, threshold: Threshold) -> str:
    """State where the threshold may be if the mean does not cross the limit within the range."""
    if threshold.low == threshold.high:
        return "the threshold is outside this range"
    nearest = min(threshold.tried, key=lambda x: abs(float(threshold.tried[x].mean()) - frontier.limit))
    return (
        f"at {nearest:g} it does not differ significantly (5 %) from the limit, so the threshold may be there or "
        "outside this range"
    )


def untrained_note(frontier: Frontier, threshold: Threshold) -> str:
    """State at which values trainers had nothing to train on; "" if there are none."""
    if not threshold.untrained:
        return ""
    values = "; ".join(f"{x:g} ({trainers})" for x, trainers in threshold.untrained.items())
    return (
        f"Trainers had nothing to train on at {frontier.path} = {values}; the measure at these values is that of "
        "their previous models."
    )


def notes(frontier: Frontier, threshold: Threshold) -> list[str]:
    """Return what a reader must know of the search: which values were not tried, and where trainers did not train."""
    whole = [f"Only whole numbers of {frontier.path} were tried."] if frontier.range.whole else []
    return whole + [note for note in [untrained_note(frontier, threshold)] if note]
