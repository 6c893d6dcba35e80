"""Distributions over generations: perplexities of texts under the first model, and densities of vectors."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import polars as pl

from ecosystem.metrics.definitions import QUANTILES
from ecosystem.report import charts, summaries
from ecosystem.report.charts import ChartLabels
from ecosystem.report.data import RunReportData
from ecosystem.report.findings import listed
from ecosystem.report.html import Figure
from ecosystem.report.panels.documents import image_shape
from ecosystem.types import Floats

SHOWN = 12  # most populations shown
CURVES = 5  # most generations in a chart of densities
POINTS = 400  # most documents of each generation in a scatter chart
PEAK = 5.0  # times the highest density of the truth: the end of the vertical axis
GRID = 201  # places at which a density is drawn


def perplexities(data: RunReportData) -> list[Figure]:
    """Draw a fan over steps, and densities at a few steps, for each population that wrote text."""
    frame = summaries.quantiles(data.metrics, "initial_perplexity", QUANTILES)
    drawn: list[Figure] = []
    if frame["step"].drop_nulls().is_empty():
        return drawn
    values = frame["value"]
    domain = charts.span([v for v in values if v > 0], log=True)
    densest: dict[str, tuple[pl.DataFrame, pl.DataFrame]] = {}
    for population in data.populations[:SHOWN]:
        quantiles = frame.filter(pl.col("population") == population)
        own, people = quantiles.filter(pl.col("step").is_not_null()), quantiles.filter(pl.col("step").is_null())
        if own.is_empty():
            continue
        labels = ChartLabels(
            f"Perplexity under the first model: {population}",
            "of single texts; line: median; bands: 1 to 99 %, 5 to 95 % …; dotted: 1, 50 and 99 % of human text",
            "perplexity (log scale)",
            ".3~s",
        )
        drawn.append(
            data.figure(f"initial_perplexity_{population}", charts.fan(own, people, data.theme, labels, domain))
        )
        steps = spread(sorted(own["step"].unique().to_list()), 3)
        parts = [
            summaries.between_quantiles(own.filter(pl.col("step") == step)).with_columns(
                population=pl.lit(population), step=pl.lit(step)
            )
            for step in steps
        ]
        densest[population] = pl.concat(parts), summaries.between_quantiles(people)
    tops = [part["density"].max() for pair in densest.values() for part in pair if part.height]
    top = 1.06 * max([float(t) for t in tops if isinstance(t, float)], default=1.0)
    for population, (own, people) in densest.items():
        labels = ChartLabels(
            f"Histogram of these perplexities: {population}",
            f"at {_steps_in_words(own['step'].unique().to_list())}; grey: human text; from quantiles",
            "share per factor of e",
            ".3~s",
        )
        chart = charts.densities(
            own, people, data.theme, labels, across="perplexity (log scale)", x=domain, top=top, bins=True
        )
        drawn.append(data.figure(f"initial_perplexity_histogram_{population}", chart))
    return drawn


def _steps_in_words(steps: Sequence[int]) -> str:
    """State the steps of a chart."""
    steps = sorted(steps)
    return (
        f"steps {listed([str(step) for step in steps])}, later ones stronger" if len(steps) > 1 else f"step {steps[0]}"
    )


def spread(values: Sequence[int], most: int) -> list[int]:
    """Pick at most ``most`` of ascending numbers, evenly spread, the first and the last included."""
    places = np.linspace(0, len(values) - 1, min(most, len(values))).round().astype(int)
    return [values[place] for place in places.tolist()]


def vectors(data: RunReportData) -> tuple[list[Figure], str]:
    """Draw the documents of the first trainer of each population at a few steps; also return the shape of the grid.

    One number: overlaid densities, with the truth. Two or more: points of the first two numbers at the first, middle
    and last step, over the initial documents. Nothing is drawn of images (shown elsewhere), of categories, and of
    regressions on several numbers (models do not learn their first two).
    """
    human = _content(data, 0, None)
    length = human.dtype.size if isinstance(human.dtype, pl.Array) else 0
    initial = data.run.scenario.web.initial
    kind = data.run.scenario.sources[initial.source].kind if initial is not None else ""
    images = image_shape(data.run.scenario, human.dtype) is not None
    if not length or not human.len() or images or (kind == "regression" and length > 2):
        return [], ""
    draw, shape = (_curves, "two") if length == 1 else (_points, "three")
    return [figure for population in data.populations[:SHOWN] for figure in draw(data, population, human)], shape


def _published(data: RunReportData, population: str, most: int) -> dict[int, Floats]:
    """Return the documents of the first trainer of a population, [n, numbers], at a few of its steps."""
    scenario, author = data.run.scenario, f"{population}/0"
    recipe = scenario.trainers[population]
    first = 1 if scenario.models[recipe.model].starts_pretrained else 2 + recipe.offset
    steps = spread(range(first, data.run.last_step + 1), most)
    documents = {step: _numbers(_content(data, step, author)) for step in steps}
    return {step: x for step, x in documents.items() if len(x) > 1}


def _content(data: RunReportData, step: int, author: str | None) -> pl.Series:
    """Return the published documents of a step, of all authors or of one."""
    segment = data.published(step)
    return (segment if author is None else segment.filter(pl.col("author") == author))["content"]


def _numbers(docs: pl.Series) -> Floats:
    """Turn vector documents into an array [n, numbers]."""
    assert isinstance(docs.dtype, pl.Array)
    return docs.to_numpy().reshape(-1, docs.dtype.size)


def _curves(data: RunReportData, population: str, human: pl.Series) -> list[Figure]:
    values = {step: x[:, 0] for step, x in _published(data, population, CURVES).items()}
    people, truth = _numbers(human)[:, 0], data.truth
    if not values or people.size < 2:
        return []
    ends = [np.quantile(x, share) for x in (people, *values.values()) for share in (0.005, 0.995)]
    grid = np.linspace(min(ends), max(ends), GRID)
    if truth is not None and truth.normal and truth.mean is not None and truth.covariance is not None:
        mean, variance, what = truth.mean[0], truth.covariance[0, 0], "the truth"
        dashed = np.exp(-0.5 * (grid - mean) ** 2 / variance) / math.sqrt(2 * math.pi * variance)
    else:
        dashed, what = kernels(people, grid), "what people wrote"
    parts = [
        pl.DataFrame({"x": grid, "density": kernels(x, grid)}).with_columns(
            population=pl.lit(population), step=pl.lit(step)
        )
        for step, x in values.items()
    ]
    labels = ChartLabels(
        f"What {population}/0 wrote",
        f"densities at {_steps_in_words(list(values))}; dashed: {what}; cut off at {PEAK:g} times its peak",
        "density",
        ".3~g",
    )
    frame = pl.concat(parts)
    top = 1.06 * min(PEAK * float(dashed.max()), max(float(dashed.max()), float(np.max(frame["density"].to_numpy()))))
    below = pl.DataFrame({"x": grid, "density": dashed})
    chart = charts.densities(frame, below, data.theme, labels, across="", x=[grid[0], grid[-1]], top=top)
    return [data.figure(f"documents_{population}", chart)]


def kernels(x: Floats, at: Floats) -> Floats:
    """Compute the kernel density estimate of numbers x [n] at evenly spaced places ``at`` [k], [k].

    Silverman's rule (1986, equation 3.31) gives the width; it is at least the distance between two places, so a single
    point shows as a peak.
    """
    low, high = np.quantile(x, [0.25, 0.75])
    widths = [w for w in (float(x.std(ddof=1)), float(high - low) / 1.34) if w > 0]
    width = max(0.9 * min(widths, default=0.0) * x.size**-0.2, float(at[1] - at[0]))
    density = np.zeros(at.size)
    for part in np.array_split(x, 1 + x.size * at.size // 1_000_000):
        density += np.exp(-0.5 * ((at[:, None] - part) / width) ** 2).sum(axis=1)
    return np.asarray(density / (x.size * width * math.sqrt(2 * math.pi)))


def _points(data: RunReportData, population: str, human: pl.Series) -> list[Figure]:
    people = _numbers(human.head(POINTS))
    points = {step: x[:POINTS] for step, x in _published(data, population, 3).items()}
    whole = np.concatenate([people, *points.values()])[:, :2]
    low, high = np.quantile(whole, [0.002, 0.998], axis=0)
    air = 0.06 * np.where(high > low, high - low, 1.0)
    window = np.stack([low - air, high + air], axis=1).tolist()
    behind = pl.DataFrame(people[:, :2], schema=["x", "y"])
    drawn = []
    for step, x in points.items():
        which = "" if x.shape[1] == 2 else f"the first two of {x.shape[1]} numbers; "
        labels = ChartLabels(f"What {population}/0 wrote at step {step}", f"{which}grey: what people wrote", "", ".3~g")
        frame = pl.DataFrame(x[:, :2], schema=["x", "y"]).with_columns(population=pl.lit(population))
        chart = charts.scatter(frame, behind, data.theme, labels, window)
        drawn.append(data.figure(f"documents_{population}_{step:06d}", chart))
    return drawn
