"""Distributions over steps: perplexities of texts under the initial weights, and documents that are vectors."""

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

SHOWN = 12  # maximum number of populations shown
CURVES = 5  # maximum number of steps in a chart of densities
POINTS = 400  # maximum number of documents per step in a scatter plot
PEAK = 5.0  # limit of the density axis, as a multiple of the highest density of the truth
GRID = 201  # number of points at which a density is evaluated


def perplexities(data: RunReportData) -> list[Figure]:
    """Draw, for each population that wrote text, a fan over steps and histograms at up to three steps."""
    frame = summaries.quantiles(data.metrics, "initial_perplexity", QUANTILES)
    figures: list[Figure] = []
    if frame["step"].drop_nulls().is_empty():
        return figures
    values = frame["value"]
    domain = charts.span([v for v in values if v > 0], log=True)
    histograms: dict[str, tuple[pl.DataFrame, pl.DataFrame]] = {}
    for population in data.populations[:SHOWN]:
        quantiles = frame.filter(pl.col("population") == population)
        synthetic, human = quantiles.filter(pl.col("step").is_not_null()), quantiles.filter(pl.col("step").is_null())
        if synthetic.is_empty():
            continue
        labels = ChartLabels(
            f"Perplexity under the initial weights: {population}",
            "single texts; line: median; bands: 1–99 %, 5–95 % …; dotted: 1, 50 and 99 % quantiles of human text",
            "perplexity (log scale)",
            ".3~s",
        )
        figures.append(
            data.figure(f"initial_perplexity_{population}", charts.fan(synthetic, human, data.theme, labels, domain))
        )
        steps = spread(sorted(synthetic["step"].unique().to_list()), 3)
        parts = [
            summaries.between_quantiles(synthetic.filter(pl.col("step") == step)).with_columns(
                population=pl.lit(population), step=pl.lit(step)
            )
            for step in steps
        ]
        histograms[population] = pl.concat(parts), summaries.between_quantiles(human)
    peaks = [part["density"].max() for pair in histograms.values() for part in pair if part.height]
    top = 1.06 * max([float(peak) for peak in peaks if isinstance(peak, float)], default=1.0)
    for population, (synthetic, human) in histograms.items():
        labels = ChartLabels(
            f"Histogram of the same perplexities: {population}",
            f"{_steps_in_words(synthetic['step'].unique().to_list())}; grey: human text; derived from quantiles",
            "share per unit of log perplexity",
            ".3~s",
        )
        chart = charts.densities(
            synthetic, human, data.theme, labels, x_title="perplexity (log scale)", x=domain, top=top, bins=True
        )
        figures.append(data.figure(f"initial_perplexity_histogram_{population}", chart))
    return figures


def _steps_in_words(steps: Sequence[int]) -> str:
    """List the steps of a chart for its subtitle."""
    steps = sorted(steps)
    return (
        f"steps {listed([str(step) for step in steps])}, later steps stronger" if len(steps) > 1 else f"step {steps[0]}"
    )


def spread(values: Sequence[int], most: int) -> list[int]:
    """Pick at most ``most`` evenly spaced values of a sequence, including the first and the last."""
    indices = np.linspace(0, len(values) - 1, min(most, len(values))).round().astype(int)
    return [values[index] for index in indices.tolist()]


def vectors(data: RunReportData) -> tuple[list[Figure], str]:
    """Draw the documents of the first trainer of each population at a few steps; also return the CSS class of the grid.

    Documents of one number are drawn as overlaid densities, with the truth. Of longer vectors, the first two numbers
    are drawn as points at the first, middle and last step, over the initial documents. Images (shown elsewhere),
    categories, and regressions on several numbers (whose first two numbers models do not learn) are not drawn.
    """
    human = _content(data, 0, None)
    length = human.dtype.size if isinstance(human.dtype, pl.Array) else 0
    initial = data.run.scenario.web.initial
    kind = data.run.scenario.sources[initial.source].kind if initial is not None else ""
    images = image_shape(data.run.scenario, human.dtype) is not None
    if not length or not human.len() or images or (kind == "regression" and length > 2):
        return [], ""
    draw, grid = (_curves, "two") if length == 1 else (_points, "three")
    return [figure for population in data.populations[:SHOWN] for figure in draw(data, population, human)], grid


def _published(data: RunReportData, population: str, most: int) -> dict[int, Floats]:
    """Return the documents of the first trainer of a population, [n, numbers], at up to ``most`` steps."""
    scenario, author = data.run.scenario, f"{population}/0"
    trainer = scenario.trainers[population]
    first = 1 if scenario.models[trainer.model].starts_pretrained else 2 + trainer.offset
    steps = spread(range(first, data.run.last_step + 1), most)
    documents = {step: _numbers(_content(data, step, author)) for step in steps}
    return {step: x for step, x in documents.items() if len(x) > 1}


def _content(data: RunReportData, step: int, author: str | None) -> pl.Series:
    """Return the published documents of a step, by one author or by all (None)."""
    segment = data.published(step)
    return (segment if author is None else segment.filter(pl.col("author") == author))["content"]


def _numbers(docs: pl.Series) -> Floats:
    """Return vector documents as an array [n, numbers]."""
    assert isinstance(docs.dtype, pl.Array)
    return docs.to_numpy().reshape(-1, docs.dtype.size)


def _curves(data: RunReportData, population: str, human: pl.Series) -> list[Figure]:
    values = {step: x[:, 0] for step, x in _published(data, population, CURVES).items()}
    initial, truth = _numbers(human)[:, 0], data.truth
    if not values or initial.size < 2:
        return []
    ends = [np.quantile(x, share) for x in (initial, *values.values()) for share in (0.005, 0.995)]
    grid = np.linspace(min(ends), max(ends), GRID)
    if truth is not None and truth.normal and truth.mean is not None and truth.covariance is not None:
        mean, variance, reference = truth.mean[0], truth.covariance[0, 0], "the truth"
        dashed = np.exp(-0.5 * (grid - mean) ** 2 / variance) / math.sqrt(2 * math.pi * variance)
    else:
        dashed, reference = kernel_density(initial, grid), "human documents"
    parts = [
        pl.DataFrame({"x": grid, "density": kernel_density(x, grid)}).with_columns(
            population=pl.lit(population), step=pl.lit(step)
        )
        for step, x in values.items()
    ]
    labels = ChartLabels(
        f"Documents of {population}/0",
        f"densities at {_steps_in_words(list(values))}; dashed: {reference}; axis cut off at {PEAK:g} times its peak",
        "density",
        ".3~g",
    )
    frame = pl.concat(parts)
    top = 1.06 * min(PEAK * float(dashed.max()), max(float(dashed.max()), float(np.max(frame["density"].to_numpy()))))
    below = pl.DataFrame({"x": grid, "density": dashed})
    chart = charts.densities(frame, below, data.theme, labels, x_title="", x=[grid[0], grid[-1]], top=top)
    return [data.figure(f"documents_{population}", chart)]


def kernel_density(x: Floats, at: Floats) -> Floats:
    """Return the Gaussian kernel density estimate of numbers x [n] at evenly spaced points ``at`` [k], as an array [k].

    The bandwidth follows Silverman's rule (1986, equation 3.31), but is at least the spacing of the points, so that a
    single value appears as a peak.
    """
    low, high = np.quantile(x, [0.25, 0.75])
    widths = [w for w in (float(x.std(ddof=1)), float(high - low) / 1.34) if w > 0]
    width = max(0.9 * min(widths, default=0.0) * x.size**-0.2, float(at[1] - at[0]))
    density = np.zeros(at.size)
    for part in np.array_split(x, 1 + x.size * at.size // 1_000_000):
        density += np.exp(-0.5 * ((at[:, None] - part) / width) ** 2).sum(axis=1)
    return np.asarray(density / (x.size * width * math.sqrt(2 * math.pi)))


def _points(data: RunReportData, population: str, human: pl.Series) -> list[Figure]:
    initial = _numbers(human.head(POINTS))
    points = {step: x[:POINTS] for step, x in _published(data, population, 3).items()}
    shown = np.concatenate([initial, *points.values()])[:, :2]
    low, high = np.quantile(shown, [0.002, 0.998], axis=0)
    margin = 0.06 * np.where(high > low, high - low, 1.0)
    window = np.stack([low - margin, high + margin], axis=1).tolist()
    behind = pl.DataFrame(initial[:, :2], schema=["x", "y"])
    figures = []
    for step, x in points.items():
        numbers = "" if x.shape[1] == 2 else f"the first two of {x.shape[1]} numbers; "
        labels = ChartLabels(
            f"Documents of {population}/0 at {data.step_name(step)}", f"{numbers}grey: human documents", "", ".3~g"
        )
        frame = pl.DataFrame(x[:, :2], schema=["x", "y"]).with_columns(population=pl.lit(population))
        chart = charts.scatter(frame, behind, data.theme, labels, window)
        figures.append(data.figure(f"documents_{population}_{step:06d}", chart))
    return figures
