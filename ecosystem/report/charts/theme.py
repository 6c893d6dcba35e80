"""The look of charts: light and dark colours, sizes, and the theme shared by the charts of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ecosystem.calendar import Calendar

WIDE, NARROW = (780, 320), (400, 230)  # width and height in pixels; the page stretches the width
GREYS = ("#6f7a88", "#9aa4b1", "#c2c9d2")  # parts of a chart that are no population
LABELLED = 10  # up to this many populations, all are named beside their lines
FONT = "system-ui, -apple-system, 'Segoe UI', 'Helvetica Neue', Arial, 'Liberation Sans', sans-serif"
HUMAN, SYNTHETIC = "#8793a3", "#8b5cd6"  # legible on both backgrounds; no population is violet


@dataclass(frozen=True)
class Scheme:
    """The colours of the light or the dark mode of a page."""

    paper: str
    ink: str
    soft: str  # secondary text, axes
    grid: str
    populations: tuple[str, ...]
    share: tuple[str, str, str]  # from all human to all synthetic


LIGHT = Scheme(
    paper="#ffffff",
    ink="#1c2430",
    soft="#5d6877",
    grid="#e6e9ee",
    populations=("#0072b2", "#d55e00", "#009e73", "#c2528b", "#b97e00", "#2e9bd6", "#7f4f24", "#6b7f00"),
    share=("#c3ccd7", "#a48bd8", "#4c1d95"),
)
DARK = Scheme(
    paper="#161a21",
    ink="#e8ecf2",
    soft="#9aa6b5",
    grid="#2a313c",
    populations=("#4ba3e3", "#ff8a4c", "#2fcb9b", "#f08dbd", "#ffc247", "#9bd7ff", "#cf9f6b", "#bccb4a"),
    share=("#4a5564", "#8f74c9", "#dcc7ff"),
)


def configuration(scheme: Scheme) -> dict[str, Any]:
    """Return the Vega-Lite configuration of a colour scheme."""
    text = {"labelColor": scheme.soft, "titleColor": scheme.soft, "labelFontSize": 11, "titleFontSize": 11.5}
    return {
        "background": scheme.paper,
        "font": FONT,
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
        "range": {"category": list(scheme.populations), "ramp": list(scheme.share), "heatmap": list(scheme.share)},
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
