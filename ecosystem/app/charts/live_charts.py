"""Charts of the page: a constant specification with constant data, and columns that change from step to step."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from ecosystem.calendar import Calendar
from ecosystem.report import charts

Columns = dict[str, dict[str, list[Any]]]  # data set → column → values
_TIMES = ("step", charts.DATE)  # columns of an axis over steps
NOW = "now"  # the data set of the rule at the step on display
ORIGINS = 2  # bars per row of the ledger
BAR = 24  # height in pixels of a bar with its gap


@dataclass(frozen=True)
class FrameData:
    """The part of a chart that belongs to one step: title, subtitle, and columns to add to the constant rows."""

    title: str
    below: str
    columns: Columns = field(default_factory=dict)


@dataclass(frozen=True)
class LiveChart:
    """A chart: its specification without data, its constant data by name, and what changes with the step."""

    name: str
    spec: dict[str, Any]
    data: dict[str, list[dict[str, Any]]]
    at: Callable[[int], FrameData]
    steps_apart: bool = False  # whether the file name of a saved chart includes the step

    @cached_property
    def texts(self) -> tuple[str, str]:
        """Specification and data as JSON."""
        return json.dumps(self.spec), json.dumps(self.data)

    @classmethod
    def of(cls, name: str, chart: Any, last: int, calendar: Calendar | None = None) -> LiveChart:
        """Split a chart; one over steps gets a rule at the step on display unless that is the ``last``."""
        spec, data, title, below = split_chart(chart)
        across = next((x for x in charts.scaled(spec, "x") if x.get("field") in _TIMES), None)
        if across is None:
            return cls(name, spec, data, lambda step: FrameData(title, below))
        mark = {"type": "rule", "style": "soft", "strokeWidth": 1.5, "strokeOpacity": 0.8}
        rule = {"data": {"name": NOW}, "mark": mark, "encoding": {"x": across}}
        # Changes are listed above the panels, so their names are omitted here for lack of room.
        layers = [layer for layer in spec["layer"] if layer.get("data", {}).get("name") not in charts.NAMED_CHANGES]
        spec["layer"] = [rule, *layers]
        data = {name: rows for name, rows in data.items() if name not in charts.NAMED_CHANGES}

        def at(step: int) -> FrameData:
            shown = [step] if step < last else []
            if calendar is not None:
                return FrameData(
                    title, below, {NOW: {charts.DATE: [charts.milliseconds(calendar.date_of(t)) for t in shown]}}
                )
            return FrameData(title, below, {NOW: {"step": shown}})

        return cls(name, spec, {NOW: [], **data}, at)


def split_chart(chart: charts.Chart) -> tuple[dict[str, Any], dict[str, list[dict[str, Any]]], str, str]:
    """Return specification, data, title and subtitle.

    Charts of the same form have the same specification, so that the browser keeps its drawing.
    """
    spec = charts.specification(chart)
    title, data = spec.pop("title", {}), spec.pop("datasets", {})
    fluid = {"width": "container", "autosize": {"type": "fit-x", "contains": "padding"}}
    return {**spec, **fluid}, data, title.get("text", ""), title.get("subtitle", "")


def on_common_scales(live_charts: Sequence[LiveChart]) -> list[LiveChart]:
    """Give charts of the same kind, of several worlds, the same scales and colours."""
    specs = [copy.deepcopy(chart.spec) for chart in live_charts]
    for name in ("x", "y", "color", "size"):
        channels = [channel for spec in specs for channel in charts.scaled(spec, name)]
        domains = [channel["scale"]["domain"] for channel in channels]
        fields = {channel.get("field") for channel in channels}
        if not domains or fields >= set(_TIMES):  # a world with a calendar beside one without
            continue
        if isinstance(domains[0][0], str):
            domain = list(dict.fromkeys(value for one in domains for value in one))
        else:
            domain = [min(one[0] for one in domains), max(one[-1] for one in domains)]
        longest = max(channels, key=lambda channel: channel["scale"]["domain"][-1])
        for channel in channels:
            scale = channel["scale"] = {**channel["scale"], "domain": domain}
            if name == "x" and "values" in (longest.get("axis") or {}) and "axis" in channel:
                channel["axis"] = {**channel["axis"], "values": longest["axis"]["values"]}
            if name == "size":
                scale["range"] = [min(c["scale"]["range"][i] for c in channels) for i in range(2)]
    for spec in specs:
        fit_height(spec)
    return [
        replace(chart, spec=spec, data=_spread_names(spec, chart.data))
        for chart, spec in zip(live_charts, specs, strict=True)
    ]


def fit_height(spec: dict[str, Any]) -> None:
    """Set the height in pixels of a chart with categorical rows; without it the browser cannot stretch the width."""
    rows = next(
        (y["scale"]["domain"] for y in charts.scaled(spec, "y") if isinstance(y["scale"]["domain"][0], str)), None
    )
    if rows is not None:
        spec["height"] = BAR * ORIGINS * len(rows)


def _spread_names(spec: dict[str, Any], data: dict[str, list[dict[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
    """Spread the names beside a plot again after its scale has changed."""
    rows = [row for one in data.values() for row in one if row.keys() == {"place", "population"}]
    scale = next((y["scale"] for y in charts.scaled(spec, "y")), None)
    if not rows or scale is None:
        return data
    places = [row["place"] for row in rows]
    log = scale.get("type") == "log"
    moved = dict(zip(map(id, rows), charts.spread(places, scale["domain"], spec["height"], log), strict=True))
    return {name: [{**r, "place": moved[id(r)]} if id(r) in moved else r for r in one] for name, one in data.items()}
