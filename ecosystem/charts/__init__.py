"""The charts of a report: pure functions from tables of numbers to charts, drawn by Altair.

Colours, type and backgrounds are not in a chart but in :data:`LIGHT` and :data:`DARK`, from which
:func:`configuration` makes two Vega configurations with the same names, so that one specification serves the page
in both modes and the files on disk. A population has the colour of its place in ``Look.populations``, everywhere.
"""

from ecosystem.charts.distributions import densities, fan, scatter
from ecosystem.charts.drawing import Drawing, scaled
from ecosystem.charts.effects import bars, crossing, forest, heatmap, tradeoff
from ecosystem.charts.files import pictures, specification
from ecosystem.charts.lines import NAMED_CHANGES, over_steps, span, spread, vocabulary
from ecosystem.charts.look import DARK, LIGHT, NARROW, WIDE, Look, Scheme, Words, configuration
from ecosystem.charts.marks import rates, site_graph

__all__ = [
    "DARK",
    "LIGHT",
    "NAMED_CHANGES",
    "NARROW",
    "WIDE",
    "Drawing",
    "Look",
    "Scheme",
    "Words",
    "bars",
    "configuration",
    "crossing",
    "densities",
    "fan",
    "forest",
    "heatmap",
    "over_steps",
    "pictures",
    "rates",
    "scaled",
    "scatter",
    "site_graph",
    "span",
    "specification",
    "spread",
    "tradeoff",
    "vocabulary",
]
