"""Export of charts: plain Vega-Lite specifications, SVG and PNG."""

from __future__ import annotations

import mmap
from functools import cache
from importlib import import_module
from typing import Any
from xml.sax.saxutils import quoteattr

from ecosystem.errors import EcosystemError
from ecosystem.formats import visible
from ecosystem.report.charts.templates import Chart
from ecosystem.report.charts.text import describe
from ecosystem.report.charts.theme import LIGHT, Scheme, configuration

FONT_OF_FILES = "Arial, 'Liberation Sans', sans-serif"  # shorter than the list of the page, whose look-up is slow


ADDRESS_SPACE = 66 * 2**30  # bytes; vl-convert 1.9 was measured to reserve 64.3 GiB when it starts


def specification(chart: Chart) -> dict[str, Any]:
    """Return a chart as plain Vega-Lite with its data, without a theme."""
    return {**chart.spec, "datasets": chart.datasets()}


def pictures(spec: dict[str, Any], scheme: Scheme = LIGHT) -> tuple[bytes, bytes]:
    """Render a specification as (SVG, PNG); the PNG has 1.5 pixels per unit, and the SVG a description."""
    vl_convert = renderer()
    config = configuration(scheme) | {"font": FONT_OF_FILES, "aria": False}
    svg = vl_convert.vegalite_to_svg(spec, config=config, allowed_base_urls=[])
    described = svg.replace("<svg ", f'<svg role="img" aria-label={quoteattr(visible(describe(spec)))} ', 1)
    return described.encode(), vl_convert.svg_to_png(svg, scale=1.5)


@cache
def renderer() -> Any:
    """Import and return vl_convert, which draws charts.

    Its JavaScript engine ends the process if it cannot reserve its address space. Raises EcosystemError before that.
    """
    if (limit := _limit()) is not None:
        try:
            mmap.mmap(-1, ADDRESS_SPACE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=0).close()
        except OSError:
            raise EcosystemError(
                f"charts, and so the report, cannot be drawn: this needs {ADDRESS_SPACE / 1e9:.0f} GB of address space "
                f"(little of it is used), and the limit of this process is {limit / 1e9:.3g} GB (ulimit -v). Steps and "
                "tables are kept: repeat the command without the limit, or draw a run with `ecosystem report RUN`."
            ) from None
    return import_module("vl_convert")


def _limit() -> int | None:
    """Return the limit of the address space of this process in bytes; None if it has none."""
    try:
        from resource import RLIM_INFINITY, RLIMIT_AS, getrlimit
    except ImportError:  # on Windows
        return None
    limit = getrlimit(RLIMIT_AS)[0]
    return None if limit == RLIM_INFINITY else limit
