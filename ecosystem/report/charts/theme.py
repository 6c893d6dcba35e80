"""The look of charts: light and dark colours, sizes, and the theme shared by the charts of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ecosystem.calendar import Calendar

WIDE, NARROW = (780, 320), (400, 230)  # width and height in pixels; the page stretches the width
LABELLED = 10  # up to this many populations, all are named beside their lines
FONT = "system-ui, -apple-system, 'Segoe UI', 'Helvetica Neue', Arial, 'Liberation Sans', sans-serif"
HUMAN, SYNTHETIC = "#8793a3", "#8b5cd6"  # legible on both backgrounds; no population is violet


@dataclass(frozen=True)
class Scheme:
    """The colours of the light or the dark mode of a page.

    Any two populations differ by at least 10 in CIEDE2000 for readers with and without colour blindness (protanopia,
    deuteranopia and tritanopia, simulated after Machado et al. 2009), and every colour has a contrast of at least 3 to
    1 with the paper (WCAG 2.2, 1.4.11). The tests measure both. The colours were found by a search under these
    conditions.
    """

    paper: str
    ink: str
    soft: str  # secondary text, axes
    grid: str
    populations: tuple[str, ...]
    share: tuple[str, str, str]  # from all human to all synthetic
    greys: tuple[str, str, str]  # parts of a chart that are no population


LIGHT = Scheme(
    paper="#ffffff",
    ink="#1c2430",
    soft="#5d6877",
    grid="#e6e9ee",
    populations=("#056fbc", "#c34100", "#11a074", "#a55a7f", "#c08417", "#0097f9", "#6b3f1c", "#667942"),
    share=("#8793a3", "#8259c9", "#3b0f7d"),
    greys=("#434d59", "#6b7683", "#8b95a1"),
)
DARK = Scheme(
    paper="#161a21",
    ink="#e8ecf2",
    soft="#9aa6b5",
    grid="#2a313c",
    populations=("#2f8dce", "#f7711f", "#36dca6", "#f5baea", "#fcb929", "#5bafff", "#be9363", "#e2ea90"),
    share=("#66717f", "#8f74c9", "#dcc7ff"),
    greys=("#d5dbe2", "#9ba5b1", "#6c7784"),
)


def configuration(scheme: Scheme) -> dict[str, Any]:
    """Return the Vega-Lite configuration of a colour scheme."""
    text = {"labelColor": scheme.soft, "titleColor": scheme.soft, "labelFontSize": 11, "titleFontSize": 11.5}
    return {
        "background": scheme.paper,
        "font": FONT,
        "mark": {"color": scheme.populations[0]},  # of charts with one series
        "view": {"stroke": None},
        "title": {
            "color": scheme.ink,
            "subtitleColor": scheme.soft,
            "fontSize": 14,
            "fontWeight": 600,
            "subtitleFontSize": 11.5,
            "anchor": "start",
            "frame": "group",
            "offset": 12,
            "subtitlePadding": 4,
        },
        "axis": {
            **text,
            "gridColor": scheme.grid,
            "domain": False,
            "ticks": False,
            "labelPadding": 7,
            "titleFontWeight": "normal",
            "titlePadding": 10,
        },
        "legend": {**text, "titleFontWeight": "normal", "gradientThickness": 8, "gradientLength": 140},
        "range": {
            "category": list(scheme.populations),
            "ordinal": list(scheme.greys),
            "ramp": list(scheme.share),
            "heatmap": list(scheme.share),
        },
        "text": {"fontSize": 11.5},
        "style": {
            "ink": {"color": scheme.ink},
            "soft": {"color": scheme.soft},
            "halo": {"stroke": scheme.paper},
        },
    }


@dataclass(frozen=True)
class ChartTheme:
    """What the charts of a run share: populations in the order of their colours, first and last step, timed changes.

    With a ``calendar`` the axis of steps has their dates.
    """

    populations: Sequence[str]
    last: int
    first: int = 0
    changes: Sequence[tuple[int, str]] = field(default=())  # step, description
    calendar: Calendar | None = None


@dataclass(frozen=True)
class ChartLabels:
    """The texts of a chart: title, subtitle, title of the value axis, and the d3 format of its values.

    ``error`` and ``members`` say, in tooltips, what bands show and what a mean is over.
    """

    title: str
    subtitle: str
    axis: str
    format: str = ".3f"
    error: str = "± standard error"
    members: str = "trainers"
