"""The charts of a report: pure functions from tables of numbers to Altair charts.

Colours, type and backgrounds are not in a chart but in :data:`LIGHT` and :data:`DARK`, two Vega configurations
with the same names, so that one specification serves the page in both modes and the files on disk. A population
has the colour of its place in ``Look.populations``, everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import altair as alt
import polars as pl

WIDE, NARROW = (780, 340), (400, 230)  # width and height in pixels; the page stretches the width
LABELLED = 10  # populations, at most, that are all named beside their lines
FONT = "system-ui, -apple-system, 'Segoe UI', 'Helvetica Neue', Arial, 'Liberation Sans', sans-serif"
HUMAN, SYNTHETIC = "#8793a3", "#8b5cd6"  # legible on both backgrounds; violet is never a population


@dataclass(frozen=True)
class Scheme:
    """The colours of one mode of the page."""

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
    """Return the Vega-Lite configuration of a mode."""
    text = {"labelColor": scheme.soft, "titleColor": scheme.soft, "labelFontSize": 11, "titleFontSize": 11.5}
    return {
        "background": scheme.paper,
        "font": FONT,
        "view": {"stroke": None},
        "title": {
            "color": scheme.ink, "subtitleColor": scheme.soft, "fontSize": 14, "fontWeight": 600,
            "subtitleFontSize": 11.5, "anchor": "start", "frame": "group", "offset": 12, "subtitlePadding": 4,
        },
        "axis": {
            **text, "gridColor": scheme.grid, "domain": False, "ticks": False, "labelPadding": 7,
            "titleFontWeight": "normal", "titlePadding": 10,
        },
        "legend": {**text, "titleFontWeight": "normal", "gradientThickness": 8, "gradientLength": 140},
        "range": {"category": list(scheme.populations), "ramp": list(scheme.share), "heatmap": list(scheme.share)},
        "text": {"color": scheme.ink, "fontSize": 11.5},
        "style": {
            "ink": {"stroke": scheme.ink, "fill": scheme.ink},
            "ink-line": {"stroke": scheme.ink},
            "ink-text": {"fill": scheme.ink},
            "soft-line": {"stroke": scheme.soft},
            "soft-text": {"fill": scheme.soft},
            "halo": {"stroke": scheme.paper},
        },
    }  # fmt: skip


@dataclass(frozen=True)
class Look:
    """What all charts of a run share: populations in the order of their colours, last step, timed changes."""

    populations: Sequence[str]
    last: int
    first: int = 0
    changes: Sequence[tuple[int, str]] = field(default=())  # step, what changed


@dataclass(frozen=True)
class Words:
    """What a chart says about itself: title, a line below it, y axis, and the d3 format of its values."""

    title: str
    below: str
    axis: str
    format: str = ".3f"


Vertical = Callable[..., alt.Y]  # column → y channel of a chart


def _data(frame: pl.DataFrame) -> pl.DataFrame:
    return frame


def _colour(look: Look) -> alt.Color:
    return alt.Color("population:N", scale=alt.Scale(domain=list(look.populations)), legend=None)


def _steps(look: Look) -> alt.X:
    """Return the axis of steps: whole numbers only, about ten of them."""
    every = max(1, math.ceil((look.last - look.first) / 10))
    alone = look.first == look.last
    return alt.X(
        "step:Q",
        title="step",
        scale=alt.Scale(domain=[look.first - 0.5, look.last + 0.5] if alone else [look.first, look.last], nice=False),
        axis=alt.Axis(values=list(range(look.first, look.last + 1, every)), format="d", grid=False),
    )


def _domain(values: Sequence[float], log: bool = False) -> list[float]:
    """Return an axis that holds all values with a little air."""
    low, high = min(values), max(values)
    if log:
        return [low / (high / low) ** 0.06 / 1.01, high * (high / low) ** 0.06 * 1.01]
    air = 0.06 * (high - low) or abs(high) * 0.05 or 0.5
    return [low - air, high + air]


def _spread(values: Sequence[float], domain: Sequence[float], height: int, log: bool, gap: float = 14) -> list[float]:
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
    size: tuple[int, int] = NARROW,
    log: bool = False,
    domain: Sequence[float] | None = None,
) -> alt.LayerChart:
    """Draw lines over steps, one colour per population, each named at its end.

    ``frame``: population, step, value, error, members (:func:`ecosystem.report.figures.means`); the band is the
    standard error. ``single``: the same of single trainers, drawn faintly. ``whole``: step, value, error and
    label of things that are no population (the web), in ink. ``levels``: label and value of reference lines.
    """
    width, height = size
    frame = _with_band(frame, log)
    whole = None if whole is None or whole.is_empty() else whole
    levels = pl.DataFrame(schema={"label": pl.String, "value": pl.Float64}) if levels is None else levels
    values = [*frame["low"], *frame["high"], *frame["value"], *levels["value"]]
    values += [] if single is None else list(single["value"])
    values += [] if whole is None else list(whole["value"])
    domain = list(domain) if domain else _domain([v for v in values if v is not None and (v > 0 or not log)], log)
    x = _steps(look)
    scale = alt.Scale(type="log" if log else "linear", domain=domain, nice=False, zero=False)
    axis = alt.Axis(format=words.format, tickCount=5)

    def y(column: str = "value") -> alt.Y:
        return alt.Y(f"{column}:Q", title=words.axis, scale=scale, axis=axis)

    layers: list[alt.Chart] = []

    labels = _labels(frame, whole, levels, look)
    labels = labels.with_columns(place=pl.Series(_spread(labels["value"].to_list(), domain, height, log), dtype=pl.Float64))
    layers += _change_rules(look, height, size == WIDE)
    if levels.height:
        rule = alt.Chart(_data(levels)).mark_rule(strokeDash=[2, 3], strokeWidth=1.2, style="soft-line")
        layers.append(rule.encode(y=y(), tooltip=[alt.Tooltip("label:N", title="reference"), _value(words)]))
    if frame.height:
        layers += _population_layers(frame, single, look, x, y, words)
    if whole is not None:
        layers.append(alt.Chart(_data(whole)).mark_line(strokeWidth=2.6, style="ink-line").encode(x=x, y=y()))
        dots = alt.Chart(_data(whole)).mark_circle(size=30, style="ink", opacity=1)
        layers.append(dots.encode(x=x, y=y(), tooltip=[alt.Tooltip("label:N", title="of"), "step:Q", _value(words)]))
    layers += _label_layers(labels, look, y)
    return alt.layer(*layers).properties(
        width=width,
        height=height,
        title=alt.TitleParams(words.title, subtitle=words.below),
        # Names stand outside the plot, where Vega measures nothing: leave room for the longest.
        padding={"left": 5, "top": 5, "bottom": 5, "right": 14 + round(6.3 * max(map(len, labels["label"]), default=0))},
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
    colour, base = _colour(look), alt.Chart(_data(frame))
    layers = []
    if single is not None and frame["members"].max() != 1 and single["trainer"].n_unique() <= 200:
        faint = alt.Chart(_data(single)).mark_line(strokeWidth=1, opacity=0.3)
        layers.append(faint.encode(x=x, y=y(), color=colour, detail="trainer:N"))
    low, high = y("low"), alt.Y2("high:Q")
    if look.first == look.last:
        layers.append(base.mark_rule(strokeWidth=5, opacity=0.25).encode(x=x, y=low, y2=high, color=colour))
    else:
        layers.append(base.mark_area(opacity=0.16).encode(x=x, y=low, y2=high, color=colour))
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


def _labels(frame: pl.DataFrame, whole: pl.DataFrame | None, levels: pl.DataFrame, look: Look) -> pl.DataFrame:
    """Return what is written at the right edge: label, value, step, kind (population, whole, level)."""
    ends = frame.group_by("population", maintain_order=True).last()
    parts = [
        _named(ends).select(label="population", value="value", step=pl.col("step").cast(pl.Float64), kind=pl.lit("population")),
        levels.select("label", "value", step=pl.lit(float(look.last)), kind=pl.lit("level")),
    ]
    if whole is not None:
        final = whole.group_by("label", maintain_order=True).last()
        parts.append(final.select("label", "value", step=pl.col("step").cast(pl.Float64), kind=pl.lit("whole")))
    return pl.concat(parts)


def _label_layers(labels: pl.DataFrame, look: Look, y: Vertical) -> list[alt.Chart]:
    layers = []
    for kind, style in (("population", None), ("whole", "ink-text"), ("level", "soft-text")):
        rows = labels.filter(pl.col("kind") == kind).rename({"label": "population"})
        if rows.is_empty():
            continue
        # At the edge of the plot, also where a line ends before the last step: names form one column.
        style_of = {} if style is None else {"style": style}
        text = alt.Chart(_data(rows)).mark_text(align="left", dx=9, fontWeight=500, **style_of)
        encoded = text.encode(x=alt.value("width"), y=y("place"), text="population:N")
        layers.append(encoded.encode(color=_colour(look)) if style is None else encoded)
    return layers


def _change_rules(look: Look, height: int, named: bool) -> list[alt.Chart]:
    """Return a dotted line at every timed change, with its name where there is room."""
    here = [(step, what) for step, what in look.changes if look.first <= step <= look.last]
    if not here:
        return []
    rows = pl.DataFrame(here, schema=["step", "change"], orient="row")
    short = pl.when(pl.col("change").str.len_chars() > 44).then(pl.col("change").str.head(42) + "…").otherwise("change")
    base = alt.Chart(_data(rows.with_columns(short=short)))
    x = _steps(look)
    rule = base.mark_rule(strokeDash=[1, 3], strokeWidth=1.6, style="ink-line")
    layers = [rule.encode(x=x, tooltip=[alt.Tooltip("step:Q", title="from step"), alt.Tooltip("change:N")])]
    if named:
        late = look.changes[0][0] > (look.first + look.last) / 2
        text = base.mark_text(align="right" if late else "left", dx=-5 if late else 5, dy=6, fontSize=10.5, style="soft-text")
        layers.append(text.encode(x=x, y=alt.value(0), text="short:N"))
    return layers


def vocabulary(frame: pl.DataFrame, human: pl.DataFrame, look: Look, words: Words) -> alt.LayerChart:
    """Draw the share of the human vocabulary kept, by frequency decile: first step dashed, last step solid.

    ``frame``: population, decile, when (first or last), step, value, error. ``human``: decile, value.
    """
    x = alt.X("decile:O", title="decile of the human vocabulary, 1 = most frequent words", axis=alt.Axis(labelAngle=0))
    top = max([*frame["value"], *human["value"], 0.01])
    y = alt.Y("value:Q", title=words.axis, scale=alt.Scale(domain=[0, top * 1.06], nice=False), axis=alt.Axis(format="%", tickCount=5))
    layers: list[alt.Chart] = []
    if human.height:
        line = alt.Chart(_data(human)).mark_line(strokeDash=[2, 3], strokeWidth=1.2, style="soft-line")
        layers.append(line.encode(x=x, y=y))
        layers.append(
            alt.Chart(_data(human.tail(1)))
            .mark_text(align="left", dx=8, style="soft-text")
            .encode(x=x, y=y, text=alt.value("human text"))
        )
    base = alt.Chart(_data(frame))
    dash = alt.StrokeDash("when:N", scale=alt.Scale(domain=["first", "last"], range=[[5, 3], [1, 0]]), legend=None)
    fade = alt.Opacity("when:N", scale=alt.Scale(domain=["first", "last"], range=[0.5, 1]), legend=None)
    layers.append(base.mark_line(strokeWidth=2.2).encode(x=x, y=y, color=_colour(look), strokeDash=dash, opacity=fade))
    tooltip = ["population:N", "decile:O", "step:Q", _value(words), alt.Tooltip("error:Q", title="± standard error", format=words.format)]
    layers.append(base.mark_circle(size=34).encode(x=x, y=y, color=_colour(look), opacity=fade, tooltip=tooltip))
    width, height = WIDE
    return alt.layer(*layers).properties(
        width=width, height=height, title=alt.TitleParams(words.title, subtitle=words.below),
        padding={"left": 5, "top": 5, "bottom": 5, "right": 60},
    )  # fmt: skip


def rates(frame: pl.DataFrame, words: Words) -> alt.LayerChart:
    """Draw a pair of bars per row, human above synthetic: how many of each were refused or suspected.

    ``frame``: row, origin, flagged, total, rate, error (:func:`ecosystem.report.figures.refusals`).
    """
    order = frame["row"].unique(maintain_order=True).to_list()
    told = pl.format("{} % of {}", (pl.col("rate") * 100).round(1), pl.col("total").cast(pl.Int64))
    base = alt.Chart(
        _data(frame.with_columns(low=pl.col("rate") - pl.col("error"), high=pl.col("rate") + pl.col("error"), told=told))
    )
    row = alt.Y("row:N", sort=order, title=None, axis=alt.Axis(labelLimit=260, labelFontSize=12, labelPadding=10))
    beside = alt.YOffset("origin:N", sort=["human", "synthetic"])
    top = min(1.0, max([*frame["rate"], 0.01]) * 1.02)
    x = alt.X("rate:Q", title=words.axis, scale=alt.Scale(domain=[0, top], nice=False), axis=alt.Axis(format="%", tickCount=5))
    colour = alt.Color("origin:N", scale=alt.Scale(domain=["human", "synthetic"], range=[HUMAN, SYNTHETIC]), legend=None)
    tooltip = ["row:N", "origin:N", alt.Tooltip("flagged:Q", format=",d"), alt.Tooltip("total:Q", format=",d"),
               alt.Tooltip("rate:Q", format=".2%"), alt.Tooltip("error:Q", title="± standard error", format=".2%")]  # fmt: skip
    bars = base.mark_bar(cornerRadiusEnd=2, height={"band": 0.86}).encode(
        x=x, y=row, yOffset=beside, color=colour, tooltip=tooltip
    )
    doubt = base.mark_rule(style="ink-line", opacity=0.55).encode(x=alt.X("low:Q", title=words.axis), x2="high:Q", y=row, yOffset=beside)
    note = base.mark_text(align="left", dx=7, fontSize=11, style="soft-text").encode(
        x=alt.X("high:Q", title=words.axis), y=row, yOffset=beside, text="told:N"
    )
    return alt.layer(bars, doubt, note).properties(
        width=WIDE[0], height=alt.Step(21), title=alt.TitleParams(words.title, subtitle=words.below),
        padding={"left": 5, "top": 5, "bottom": 5, "right": 130},
    )  # fmt: skip


def site_graph(nodes: pl.DataFrame, links: pl.DataFrame, words: Words, most: float, legend: bool = True) -> alt.LayerChart:
    """Draw the sites of the web: colour is the synthetic share, area the number of documents.

    ``nodes``: site, x, y (within 0 to 1), documents, value (synthetic share, null for an empty site).
    ``links``: x, y, x2, y2. ``most``: the documents of the largest dot, the same in every chart of a row.
    """
    span = alt.Scale(domain=[-0.03, 1.03], nice=False)
    x, y = alt.X("x:Q", axis=None, scale=span), alt.Y("y:Q", axis=None, scale=span)
    largest = min(420.0, 60000 / max(1, nodes.height))
    dense = links.height > 600
    lines = alt.Chart(_data(links)).mark_rule(strokeWidth=0.5 if dense else 0.8, opacity=0.18 if dense else 0.35, style="soft-line")
    scale = alt.Color("value:Q", scale=alt.Scale(domain=[0, 1], type="linear"), title="synthetic share",
                      legend=alt.Legend(format="%", orient="bottom", direction="horizontal") if legend else None)  # fmt: skip
    dots = alt.Chart(_data(nodes)).mark_circle(opacity=1, strokeWidth=0.8, style="halo")
    return (
        alt.layer(
            lines.encode(x=x, y=y, x2="x2:Q", y2="y2:Q"),
            dots.encode(
                x=x, y=y, color=scale,
                size=alt.Size("documents:Q", scale=alt.Scale(domain=[0, most], range=[largest / 40, largest]), legend=None),
                tooltip=["site:N", alt.Tooltip("documents:Q", format=",d"),
                         alt.Tooltip("value:Q", title="synthetic share", format=".0%")],
            ),
        )
        .properties(width=NARROW[0], height=360, title=alt.TitleParams(words.title, subtitle=words.below))
    )  # fmt: skip


def specification(chart: alt.TopLevelMixin) -> dict[str, Any]:
    """Return a chart as plain Vega-Lite, without Altair's default theme: the page brings its own."""
    with alt.data_transformers.disable_max_rows():
        spec: dict[str, Any] = chart.to_dict(validate=False)
    spec.pop("config", None)
    return spec


def pictures(spec: dict[str, Any], scheme: Scheme = LIGHT) -> tuple[bytes, bytes]:
    """Render a specification as SVG and as PNG (at twice its size in pixels)."""
    import vl_convert

    svg = vl_convert.vegalite_to_svg(spec, config=configuration(scheme), allowed_base_urls=[])
    return svg.encode(), vl_convert.svg_to_png(svg, scale=2)
