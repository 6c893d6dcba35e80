"""Charts as text: the data of a chart as CSV, and a description of what it shows with its main figures.

Both are made from the specification alone, so every chart has them, also one that was read from a page.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from io import StringIO
from typing import Any

from ecosystem.report.charts.axes import DATE

Row = Mapping[str, Any]
LISTED = 8  # series, bars or cells that a description lists, at most
_UNSAID = ("single", "deciles", "links")  # tables that a description leaves out
_NAMED = {  # tables whose sentence begins with something else than their names
    "levels": "references: ",
    "laws": "closed forms: ",
    **dict.fromkeys(
        ("arms", "bars", "cells", "changes", "densities", "effects", "human", "indices", "kept", "limit"), ""
    ),
    **dict.fromkeys(("marks", "means", "median", "others", "populations", "sites", "targets", "web"), ""),
}
_KINDS = {
    "line": "Line chart",
    "bar": "Bar chart",
    "rect": "Heat map",
    "circle": "Scatter plot",
    "point": "Scatter plot",
}
_MARKS = ("line", "bar", "rect", "area", "circle", "point", "rule")  # the first of a table's marks says what it shows


def csv_of(spec: Mapping[str, Any]) -> str:
    """Return the data of a chart as CSV: a row for each row of its tables, and the table's name in the column part.

    Columns that a table does not have are empty. Dates are written as such. ``page.js`` makes the same file.
    """
    parts = [(name, row) for name, rows in spec["datasets"].items() if name[:1] != "_" for row in rows]
    columns = dict.fromkeys(column for _, row in parts for column in row if column[:1] != "_")
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["part", *columns])
    for name, row in parts:
        writer.writerow([name, *(_plain(column, row.get(column)) for column in columns)])
    return text.getvalue()


def _plain(column: str, value: Any) -> Any:
    if isinstance(value, bool):
        return str(value).lower()
    return _day(value) if column == DATE and value is not None else value


def _day(milliseconds: float) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).date().isoformat()


def describe(spec: Mapping[str, Any]) -> str:
    """Return what a chart shows in sentences: kind, title, axes, and the first and last value of each series."""
    layers = list(_layers(spec))
    kind = next((_KINDS[mark] for mark in _KINDS if any(layer.mark == mark for layer in layers)), "Chart")
    if any(layer.encoding.get("x", {}).get("axis", True) is None for layer in layers):
        kind = "Map"
    elif kind == "Scatter plot" and any(layer.mark == "rule" and "x2" in layer.encoding for layer in layers):
        kind = "Intervals"
    title = spec.get("title", {})
    sentences = [f"{kind}: {title.get('text', '')}", title.get("subtitle", ""), _axes(layers)]
    for name, rows in spec["datasets"].items():
        own = [layer for layer in layers if layer.table == name and not layer.is_band]
        if own and rows and name[:1] != "_" and name not in _UNSAID:
            layer = min(own, key=lambda layer: ("color" not in layer.encoding, _MARKS.index(layer.mark)))
            said = _NAMED.get(name, f"{name}: ") + layer.sentence(rows)
            sentences.append(said[:1].upper() + said[1:] if name in ("levels", "laws") else said)
    return " ".join(sentence if sentence[-1] in ".!?" else f"{sentence}." for sentence in sentences if sentence)


def _layers(spec: Mapping[str, Any]) -> Iterator[_Layer]:
    for layer in spec.get("layer", [spec]):
        mark = layer["mark"] if isinstance(layer["mark"], str) else layer["mark"]["type"]
        table = layer.get("data", spec.get("data", {})).get("name", "")
        if mark in _MARKS:
            yield _Layer(table, mark, layer.get("encoding", {}))


def _axes(layers: Iterable[_Layer]) -> str:
    """Name the axes by their titles."""
    parts = []
    for name, channel in (("horizontal", "x"), ("vertical", "y")):
        encodings = [layer.encoding[channel] for layer in layers if "field" in layer.encoding.get(channel, {})]
        title = next((one["title"] for one in encodings if one.get("title")), "")
        if title:
            parts.append(f"{name} axis: {title}")
    return "; ".join(parts).capitalize()


@dataclass(frozen=True)
class _Layer:
    """A layer of a chart: the name of its table, its mark, and its encoding by channel."""

    table: str
    mark: str
    encoding: Mapping[str, Mapping[str, Any]]

    @property
    def is_band(self) -> bool:
        """Whether this is a band around a line, which says less than the line."""
        return self.mark == "area" and "y2" in self.encoding

    def sentence(self, rows: Sequence[Row]) -> str:
        """State the main figures of the table of this layer."""
        x, y = self.encoding.get("x", {}), self.encoding.get("y", {})
        if "field" not in x or "field" not in y:
            return self._lines(rows, x or y)
        if x.get("axis", True) is None:
            return self._dots(rows)
        if self.mark == "rect":
            return self._cells(rows)
        categories = [channel for channel in (x, y) if channel["type"] in ("nominal", "ordinal")]
        if categories and self.mark != "line":
            return self._bars(rows, categories[0]["field"])
        if self.mark in ("circle", "point") and (len(rows) > LISTED or self._group(rows[0]) == self.table):
            return f"{len(rows)} points: {self._range(rows, x)}, {self._range(rows, y)}."
        return self._courses(rows)

    def _value(self, channel: Mapping[str, Any], value: Any) -> str:
        if value is None:
            return "unknown"
        if channel.get("type") == "temporal":
            return _day(value)
        if not isinstance(value, int | float):
            return str(value)
        if any("%" in (channel.get(guide) or {}).get("format", "") for guide in ("axis", "legend")):
            return f"{100 * value:.3g} %"
        return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"

    def _place(self, row: Row) -> str:
        x = self.encoding["x"]
        if x["type"] == "temporal":
            return f"at {self._value(x, row[x['field']])}"
        return f"at {x['field']} {self._value(x, row[x['field']])}"

    def _group(self, row: Row) -> str:
        """Name the series of a row by the fields that distinguish series."""
        channels = [self.encoding.get(name, {}) for name in ("color", "strokeDash", "detail", "yOffset")]
        flat = [one for channel in channels for one in (channel if isinstance(channel, list) else [channel])]
        fields = [one["field"] for one in flat if one.get("type") != "quantitative" and "field" in one]
        names = [str(row[field]) for field in dict.fromkeys(fields) if row.get(field) is not None]
        return ", ".join(names) or str(row.get("label", self.table))

    def _courses(self, rows: Sequence[Row]) -> str:
        """State the first and last value of each series, and of a density its peak."""
        x, y = self.encoding["x"], self.encoding["y"]
        groups: dict[str, list[Row]] = {}
        for row in rows:
            if row.get(y["field"]) is not None:
                groups.setdefault(self._group(row), []).append(row)
        parts = []
        for name, own in groups.items():
            own.sort(key=lambda row: row[x["field"]])
            picked = [own[0], own[-1]] if len(own) > 1 else own
            if y["field"] == "density":
                picked = [max(own, key=lambda row: row["density"])]
            ends = [f"{self._value(y, row[y['field']])} {self._place(row)}" for row in picked]
            parts.append(f"{name}: " + (" to ".join(ends) if y["field"] != "density" else f"peak {ends[0]}"))
        return _listed(parts)

    def _bars(self, rows: Sequence[Row], category: str) -> str:
        """State the value of each bar or interval."""
        number = next(c for c in (self.encoding["x"], self.encoding["y"]) if c["field"] != category)
        if "x2" in self.encoding and {"value"} <= rows[0].keys():  # a part of a stacked bar
            number = {**number, "field": "value"}
        parts = []
        for row in rows:
            group = self._group(row)
            name = str(row[category]) + (f", {group}" if group not in (str(row[category]), self.table) else "")
            ends = [self._value(number, row[end]) for end in ("low", "high") if row.get(end) is not None]
            parts.append(
                f"{name}: {self._value(number, row[number['field']])}"
                + (f" ({' to '.join(ends)})" if len(ends) == 2 else "")
            )
        return _listed(parts)

    def _cells(self, rows: Sequence[Row]) -> str:
        """State the cells, or of many the extremes."""
        if "field" not in self.encoding.get("color", {}):
            return self._lines(rows, self.encoding["x"])
        x, y, colour = (self.encoding[name]["field"] for name in ("x", "y", "color"))
        known = [row for row in rows if row.get(colour) is not None]
        if len(known) > LISTED:
            known = [pick(known, key=lambda row: row[colour]) for pick in (min, max)]
        cells = [f"{row[y]}, {row[x]}: {self._value({}, row[colour])}" for row in known]
        return (f"{len(rows)} cells, from " + " to ".join(cells) if len(rows) > LISTED else "; ".join(cells)) + "."

    def _dots(self, rows: Sequence[Row]) -> str:
        """Count the dots or links of a map, with the range of the colour of dots."""
        colour = self.encoding.get("color", {})
        if "field" not in colour:
            return f"{len(rows)} {self.table}."
        return f"{len(rows)} {self.table}, {self._range(rows, colour)}."

    def _range(self, rows: Sequence[Row], channel: Mapping[str, Any]) -> str:
        values = [row[channel["field"]] for row in rows if row.get(channel["field"]) is not None]
        title = channel.get("title") or channel["field"]
        if not values:
            return f"{title} unknown"
        return f"{title} {self._value(channel, min(values))} to {self._value(channel, max(values))}"

    def _lines(self, rows: Sequence[Row], channel: Mapping[str, Any]) -> str:
        """State the values of straight lines, such as references, limits and timed changes."""
        names = [next((str(row[key]) for key in ("label", "change") if key in row), "") for row in rows]
        values = [self._value(channel, row[channel["field"]]) for row in rows]
        if self.table == "changes":
            return _listed(
                [f"{name} from {channel['field']} {value}" for name, value in zip(names, values, strict=True)]
            )
        return _listed([f"{name}: {value}" if name else value for name, value in zip(names, values, strict=True)])


def _listed(parts: Sequence[str]) -> str:
    more = f"; and {len(parts) - LISTED} more" if len(parts) > LISTED else ""
    return "; ".join(parts[:LISTED]) + more + "."
