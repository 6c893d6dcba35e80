"""Distributions over the generations: how probable written texts are to the first model, and what vectors look like."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ecosystem import charts
from ecosystem.charts import Words
from ecosystem.metrics.definitions import QUANTILES
from ecosystem.report import figures
from ecosystem.report.book import Book

Floats = NDArray[np.float64]

SHOWN = 12  # populations, at most
CURVES = 5  # generations in a chart of densities, at most
POINTS = 400  # documents of each generation in a scatter chart, at most
PEAK = 5.0  # times the truth's highest density: what rises above is cut off
GRID = 201  # places at which a density is drawn


def perplexities(book: Book) -> list[str]:
    """Return a fan over steps and densities at a few steps for each population that wrote text: HTML of figures."""
    frame = figures.quantiles(book.metrics, "initial_perplexity", QUANTILES)
    drawn: list[str] = []
    if frame["step"].drop_nulls().is_empty():
        return drawn
    values = frame["value"]
    domain = charts.span([v for v in values if v > 0], log=True)
    densest: dict[str, tuple[pl.DataFrame, pl.DataFrame]] = {}
    for population in book.populations[:SHOWN]:
        mine = frame.filter(pl.col("population") == population)
        own, people = mine.filter(pl.col("step").is_not_null()), mine.filter(pl.col("step").is_null())
        if own.is_empty():
            continue
        words = Words(
            f"Perplexity under the first model: {population}",
            "of single texts written at the step, under the weights trainers start from; line: median; bands: 1 to "
            "99 %, 5 to 95 %, 10 to 90 % and so on; dotted: 1 %, median and 99 % of human text, cut alike",
            "perplexity (log scale)",
            ".3~s",
        )
        drawn.append(book.figure(f"initial_perplexity_{population}", charts.fan(own, people, book.look, words, domain)))
        steps = spread(sorted(own["step"].unique().to_list()), 3)
        parts = [
            figures.between_quantiles(own.filter(pl.col("step") == step)).with_columns(
                population=pl.lit(population), step=pl.lit(step)
            )
            for step in steps
        ]
        densest[population] = pl.concat(parts), figures.between_quantiles(people)
    tops = [part["density"].max() for pair in densest.values() for part in pair if part.height]
    top = 1.06 * max([float(t) for t in tops if isinstance(t, float)], default=1.0)
    for population, (own, people) in densest.items():
        words = Words(
            f"Histogram of these perplexities: {population}",
            "density of the logarithm, between neighbouring quantiles, at the first, middle and last step; grey: human "
            "text, cut alike",
            "share per factor of e",
            ".3~s",
        )
        chart = charts.densities(
            own, people, book.look, words, across="perplexity (log scale)", x=domain, top=top, bins=True
        )
        drawn.append(book.figure(f"initial_perplexity_histogram_{population}", chart))
    return drawn


def spread(values: Sequence[int], most: int) -> list[int]:
    """Return at most ``most`` of some ascending numbers, evenly spread, the first and the last among them."""
    places = np.linspace(0, len(values) - 1, min(most, len(values))).round().astype(int)
    return [values[place] for place in places.tolist()]
