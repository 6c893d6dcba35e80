"""Parts that charts share: the step axis, timed changes, population colours, domains and label positions."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from datetime import date

import altair as alt
import polars as pl

from ecosystem.calendar import Calendar
from ecosystem.report.charts.templates import part
from ecosystem.report.charts.theme import LIGHT, ChartTheme

NAMED_CHANGES = {
    "_early changes": ("left", 5),
    "_late changes": ("right", -5),
}  # table: alignment and offset of its names
DATE = "date"  # column with the date of the step
PATTERNS = ([1, 0], [7, 3], [2, 2], [10, 3, 2, 3])  # of dashes: the first eight populations, the next eight …
LETTER = 6.5  # maximum width in pixels of a character in the name of a change


def colours(theme: ChartTheme) -> alt.Color:
    """Return the colour channel: the position of a population in the theme determines its colour."""
    return alt.Color("population:N", scale=alt.Scale(domain=list(theme.populations)), legend=None)


def dashes(theme: ChartTheme) -> dict[str, alt.StrokeDash]:
    """Return the channel that tells populations of one colour apart, where there are more of them than colours."""
    names, colours_of = list(theme.populations), len(LIGHT.populations)
    if len(names) <= colours_of:
        return {}
    patterns = [PATTERNS[i // colours_of % len(PATTERNS)] for i in range(len(names))]
    return {"strokeDash": alt.StrokeDash("population:N", scale=alt.Scale(domain=names, range=patterns), legend=None)}


def steps_axis(theme: ChartTheme, width: int) -> alt.X:
    """Return the step axis, with ticks at multiples of 1, 2 or 5 times a power of ten; with a calendar, of dates."""
    if theme.calendar is not None:
        return _dates_axis(theme, theme.calendar, width)
    minimum = (theme.last - theme.first) / (10 if width > 500 else 6)
    interval = next(n * 10**k for k in range(10) for n in (1, 2, 5) if n * 10**k >= minimum)
    single_step = theme.first == theme.last
    return alt.X(
        "step:Q",
        title="step",
        scale=alt.Scale(
            domain=[theme.first - 0.5, theme.last + 0.5] if single_step else [theme.first, theme.last], nice=False
        ),
        axis=alt.Axis(
            values=list(range(-(-theme.first // interval) * interval, theme.last + 1, interval)),
            format="d",
            grid=False,
            labelFlush=False,
        ),
    )


def _dates_axis(theme: ChartTheme, calendar: Calendar, width: int) -> alt.X:
    """Return the axis of the dates of steps (:func:`dated`)."""
    first, last = (calendar.date_of(t) for t in (theme.first, theme.last))
    if first == last:
        first, last = (calendar.date_of(theme.first + change) for change in (-1, 1))
    return dates_axis(first, last, width)


def dates_axis(first: date, last: date, width: int) -> alt.X:
    """Return an axis of dates, for a column DATE of milliseconds since 1970; ticks are at beginnings of months."""
    ticks = _months(first, last, most=width // 80)
    one_year = len({day.year for day in (first, last)}) == 1
    words = "%Y" if all(day.month == 1 for day in ticks) else "%B" if one_year else "%b %Y"
    own = {"values": [_moment(day) for day in ticks], "format": words} if len(ticks) > 1 else {"tickCount": 4}
    return alt.X(
        f"{DATE}:T",
        title=str(first.year) if one_year else None,  # labels of several years have them
        scale=alt.Scale(type="utc", domain=[_moment(first), _moment(last)], nice=False),
        axis=alt.Axis(grid=False, labelFlush=False, labelOverlap=True, labelSeparation=8, **own),
    )


def _months(first: date, last: date, most: int) -> list[date]:
    """Return the first days of months, at equal intervals, from one date to another, at most so many."""
    start, end = (day.year * 12 + day.month - 1 for day in (first, last))
    months = [n for n in range(start, end + 1) if first <= date(n // 12, n % 12 + 1, 1) <= last]
    every = next(n for n in (1, 2, 3, 6, *(12 * years for years in range(1, 1000))) if len(months) <= n * most)
    return [date(n // 12, n % 12 + 1, 1) for n in months if n % every == 0]


def _moment(day: date) -> alt.DateTime:
    """Return a day as the end of an axis: Vega's interpreter of expressions, in reports, takes no milliseconds."""
    return alt.DateTime(year=day.year, month=day.month, date=day.day, utc=True)


def milliseconds(day: date) -> int:
    """Return the milliseconds from 1970 to the beginning of a day (UTC)."""
    return (day - date(1970, 1, 1)).days * 86_400_000


def dated(tables: Mapping[str, pl.DataFrame], theme: ChartTheme) -> dict[str, pl.DataFrame]:
    """Return tables with the dates of their steps, as the axis of :func:`steps_axis` needs with a calendar."""
    calendar = theme.calendar
    if calendar is None:
        return dict(tables)
    days = {t: milliseconds(calendar.date_of(t)) for t in range(theme.first, theme.last + 1)}
    steps = pl.col("step").cast(pl.Int64).replace_strict(days, default=None, return_dtype=pl.Int64)
    return {
        name: table.with_columns(steps.alias(DATE)) if "step" in table.columns else table
        for name, table in tables.items()
    }


def step_tooltips(theme: ChartTheme, title: str = "step") -> list[alt.Tooltip]:
    """Return the tooltips of a step: its number, and its date with a calendar."""
    number = alt.Tooltip("step:Q", title=title)
    if theme.calendar is None:
        return [number]
    return [number, alt.Tooltip(f"{DATE}:T", title="date", timeUnit="utcyearmonthdate")]


def span(values: Sequence[float], log: bool = False) -> list[float]:
    """Return an axis domain that contains all values, with a small margin."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    if log:
        return [low / (high / low) ** 0.06 / 1.01, high * (high / low) ** 0.06 * 1.01]
    margin = 0.06 * (high - low) or abs(high) * 0.05 or 0.5
    return [low - margin, high + margin]


def spread(values: Sequence[float], domain: Sequence[float], height: int, log: bool, gap: float = 14) -> list[float]:
    """Move label positions apart just enough for labels not to overlap, within the domain; ``gap`` is in pixels."""
    transform, inverse = (math.log, math.exp) if log else (float, float)
    low, high = transform(domain[0]), transform(domain[1])
    pixel = (high - low) / height
    order = sorted(range(len(values)), key=lambda i: values[i])
    places = [min(max(transform(values[i]), low), high) for i in order]
    distance = min(gap * pixel, (high - low) / max(1, len(values) - 1))
    for _ in range(60):  # move both labels of an overlapping pair by half the overlap
        for i in range(len(places) - 1):
            overlap = distance - (places[i + 1] - places[i])
            if overlap > 0:
                places[i] -= overlap / 2
                places[i + 1] += overlap / 2
        places = [
            min(max(place, low + i * distance), high - (len(places) - 1 - i) * distance)
            for i, place in enumerate(places)
        ]
    placed = [0.0] * len(values)
    for rank, i in enumerate(order):
        placed[i] = inverse(places[rank])
    return placed


def change_tables(theme: ChartTheme, width: int) -> dict[str, pl.DataFrame]:
    """Return the timed changes (step, change, _short), and those with names to the left and right of their lines."""
    shown = [(step, change) for step, change in theme.changes if theme.first <= step <= theme.last]
    if not shown:
        return {}
    rows = pl.DataFrame(shown, schema=["step", "change"], orient="row")
    short = pl.when(pl.col("change").str.len_chars() > 44).then(pl.col("change").str.head(42) + "…").otherwise("change")
    rows = rows.with_columns(_short=short)
    if width <= 700:
        return {"changes": rows}
    late = pl.col("step") > (theme.first + theme.last) / 2
    step_width = width / max(1, theme.last - theme.first)
    early, later = rows.filter(~late).sort("step"), rows.filter(late).sort("step", descending=True)
    sides = {
        "_early changes": _without_overlaps(early, step_width),
        "_late changes": _without_overlaps(later, step_width),
    }
    return {"changes": rows, **{name: table for name, table in sides.items() if table.height}}


def _without_overlaps(rows: pl.DataFrame, step_width: float) -> pl.DataFrame:
    """Drop changes whose names would overlap the previous name; ``step_width`` is in pixels."""
    named: list[int] = []
    for i, step in enumerate(rows["step"]):
        if not named or abs(step - rows["step"][named[-1]]) * step_width > LETTER * len(rows["_short"][named[-1]]):
            named.append(i)
    return rows[named]


def change_rules(theme: ChartTheme, width: int, tables: Collection[str]) -> list[alt.Chart]:
    """Return a dotted line for each timed change of :func:`change_tables`, with its name where there is room.

    ``tables``: names of the tables of the chart.
    """
    if "changes" not in tables:
        return []
    x = steps_axis(theme, width)
    rule = part("changes").mark_rule(strokeDash=[1, 3], strokeWidth=1.6, style="ink")
    layers = [rule.encode(x=x, tooltip=[*step_tooltips(theme, "from step"), alt.Tooltip("change:N")])]
    for name, (align, dx) in NAMED_CHANGES.items():
        if name in tables:
            text = part(name).mark_text(align=align, dx=dx, dy=6, fontSize=10.5, style="soft")
            layers.append(text.encode(x=x, y=alt.YValue(0), text=alt.Text("_short:N")))
    return layers
