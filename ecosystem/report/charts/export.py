"""Export of charts: plain Vega-Lite specifications, SVG and PNG."""

from __future__ import annotations

from typing import Any

import altair as alt

from ecosystem.report.charts.templates import ChartTemplate, vega_lite
from ecosystem.report.charts.theme import LIGHT, Scheme, configuration

FONT_OF_FILES = "Arial, 'Liberation Sans', sans-serif"  # shorter than the list of the page, whose look-up is slow


def specification(chart: alt.TopLevelMixin | ChartTemplate) -> dict[str, Any]:
    """Return a chart as plain Vega-Lite, without Altair's default theme; the page has its own."""
    return {**chart.spec, "datasets": chart.datasets()} if isinstance(chart, ChartTemplate) else vega_lite(chart)


def pictures(spec: dict[str, Any], scheme: Scheme = LIGHT) -> tuple[bytes, bytes]:
    """Render a specification as (SVG, PNG); the PNG has 1.5 pixels per unit."""
    import vl_convert

    config = configuration(scheme) | {"font": FONT_OF_FILES}
    svg = vl_convert.vegalite_to_svg(spec, config=config, allowed_base_urls=[])
    return svg.encode(), vl_convert.svg_to_png(svg, scale=1.5)
