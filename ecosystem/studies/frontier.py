"""Frontiers: where along one lever a measure crosses a limit, found by bisection, with an interval.

The same seeds run at every value that is tried (common random numbers), so that the mean over seeds is a fixed function
of the lever and can be bisected; its standard error at each value says how far the crossing may lie to either side.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ecosystem.errors import EcosystemError, path_of
from ecosystem.metrics.laws import predict
from ecosystem.report import charts, publish
from ecosystem.report.charts import ChartLabels
from ecosystem.report.html import Figure, Table
from ecosystem.runs.formats import number
from ecosystem.runs.run import Run
from ecosystem.runs.store import Store
from ecosystem.scenario.scenario import Scenario
from ecosystem.sources.base import Truth
from ecosystem.streams import Streams
from ecosystem.studies.design import Range
from ecosystem.studies.object_store import opened
from ecosystem.studies.progress import Board
from ecosystem.studies.report.pages import PAGES
from ecosystem.studies.results import TRAINING, course_of, trained, untrained, value_of, write_table
from ecosystem.studies.run_study import Means, Plan, Workshop, telling
from ecosystem.studies.statistics import LEVEL, mean_interval
from ecosystem.studies.study import WEB, Frontier

Floats = NDArray[np.float64]
Evaluate = Callable[[list[float | int]], list[Floats]]
"""Values of the lever → the measure of every seed at each of them, each of shape [seeds]."""


@dataclass(frozen=True)
class Threshold:
    """Where the mean over seeds crosses the limit; None where it does not within the range.

    ``low`` and ``high``: the ends of the 95 % interval, all values at which the mean cannot be told from the limit
    (inversion of Student's test), the resolution of the search included; an end that is the range's own may lie beyond
    it. ``predicted``: what the closed form says.
    """

    value: float | None
    low: float
    high: float
    rising: bool  # whether the measure grows along the lever
    predicted: float | None = None
    tried: dict[float, Floats] = field(default_factory=dict)  # value of the lever → measures, each of shape [seeds]
    idle: dict[float, str] = field(default_factory=dict)  # value of the lever → which trainers did not train there


def measured(frontier: Frontier, run: Run, steps: int) -> float:
    """Return what is held against the limit, of one run; NaN where it was not measured."""
    course = course_of(run.metrics, frontier.measure)
    value = value_of(course, frontier.measure, steps)
    if value is None or frontier.since is None:
        return math.nan if value is None else value
    start = course.filter(pl.col("step") == frontier.since)["value"]
    return math.nan if start.is_empty() else value - float(start[0])


def search(evaluate: Evaluate, span: Range, limit: float, precision: float = 0.01, level: float = LEVEL) -> Threshold:
    """Find where the mean of a measure that rises or falls along a lever crosses ``limit``, by bisection.

    Three crossings are bisected, of the mean and of both ends of its interval over seeds, to ``precision`` of the range
    each; a value that has been tried is not tried again, and nothing between the ends where the mean is on one side of
    the limit at both. Raises EcosystemError where a run has no value.
    """
    tried: dict[float, Floats] = {}

    def at(u: float) -> Floats:
        x = span.at(u)
        if x not in tried:
            [tried[x]] = evaluate([x])
            missing = int((~np.isfinite(tried[x])).sum())
            if missing:
                raise EcosystemError(
                    f"at {x:g}: {missing} of {tried[x].size} runs failed or did not record the measure at its step."
                )
        return tried[x] - limit

    def edge(u: float, side: int) -> float:
        """The mean over seeds, or an end of its interval, above the limit."""
        found = mean_interval(at(u), level)
        return (found.mean, found.high, found.low)[side]

    rising = edge(1.0, 0) > edge(0.0, 0)
    sign = 1 if rising else -1

    def crossing(side: int, precision: float = precision) -> tuple[float, float]:
        """Bracket where an edge crosses zero; an end of the range twice where it has crossed there, or never does."""
        low, high = 0.0, 1.0
        if sign * edge(low, side) > 0:
            return low, low
        if sign * edge(high, side) < 0:
            return high, high
        while high - low > precision:
            middle = (low + high) / 2
            if span.at(middle) in (span.at(low), span.at(high)):
                break  # whole numbers: nothing lies between
            low, high = (low, middle) if sign * edge(middle, side) > 0 else (middle, high)
        return low, high

    # Where it is crossed on average, where it may be already, and where it surely is.
    centre = crossing(0)
    finely = precision if centre[0] < centre[1] else 1.0
    first, last = crossing(sign, finely), crossing(-sign, finely)
    return Threshold(
        value=float(span.at(sum(centre) / 2)) if centre[0] < centre[1] else None,
        low=float(span.at(first[0])),
        high=float(span.at(last[1])),
        rising=rising,
        tried=dict(sorted(tried.items())),
    )


def predicted(frontier: Frontier, scenario: Scenario, base: Path) -> float | None:
    """Return where the closed form crosses the limit within the range; None where it does not, or there is none."""
    form = frontier.closed_form
    if form is None:
        return None
    truth: Truth | None = None
    if scenario.web.initial is not None:
        name = scenario.web.initial.source
        truth = scenario.sources[name].open(name, Streams(scenario.seed), base).truth
    t = np.array([frontier.measure.steps(scenario.steps)[1] + form.first])
    known = np.linspace(0, 1, 2001)

    def at(u: float) -> float:
        x = frontier.range.at(u)
        return (
            float(predict(form.law, t, {**form.parameters, form.varies: x / form.divided_by}, truth)[0])
            - frontier.limit
        )

    g = np.array([at(u) for u in known])
    crossed = np.flatnonzero(np.sign(g[:-1]) != np.sign(g[1:]))
    return float(frontier.range.at(float(known[crossed[0]] + known[crossed[0] + 1]) / 2)) if crossed.size else None


def conduct_frontier(
    frontier: Frontier, base: Path, means: Means, board: Board, *, out: str = "outputs"
) -> tuple[Threshold, Path]:
    """Search for the threshold (``base``: the folder of its file); return it and the path of its report.

    Runs that are there already are not run again. Raises ScenarioError for a value that makes no scenario, and
    EcosystemError where a run fails for good.
    """
    frontier.check(base)
    scenario, folder = frontier.scenario(base, frontier.range.at(1.0), frontier.seeds[0])
    starved: dict[float, str] = {}
    with telling(frontier, out, "frontiers", "frontier.json") as store, Workshop(means, board) as shop:

        def evaluate(values: list[float | int]) -> list[Floats]:
            plan = Plan(folder, means, out)
            wanted = [[frontier.scenario(base, x, seed)[0] for seed in frontier.seeds] for x in values]
            asked = [
                [plan.add_run(one, f"{x:g}, seed {one.seed}") for one in ones]
                for x, ones in zip(values, wanted, strict=True)
            ]
            made = shop.make(plan, f"{frontier.name} at {', '.join(f'{x:g}' for x in values)}")
            failed = next((outcome.error for outcome in made if outcome.error), "")
            if failed:
                raise EcosystemError(f"{frontier.where}: a run failed: {failed}")
            found = []
            for x, ones, numbers in zip(values, wanted, asked, strict=True):
                runs = [opened(made[n].run) for n in numbers]
                read = zip(ones, runs, strict=True)
                fits = [("", "", one.seed, *row) for one, run in read for row in trained(run.metrics, one)]
                rows = pl.DataFrame(fits, schema=TRAINING, orient="row")
                of = frontier.measure.of
                if told := untrained(rows if of in (None, WEB) else rows.filter(pl.col("of") == of)):
                    starved[x] = told
                found.append(np.array([measured(frontier, run, scenario.steps) for run in runs]))
            return found

        found = search(evaluate, frontier.range, frontier.limit, frontier.precision)
        found = replace(found, predicted=predicted(frontier, scenario, folder), idle=dict(sorted(starved.items())))
        store.write("frontier.json", json.dumps(summary(frontier, found), indent=1).encode())
        rows = [(x, seed, y) for x, ys in found.tried.items() for seed, y in zip(frontier.seeds, ys, strict=True)]
        write_table(store, "tried", pl.DataFrame(rows, schema=["value", "seed", "measure"], orient="row"))
        page = _write_page(frontier, found, store)
    return found, page


def frontier(
    file: Frontier | str | Path, out: str | Path = "outputs", *, quiet: bool = True, base: Path = Path(), **how: Any
) -> tuple[Threshold, Path]:
    """Search for the threshold of a frontier (a value, or the path of a file); return it and the path of its report.

    ``base``: where the base scenario of a value is sought; ``how``: fields of
    :class:`~ecosystem.studies.run_study.Means` (engine, jobs, threads, device). The same
    as the command; errors a user can mend are EcosystemError.
    """
    if not isinstance(file, Frontier):
        path = path_of(file, "Frontier")
        base, file = path.parent, Frontier.load(path)
    return conduct_frontier(file, base, Means(**how), Board(quiet=quiet), out=str(out))


def summary(frontier: Frontier, found: Threshold) -> dict[str, Any]:
    """Return what was found, machine-readable."""
    return {
        "frontier": frontier.plain(),
        "threshold": found.value,
        "interval": [found.low, found.high],
        "closed_form": found.predicted,
        "rising": found.rising,
        "values_tried": len(found.tried),
        "untrained": {f"{x:g}": told for x, told in found.idle.items()},
    }


def sentence(frontier: Frontier, found: Threshold) -> str:
    """Say what was found."""
    means = [float(y.mean()) for y in found.tried.values()]
    what, way = frontier.measure.name, "rises" if found.rising else "falls"
    if found.value is None:
        return (
            f"{what} {way} from {means[0]:.4g} to {means[-1]:.4g} between {frontier.path} = {frontier.range.low:g} and "
            f"{frontier.range.high:g} and does not cross {frontier.limit:g}; {_beyond(frontier, found)}."
        )
    ends = [
        f"{end:.4g}{' or beyond' if end == edge else ''}"
        for end, edge in ((found.low, frontier.range.at(0.0)), (found.high, frontier.range.at(1.0)))
    ]
    told = (
        f"{what} crosses {frontier.limit:g} at {frontier.path} = {found.value:.4g} (95 % interval {ends[0]} to "
        f"{ends[1]}, {len(frontier.seeds)} seeds at each of {len(found.tried)} values)."
    )
    if found.predicted is None:
        return told
    inside = "inside" if found.low <= found.predicted <= found.high else "outside"
    return f"{told} The closed form says {found.predicted:.4g}, {inside} the interval."


def idle(frontier: Frontier, found: Threshold) -> str:
    """Say at which values trainers had nothing to train on; "" if there are none."""
    if not found.idle:
        return ""
    where = "; ".join(f"{x:g} ({told})" for x, told in found.idle.items())
    return (
        f"Trainers had nothing to train on at {frontier.path} = {where}: what is measured of them there is the model "
        "that they had before."
    )


def _beyond(frontier: Frontier, found: Threshold) -> str:
    """Say where a threshold may lie that was not found in the range, whose two ends alone were tried."""
    if found.low == found.high:
        return "the threshold lies outside this range"
    close = min(found.tried, key=lambda x: abs(float(found.tried[x].mean()) - frontier.limit))
    return f"at {close:g} it cannot be told from it (95 %), so that the threshold may lie there or outside this range"


def _write_page(frontier: Frontier, found: Threshold, store: Store) -> Path:
    rows = [
        {"value": x, "measure": i.mean, "low": i.low, "high": i.high}
        for x, i in ((x, mean_interval(y)) for x, y in found.tried.items())
    ]
    measure = frontier.measure
    since = f", change since step {frontier.since}" if frontier.since is not None else ""
    labels = ChartLabels(
        f"{measure.name}{since}",
        f"mean over {len(frontier.seeds)} seeds with its 95 % interval at every value tried; shaded: where the limit "
        "may be crossed",
        measure.axis,
        ".3~g",
    )
    marks = {"threshold": found.value, "closed form": found.predicted}
    chart = charts.crossing(
        pl.DataFrame(rows),
        frontier.limit,
        (found.low, found.high) if found.value is not None else None,
        {name: x for name, x in marks.items() if x is not None},
        labels,
        frontier.path,
        log=frontier.range.scale == "log",
    )
    specs = {"frontier": charts.specification(chart)}
    table = Table(
        [frontier.path, measure.name, "95 % interval", *(f"seed {seed}" for seed in frontier.seeds)],
        [
            [f"{r['value']:g}", number(r["measure"], 4), f"{number(r['low'], 4)} to {number(r['high'], 4)}"]
            + [number(float(y), 4) for y in found.tried[r["value"]]]
            for r in rows
        ],
    )
    context = {
        "title": frontier.name,
        "description": frontier.description,
        "findings": " ".join([sentence(frontier, found), idle(frontier, found)]).strip(),
        "figure": Figure.of("frontier", specs["frontier"], full=True),
        "table": table,
    }
    return publish(store, "frontier.html", context, specs, 0, PAGES)
