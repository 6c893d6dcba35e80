"""Parts shared by charts: the axis of steps, timed changes, colours of populations, domains, places of labels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import polars as pl

from ecosystem.report.charts.theme import ChartTheme

NAMED_CHANGES = {"early changes": ("left", 5), "late changes": ("right", -5)}  # table: the side of its names
LETTER = 6.5  # most pixels of a letter of the name of a change


def colours(theme: ChartTheme) -> alt.Color:
    """Return the colour channel: the place of a population in the theme gives its colour."""
    return alt.Color("population:N", scale=alt.Scale(domain=list(theme.populations)), legend=None)


def steps_axis(theme: ChartTheme, width: int) -> alt.X:
    """Return the axis of steps, with as many round whole numbers as fit."""
    least = (theme.last - theme.first) / (10 if width > 500 else 6)
    every = next(n * 10**k for k in range(10) for n in (1, 2, 5) if n * 10**k >= least)
    alone = theme.first == theme.last
    return alt.X(
        "step:Q",
        title="step",
        scale=alt.Scale(
            domain=[theme.first - 0.5, theme.last + 0.5] if alone else [theme.first, theme.last], nice=False
        ),
        axis=alt.Axis(
            values=list(range(-(-theme.first // every) * every, theme.last + 1, every)),
            format="d",
            grid=False,
            labelFlush=False,
        ),
    )


def span(values: Sequence[float], log: bool = False) -> list[float]:
    """Return the domain of an axis that contains all values, with a small margin."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    if log:
        return [low / (high / low) ** 0.06 / 1.01, high * (high / low) ** 0.06 * 1.01]
    air = 0.06 * (high - low) or abs(high) * 0.05 or 0.5
    return [low - air, high + air]


def spread(values: Sequence[float], domain: Sequence[float], height: int, log: bool, gap: float = 14) -> list[float]:
    """Move label positions apart, as little as needed, so that labels do not overlap; keep them in the domain."""
    forward, back = (math.log, math.exp) if log else (float, float)
    low, high = forward(domain[0]), forward(domain[1])
    pixel = (high - low) / height
    order = sorted(range(len(values)), key=lambda i: values[i])
    places = [min(max(forward(values[i]), low), high) for i in order]
    least = min(gap * pixel, (high - low) / max(1, len(values) - 1))
    for _ in range(60):  # push the two labels of a close pair apart by half of the missing distance
        for i in range(len(places) - 1):
            short = least - (places[i + 1] - places[i])
            if short > 0:
                places[i] -= short / 2
                places[i + 1] += short / 2
        places = [min(max(p, low + i * least), high - (len(places) - 1 - i) * least) for i, p in enumerate(places)]
    placed = [0.0] * len(values)
    for rank, i in enumerate(order):
        placed[i] = back(places[rank])
    return placed


def change_tables(theme: ChartTheme, width: int) -> dict[str, pl.DataFrame]:
    """Return tables of all timed changes (step, change, short), and of those named left and right of their lines."""
    here = [(step, what) for step, what in theme.changes if theme.first <= step <= theme.last]
    if not here:
        return {}
    rows = pl.DataFrame(here, schema=["step", "change"], orient="row")
    short = pl.when(pl.col("change").str.len_chars() > 44).then(pl.col("change").str.head(42) + "…").otherwise("change")
    rows = rows.with_columns(short=short)
    if width <= 700:
        return {"changes": rows}
    late = pl.col("step") > (theme.first + theme.last) / 2
    reach = width / max(1, theme.last - theme.first)
    early, later = rows.filter(~late).sort("step"), rows.filter(late).sort("step", descending=True)
    sides = {"early changes": _apart(early, reach), "late changes": _apart(later, reach)}
    return {"changes": rows, **{name: table for name, table in sides.items() if table.height}}


def _apart(rows: pl.DataFrame, reach: float) -> pl.DataFrame:
    """Leave out changes whose names would overlap the previous name; ``reach``: pixels of a step."""
    kept: list[int] = []
    for i, step in enumerate(rows["step"]):
        if not kept or abs(step - rows["step"][kept[-1]]) * reach > LETTER * len(rows["short"][kept[-1]]):
            kept.append(i)
    return rows[kept]


def change_rules(theme: ChartTheme, width: int, tables: Mapping[str, Any]) -> list[alt.Chart]:
    """Return a dotted line at every timed change of :func:`change_tables`, with its name where it fits."""
    if "changes" not in tables:
        return []
    x = steps_axis(theme, width)
    rule = alt.Chart(tables["changes"]).mark_rule(strokeDash=[1, 3], strokeWidth=1.6, style="ink")
    layers = [rule.encode(x=x, tooltip=[alt.Tooltip("step:Q", title="from step"), alt.Tooltip("change:N")])]
    for name, (align, dx) in NAMED_CHANGES.items():
        if name in tables:
            text = alt.Chart(tables[name]).mark_text(align=align, dx=dx, dy=6, fontSize=10.5, style="soft")
            layers.append(text.encode(x=x, y=alt.YValue(0), text=alt.Text("short:N")))
    return layers
