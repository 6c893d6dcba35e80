"""One column of documents or of the ledger against another: points, a heat map or boxes.

Heat maps and boxes are computed from all rows, points drawn from a sample; the subtitle says which.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from ecosystem.app.charts.live_charts import FrameData, LiveChart
from ecosystem.app.charts.tables import KINDS, Tables
from ecosystem.report.charts.theme import HUMAN, SYNTHETIC

POINTS = 2000  # rows drawn as points, at most
BINS, BOXES = 30, 12  # intervals of a number, as cells of a heat map and as boxes
LEVEL = 6  # categories, at most, whose names are level below an axis
THOUSAND = 1000.0
FEW = 40  # different whole numbers, at most, around which points are spread
MOST = 12  # categories shown, at most; the rarer ones together
MARKS = ("points", "heat map", "boxes")
NONE = "nothing"  # the choice of no colour
_WHISKERS = {"low": 0.05, "first": 0.25, "middle": 0.5, "third": 0.75, "high": 0.95}
_ACROSS = {"vertical": "horizontal", "horizontal": "vertical"}  # the direction of a median in a box
_ORIGINS = {"domain": ["human", "synthetic"], "range": [HUMAN, SYNTHETIC]}


@dataclass(frozen=True)
class Choice:
    """What to draw: two columns of a table, the column that colours (or NONE) and the mark."""

    table: str
    x: str
    y: str
    colour: str
    mark: str


def marks_for(tables: Tables, table: str, x: str, y: str) -> list[str]:
    """Return the marks that suit two columns, the best one first."""
    named = [tables.is_category(table, name) for name in (x, y)]
    if not any(named):
        return ["points", "heat map", "boxes"]
    return ["heat map", "points"] if all(named) else ["boxes", "points", "heat map"]


def drawn(tables: Tables, choice: Choice, step: int) -> LiveChart | None:
    """Draw columns of the rows up to a step; None if no row has values in both."""
    names = list(dict.fromkeys([choice.x, choice.y, *([] if choice.colour == NONE else [choice.colour])]))
    rows = tables.rows(choice.table, names, step)
    whole = rows.height
    rows = rows.drop_nulls(list(dict.fromkeys([choice.x, choice.y])))
    if rows.is_empty():
        return None
    missing = f"; {whole - rows.height:,} without a value left out" if whole > rows.height else ""
    rows = pl.DataFrame(
        {
            key: rows[name] if not tables.is_category(choice.table, name) else _common(rows[name])
            for key, name in (("x", choice.x), ("y", choice.y), ("c", choice.colour))
            if name != NONE
        }
    )
    draw = {"points": _points, "heat map": _heat_map, "boxes": _boxes}[choice.mark]
    spec, data, how = draw(rows, tables, choice)
    title = f"{tables.title(choice.table, choice.y)} by {tables.title(choice.table, choice.x)}"
    below = f"{how}{missing}"
    columns = {"rows": {name: values.to_list() for name, values in data.to_dict().items()}}
    name = "-".join([tables.view.called, choice.table, choice.y, choice.x]).replace(" ", "_")
    return LiveChart(name, spec, {"rows": []}, lambda _: FrameData(title, below, columns), steps_apart=True)


def _points(rows: pl.DataFrame, tables: Tables, choice: Choice) -> tuple[dict[str, Any], pl.DataFrame, str]:
    """Draw a sample of the rows, those of a category side by side."""
    shown = rows if rows.height <= POINTS else rows.sample(POINTS, seed=1)
    kinds = KINDS[choice.table]
    how = f"all {rows.height:,} {kinds}" if shown is rows else f"{POINTS:,} of {rows.height:,} {kinds}, drawn at random"
    encoding = {channel: _axis(tables, choice, channel, rows) for channel in ("x", "y")}
    for channel in ("x", "y"):
        if tables.is_category(choice.table, getattr(choice, channel)):
            offset = pl.Series(range(shown.height)).hash(7) % 1000  # spreads the points of a category over its band
            shown = shown.with_columns((offset / 1000).alias(f"{channel}_offset"))
            encoding[f"{channel}Offset"] = {"field": f"{channel}_offset", "type": "quantitative"}
        elif rows[channel].dtype.is_integer() and rows[channel].n_unique() <= FEW:  # points would lie on each other
            spread = pl.Series(range(shown.height)).hash(8) % 1000 / 1000 - 0.5
            shown = shown.with_columns(pl.col(channel) + 0.6 * spread)
            encoding[channel]["scale"]["domain"][0] -= 0.5
            encoding[channel]["scale"]["domain"][1] += 0.5
    if choice.colour != NONE:
        encoding["color"] = _colour(tables, choice, rows)
    mark = {"type": "circle", "size": 22, "opacity": 0.55}
    return _spec([{"mark": mark, "encoding": encoding}], rows, tables, choice), shown, how


def _heat_map(rows: pl.DataFrame, tables: Tables, choice: Choice) -> tuple[dict[str, Any], pl.DataFrame, str]:
    """Colour each cell by its number of rows, or by the mean of a column that has numbers or two origins."""
    keys: list[pl.Expr] = []
    encoding: dict[str, Any] = {}
    for channel in ("x", "y"):
        axis = _axis(tables, choice, channel, rows)
        if not tables.is_category(choice.table, getattr(choice, channel)):
            width = _width(rows[channel], BINS)
            low = ((pl.col(channel) - axis["scale"]["domain"][0]) / width).floor() * width + axis["scale"]["domain"][0]
            keys += [low.alias(channel), (low + width).alias(f"{channel}2")]
            axis["scale"]["domain"][1] += width  # the last cell begins at the largest value
            encoding[f"{channel}2"] = {"field": f"{channel}2"}
        else:
            keys.append(pl.col(channel))
        encoding[channel] = axis
    value, what = pl.len().cast(pl.Float64), KINDS[choice.table]
    colour, numbers = choice.colour, choice.colour != NONE and not tables.is_category(choice.table, choice.colour)
    if numbers:
        value, what = pl.col("c").mean(), f"mean of {tables.title(choice.table, colour)}"
    elif colour == "origin":
        value, what = (pl.col("c") == "synthetic").mean(), "synthetic share"
    data = rows.group_by(keys, maintain_order=True).agg(value=value, n=pl.len())
    encoding["color"] = {"field": "value", "type": "quantitative", "title": what, "scale": {"zero": False}}
    encoding["tooltip"] = [
        {"field": "n", "type": "quantitative", "title": KINDS[choice.table], "format": ",d"},
        {"field": "value", "type": "quantitative", "title": what, "format": ",.4~g"},
    ]
    how = f"all {rows.height:,} {KINDS[choice.table]}; colour: {what}"
    if colour not in (NONE, "origin") and not numbers:
        how += f" (a heat map cannot show the categories of {tables.title(choice.table, colour)})"
    return _spec([{"mark": {"type": "rect"}, "encoding": encoding}], rows, tables, choice), data, how


def _boxes(rows: pl.DataFrame, tables: Tables, choice: Choice) -> tuple[dict[str, Any], pl.DataFrame, str]:
    """Draw the quantiles of a column of numbers for each category, or each interval, of the other."""
    across, along = ("x", "y")
    if tables.is_category(choice.table, choice.y):
        across, along = along, across
    group = _axis(tables, choice, across, rows)
    if not tables.is_category(choice.table, getattr(choice, across)):
        width = _width(rows[across], BOXES)
        low = rows[across].min()
        middles = ((pl.col(across) - low) / width).floor() * width + low + (width / 2 if width > 1 else 0)
        rows = rows.with_columns(middles.alias(across))
        group["scale"]["domain"] = [group["scale"]["domain"][0] - width / 2, group["scale"]["domain"][1] + width / 2]
    quantiles = {name: pl.col(along).quantile(share, "linear") for name, share in _WHISKERS.items()}
    data = rows.group_by(across, maintain_order=True).agg(**quantiles, n=pl.len()).sort(across)
    axis = _axis(tables, choice, along, rows)
    axis["scale"]["domain"] = _domain(pl.concat([data["low"], data["high"]]))
    orient = "vertical" if along == "y" else "horizontal"
    layers: list[dict[str, Any]] = []
    for mark, low_end, high_end in (
        ({"type": "rule", "style": "soft"}, "low", "high"),
        ({"type": "bar", "size": 14, "opacity": 0.75, "orient": orient}, "first", "third"),
        ({"type": "tick", "style": "ink", "size": 14, "thickness": 2, "orient": _ACROSS[orient]}, "middle", ""),
    ):
        encoding: dict[str, Any] = {across: group, along: {**axis, "field": low_end}}
        if high_end:
            encoding[f"{along}2"] = {"field": high_end}
        encoding["tooltip"] = [{"field": "n", "title": KINDS[choice.table], "format": ",d"}] + [
            {"field": name, "title": f"{share:.0%} quantile", "format": ",.4~g"} for name, share in _WHISKERS.items()
        ]
        layers.append({"mark": mark, "encoding": encoding})
    how = f"all {rows.height:,} {KINDS[choice.table]}; line: 5% to 95%, box: 25% to 75%, tick: median"
    return _spec(layers, rows, tables, choice), data, how


def _spec(layers: Sequence[Any], rows: pl.DataFrame, tables: Tables, choice: Choice) -> dict[str, Any]:
    named = tables.is_category(choice.table, choice.y)
    return {
        "data": {"name": "rows"},
        "layer": list(layers),
        "width": "container",
        "height": max(120, 34 * rows["y"].n_unique()) if named else 320,
        "autosize": {"type": "fit-x", "contains": "padding"},
    }


def _axis(tables: Tables, choice: Choice, channel: str, rows: pl.DataFrame) -> dict[str, Any]:
    name = getattr(choice, channel)
    title = tables.title(choice.table, name, unit=True)
    if tables.is_category(choice.table, name):
        domain = rows[channel].value_counts(sort=True)[channel].to_list()
        angle = 0 if channel == "y" or len(domain) <= LEVEL else -40
        named = {"labelAngle": angle, "labelLimit": 120, "grid": False}
        return {"field": channel, "type": "nominal", "title": title, "scale": {"domain": sorted(domain)}, "axis": named}
    domain = _domain(rows[channel])
    large = max(map(abs, domain)) >= THOUSAND  # "10k"; below 1 the same format would give "200m"
    axis: dict[str, Any] = {"tickCount": 6, "format": "~s" if large else ".4~g"}
    if rows[channel].dtype.is_integer():
        axis["tickMinStep"] = 1
    scale = {"domain": domain, "nice": False, "zero": False}
    return {"field": channel, "type": "quantitative", "title": title, "scale": scale, "axis": axis}


def _colour(tables: Tables, choice: Choice, rows: pl.DataFrame) -> dict[str, Any]:
    title = tables.title(choice.table, choice.colour)
    if choice.colour == "origin":
        return {"field": "c", "type": "nominal", "title": title, "scale": _ORIGINS}
    if tables.is_category(choice.table, choice.colour):
        domain = sorted(rows["c"].drop_nulls().unique().to_list())
        return {"field": "c", "type": "nominal", "title": title, "scale": {"domain": domain}}
    return {"field": "c", "type": "quantitative", "title": title, "scale": {"domain": _domain(rows["c"])}}


def _common(values: pl.Series) -> pl.Series:
    """Return categories as text, the rarer ones as one."""
    values = values.cast(pl.String)
    frequent = values.value_counts(sort=True)[values.name].drop_nulls().to_list()
    if len(frequent) <= MOST:
        return values
    kept = frequent[: MOST - 1]
    other = f"{len(frequent) - len(kept):,} others"
    return pl.select(pl.when(values.is_in(kept) | values.is_null()).then(values).otherwise(pl.lit(other))).to_series()


def _domain(values: pl.Series) -> list[float]:
    low, high = float(values.min() or 0.0), float(values.max() or 0.0)  # type: ignore[arg-type]
    return [low, high] if high > low else [low - 0.5, high + 0.5]


def _width(values: pl.Series, most: int) -> float:
    """Return the width of at most ``most`` intervals; whole numbers for whole numbers."""
    low, high = _domain(values)
    width = (high - low) / most
    return max(1.0, float(-(-(high - low + 1) // most))) if values.dtype.is_integer() else width
