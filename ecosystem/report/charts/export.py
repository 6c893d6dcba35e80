"""Charts as plain Vega-Lite specifications and as picture files."""

from __future__ import annotations

from typing import Any

import altair as alt

from ecosystem.report.charts.templates import ChartTemplate, formed
from ecosystem.report.charts.theme import LIGHT, Scheme, configuration

FONT_OF_FILES = "Arial, 'Liberation Sans', sans-serif"  # faster to look up than the long list of the page


def specification(chart: alt.TopLevelMixin | ChartTemplate) -> dict[str, Any]:
    """Turn a chart into plain Vega-Lite, without the default theme of Altair: the page has its own."""
    return {**chart.spec, "datasets": chart.datasets()} if isinstance(chart, ChartTemplate) else formed(chart)


def pictures(spec: dict[str, Any], scheme: Scheme = LIGHT) -> tuple[bytes, bytes]:
    """Render a specification as SVG, and as PNG at 1.5 times its size in pixels."""
    import vl_convert

    config = configuration(scheme) | {"font": FONT_OF_FILES}
    svg = vl_convert.vegalite_to_svg(spec, config=config, allowed_base_urls=[])
    return svg.encode(), vl_convert.svg_to_png(svg, scale=1.5)
