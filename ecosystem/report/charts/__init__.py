"""The charts of a report: pure functions from tables of numbers to Altair charts.

Charts contain no fonts or backgrounds and few colours. :func:`configuration` turns :data:`LIGHT` and :data:`DARK` into
Vega configurations with the same style names, so one specification serves both modes of the page and the files on disk.
The position of a population in ``ChartTheme.populations`` determines its colour in all charts.
"""

from ecosystem.interpreter import require_docstrings

require_docstrings()  # before Altair is imported, which fails without them

from ecosystem.report.charts.axes import DATE, NAMED_CHANGES, dates_axis, milliseconds, span, spread
from ecosystem.report.charts.bars_and_maps import rates, site_graph, stacked
from ecosystem.report.charts.curves import curves, residuals
from ecosystem.report.charts.distributions import densities, fan, scatter
from ecosystem.report.charts.effects import bars, crossing, forest, heatmap, tradeoff
from ecosystem.report.charts.export import pictures, renderer, specification
from ecosystem.report.charts.lines import over_steps, vocabulary
from ecosystem.report.charts.templates import Chart, Tables, scaled
from ecosystem.report.charts.text import csv_of, describe
from ecosystem.report.charts.theme import DARK, LIGHT, NARROW, WIDE, ChartLabels, ChartTheme, Scheme, configuration

__all__ = [
    "DARK",
    "DATE",
    "LIGHT",
    "NAMED_CHANGES",
    "NARROW",
    "WIDE",
    "Chart",
    "ChartLabels",
    "ChartTheme",
    "Scheme",
    "Tables",
    "bars",
    "configuration",
    "crossing",
    "csv_of",
    "curves",
    "dates_axis",
    "densities",
    "describe",
    "fan",
    "forest",
    "heatmap",
    "milliseconds",
    "over_steps",
    "pictures",
    "rates",
    "renderer",
    "residuals",
    "scaled",
    "scatter",
    "site_graph",
    "span",
    "specification",
    "spread",
    "stacked",
    "tradeoff",
    "vocabulary",
]
