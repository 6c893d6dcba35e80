"""Charts of lines: quality, contamination and diversity over steps, and the vocabulary that is kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import altair as alt
import polars as pl

from ecosystem.charts.look import LABELLED, NARROW, WIDE, Look, Words

FEW = 24  # trainers, at most, that are drawn one by one
Vertical = Callable[..., alt.Y]  # column → y channel of a chart


def colours(look: Look) -> alt.Color:
    """Return the colour channel: that of a population is its place in the look."""
    return alt.Color("population:N", scale=alt.Scale(domain=list(look.populations)), legend=None)


def steps_axis(look: Look, width: int) -> alt.X:
    """Return the axis of steps: whole numbers only, round ones, at most as many as have room."""
    least = (look.last - look.first) / (10 if width > 500 else 6)
    every = next(n * 10**k for k in range(10) for n in (1, 2, 5) if n * 10**k >= least)
    alone = look.first == look.last
    return alt.X(
        "step:Q",
        title="step",
        scale=alt.Scale(domain=[look.first - 0.5, look.last + 0.5] if alone else [look.first, look.last], nice=False),
        axis=alt.Axis(
            values=list(range(-(-look.first // every) * every, look.last + 1, every)),
            format="d",
            grid=False,
            labelFlush=False,
        ),
    )


def span(values: Sequence[float], log: bool = False) -> list[float]:
    """Return an axis that holds all values with a little air."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    if log:
        return [low / (high / low) ** 0.06 / 1.01, high * (high / low) ** 0.06 * 1.01]
    air = 0.06 * (high - low) or abs(high) * 0.05 or 0.5
    return [low - air, high + air]


def spread(values: Sequence[float], domain: Sequence[float], height: int, log: bool, gap: float = 14) -> list[float]:
    """Move label positions apart, as little as that takes, so that none lie on one another; keep them in the domain."""
    forward, back = (math.log, math.exp) if log else (float, float)
    low, high = forward(domain[0]), forward(domain[1])
    pixel = (high - low) / height
    order = sorted(range(len(values)), key=lambda i: values[i])
    places = [min(max(forward(values[i]), low), high) for i in order]
    least = min(gap * pixel, (high - low) / max(1, len(values) - 1))
    for _ in range(60):  # push every pair that is too close apart by half of what is missing
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


def _named(last: pl.DataFrame) -> pl.DataFrame:
    """Return the lines that get a name beside them: all, or the three highest and lowest where there are many."""
    if last.height <= LABELLED:
        return last
    ordered = last.sort("value")
    return pl.concat([ordered.head(3), ordered.tail(3)])


def over_steps(
    frame: pl.DataFrame,
    look: Look,
    words: Words,
    *,
    single: pl.DataFrame | None = None,
    whole: pl.DataFrame | None = None,
    levels: pl.DataFrame | None = None,
    laws: pl.DataFrame | None = None,
    size: tuple[int, int] = NARROW,
    log: bool = False,
    domain: Sequence[float] | None = None,
) -> alt.LayerChart:
    """Draw lines over steps, one colour per population, each named at its end.

    ``frame``: population, step, value, error, members (:func:`ecosystem.report.figures.means`); the band is the
    standard error. ``single``: the same of single trainers, drawn faintly (of many, what four fifths of them span).
    ``whole``: step, value, error and label of things that are no population (the web), in ink. ``levels``: label and
    value of reference lines.
    ``laws``: population, law, step, value of closed forms, drawn dashed through the simulation.
    """
    width, height = size
    frame = _with_band(frame, log)
    whole = None if whole is None or whole.is_empty() else whole
    levels = pl.DataFrame(schema={"label": pl.String, "value": pl.Float64}) if levels is None else levels
    values = [*frame["low"], *frame["high"], *frame["value"], *levels["value"]]
    if single is not None and single["trainer"].n_unique() > FEW:
        single = _most(single)  # a hundred lines say less than where most of them are, and take minutes to paint
        values += [*single["low"], *single["high"]]
    elif single is not None:
        values += list(single["value"])
    values += [] if whole is None else list(whole["value"])
    values += [] if laws is None else list(laws["value"])
    domain = list(domain) if domain else span([v for v in values if v is not None and (v > 0 or not log)], log)
    x = steps_axis(look, width)
    scale = alt.Scale(type="log" if log else "linear", domain=domain, nice=False, zero=False)
    axis = alt.Axis(format=words.format, tickCount=5)

    def y(column: str = "value") -> alt.Y:
        return alt.Y(f"{column}:Q", title=words.axis, scale=scale, axis=axis)

    layers = change_rules(look, width)
    if levels.height:
        rule = alt.Chart(levels).mark_rule(strokeDash=[2, 3], strokeWidth=1.2, style="soft")
        layers.append(rule.encode(y=y(), tooltip=[alt.Tooltip("label:N", title="reference"), _value(words)]))
    if frame.height:
        layers += _population_layers(frame, single, look, x, y, words)
    if whole is not None:
        layers.append(alt.Chart(whole).mark_line(strokeWidth=2.6, style="ink").encode(x=x, y=y()))
        dots = alt.Chart(whole).mark_circle(size=30, style="ink", opacity=1)
        layers.append(
            dots.encode(x=x, y=y(), tooltip=[alt.Tooltip("label:N", title="of"), alt.Tooltip("step:Q"), _value(words)])
        )
    if laws is not None and laws.height:
        dashes = alt.Chart(laws).mark_line(strokeDash=[6, 4], strokeWidth=1.6, style="ink")
        tooltip = [alt.Tooltip("law:N"), alt.Tooltip("population:N"), alt.Tooltip("step:Q"), _value(words)]
        layers.append(
            dashes.encode(x=x, y=y(), detail=[alt.Detail("population:N"), alt.Detail("law:N")], tooltip=tooltip)
        )
    layers += _names(_ends(frame, whole, levels), look, y, domain, height, log)
    # All at once: each later change of an Altair chart would copy it whole.
    title = alt.TitleParams(words.title, subtitle=words.below)
    return alt.layer(*layers, width=width, height=height, title=title)


def _most(single: pl.DataFrame) -> pl.DataFrame:
    """Return population, step, low and high: what lies between the first and the last tenth of the trainers."""
    return single.group_by("population", "step", maintain_order=True).agg(
        low=pl.col("value").quantile(0.1, "linear"), high=pl.col("value").quantile(0.9, "linear")
    )


def _value(words: Words) -> alt.Tooltip:
    return alt.Tooltip("value:Q", title=words.axis, format=words.format)


def _with_band(frame: pl.DataFrame, log: bool) -> pl.DataFrame:
    error = pl.col("error").fill_null(0.0).fill_nan(0.0)
    low = pl.col("value") - error
    low = pl.max_horizontal(low, pl.col("value") / 2) if log else low
    return frame.with_columns(low=low, high=pl.col("value") + error)


def _population_layers(
    frame: pl.DataFrame, single: pl.DataFrame | None, look: Look, x: alt.X, y: Vertical, words: Words
) -> list[alt.Chart]:
    colour, base = colours(look), alt.Chart(frame)
    layers = []
    if single is not None and "trainer" not in single.columns:
        most = alt.Chart(single).mark_area(opacity=1, fillOpacity=0.07)
        layers.append(most.encode(x=x, y=y("low"), y2=alt.Y2("high:Q"), color=colour))
    elif single is not None and frame["members"].max() != 1:
        faint = alt.Chart(single).mark_line(strokeWidth=1, strokeOpacity=0.3)
        layers.append(faint.encode(x=x, y=y(), color=colour, detail=alt.Detail("trainer:N")))
    low, high = y("low"), alt.Y2("high:Q")
    if look.first == look.last:
        layers.append(base.mark_rule(strokeWidth=5, strokeOpacity=0.25).encode(x=x, y=low, y2=high, color=colour))
    else:
        layers.append(base.mark_area(opacity=1, fillOpacity=0.16).encode(x=x, y=low, y2=high, color=colour))
    layers.append(base.mark_line(strokeWidth=2.2).encode(x=x, y=y(), color=colour))
    tooltip = [
        alt.Tooltip("population:N"),
        alt.Tooltip("step:Q"),
        _value(words),
        alt.Tooltip("error:Q", title="± standard error", format=words.format.replace("+", "")),
        alt.Tooltip("members:Q", title="trainers"),
    ]
    size = 34 if frame.height <= 150 else 12
    layers.append(base.mark_circle(size=size, opacity=1).encode(x=x, y=y(), color=colour, tooltip=tooltip))
    return layers


def _ends(frame: pl.DataFrame, whole: pl.DataFrame | None, levels: pl.DataFrame) -> pl.DataFrame:
    """Return what is named at the right edge: name, value, kind (population, whole or level)."""
    ends = _named(frame.group_by("population", maintain_order=True).last())
    parts = [
        ends.select(name="population", value="value", kind=pl.lit("population")),
        levels.select(name="label", value="value", kind=pl.lit("level")),
    ]
    if whole is not None:
        parts.append(whole.tail(1).select(name="label", value="value", kind=pl.lit("whole")))
    return pl.concat(parts)


def _names(
    ends: pl.DataFrame, look: Look, y: Vertical, domain: Sequence[float], height: int, log: bool = False
) -> list[alt.Chart]:
    """Write names beside the plot, in one column also where a line ends before the last step."""
    placed = ends.with_columns(place=pl.Series(spread(ends["value"].to_list(), domain, height, log), dtype=pl.Float64))
    layers = []
    for kind, style in (("population", None), ("whole", "ink"), ("level", "soft")):
        rows = placed.filter(pl.col("kind") == kind).select("place", population="name")
        if rows.height:
            chart = alt.Chart(rows)
            text = chart.mark_text(align="left", dx=9, fontWeight=500, **({"style": style} if style else {}))
            colour = {} if style else {"color": colours(look)}
            layers.append(text.encode(x=alt.XValue("width"), y=y("place"), text=alt.Text("population:N"), **colour))
    return layers


def change_rules(look: Look, width: int) -> list[alt.Chart]:
    """Return a dotted line at every timed change, with its name where there is room."""
    here = [(step, what) for step, what in look.changes if look.first <= step <= look.last]
    if not here:
        return []
    rows = pl.DataFrame(here, schema=["step", "change"], orient="row")
    short = pl.when(pl.col("change").str.len_chars() > 44).then(pl.col("change").str.head(42) + "…").otherwise("change")
    rows = rows.with_columns(short=short)
    x = steps_axis(look, width)
    rule = alt.Chart(rows).mark_rule(strokeDash=[1, 3], strokeWidth=1.6, style="ink")
    layers = [rule.encode(x=x, tooltip=[alt.Tooltip("step:Q", title="from step"), alt.Tooltip("change:N")])]
    if width > 700:
        for late in (False, True):  # late ones to the left of their line
            side = rows.filter((pl.col("step") > (look.first + look.last) / 2) == late)
            text = alt.Chart(side).mark_text(
                align="right" if late else "left", dx=-5 if late else 5, dy=6, fontSize=10.5, style="soft"
            )
            if side.height:
                layers.append(text.encode(x=x, y=alt.YValue(0), text=alt.Text("short:N")))
    return layers


def vocabulary(frame: pl.DataFrame, human: pl.DataFrame, look: Look, words: Words) -> alt.LayerChart:
    """Draw the share of the human vocabulary kept, by frequency decile: first step dashed, last step solid.

    ``frame``: population, decile, when (first or last), step, value, error. ``human``: decile, value.
    """
    width, height = WIDE
    x = alt.X("decile:O", title="decile of the human vocabulary, 1 = most frequent words", axis=alt.Axis(labelAngle=0))
    domain = [0.0, 1.06 * max([*frame["value"], *human["value"], 0.01])]
    scale, axis = alt.Scale(domain=domain, nice=False), alt.Axis(format="%", tickCount=5)

    def y(column: str = "value") -> alt.Y:
        return alt.Y(f"{column}:Q", title=words.axis, scale=scale, axis=axis)

    layers: list[alt.Chart] = []
    if human.height:
        line = alt.Chart(human).mark_line(strokeDash=[2, 3], strokeWidth=1.2, style="soft")
        layers.append(line.encode(x=x, y=y()))
    colour, base = colours(look), alt.Chart(frame)
    ends = ["first", "last"]
    dash = alt.StrokeDash("when:O", scale=alt.Scale(domain=ends, range=[[5, 3], [1, 0]]), legend=None)
    fade = alt.Scale(domain=ends, range=[0.55, 1])
    thin = alt.StrokeOpacity("when:O", scale=fade, legend=None)
    pale = alt.FillOpacity("when:O", scale=fade, legend=None)
    layers.append(base.mark_line(strokeWidth=2.2).encode(x=x, y=y(), color=colour, strokeDash=dash, strokeOpacity=thin))
    error = alt.Tooltip("error:Q", title="± standard error", format=words.format)
    tooltip = [alt.Tooltip("population:N"), alt.Tooltip("decile:O"), alt.Tooltip("step:Q"), _value(words), error]
    layers.append(
        base.mark_circle(size=34, opacity=1).encode(x=x, y=y(), color=colour, fillOpacity=pale, tooltip=tooltip)
    )
    solid = frame.filter(pl.col("when") == "last").sort("decile", maintain_order=True)
    people = human.with_columns(label=pl.lit("human text")).tail(1)
    layers += _names(_ends(solid, None, people), look, y, domain, height)
    return alt.layer(*layers, width=width, height=height, title=alt.TitleParams(words.title, subtitle=words.below))
