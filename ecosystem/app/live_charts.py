"""Charts as the page shows them: a specification and data that stay, and what changes from step to step."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import polars as pl

from ecosystem.app.run_view import RunView
from ecosystem.errors import ScenarioError
from ecosystem.report import charts, run_charts, summaries
from ecosystem.report.charts import ChartLabels
from ecosystem.scenario.scenario import Scenario

Columns = dict[str, dict[str, list[Any]]]  # data set → column → values
NOW = "now"  # the data set of the rule at the step that is looked at
LEAST, MOST = (10.0, 30.0), (40.0, 420.0)  # areas in pixels of the smallest and the largest site, of many and of few
CROWDED = 400  # sites from which on the graph is painted rather than built of elements, without gaps around dots
ORIGINS = 2  # bars of a row of the ledger
ROOM = 1.4  # the axis of the ledger, as a multiple of its longest bar
BAR = 24  # pixels of a bar with its gap
UNTOLD = ("name", "description", "knobs", "seed")  # of a scenario: no differences between worlds
LONG = 60  # characters of a value that are told


@dataclass(frozen=True)
class FrameData:
    """What of a picture belongs to one step: title, the line below it, and columns set beside the rows that stay."""

    title: str
    below: str
    columns: Columns = field(default_factory=dict)


@dataclass(frozen=True)
class LiveChart:
    """A chart: its specification without data, the data that stay by name, and what changes with the step."""

    name: str
    spec: dict[str, Any]
    data: dict[str, list[dict[str, Any]]]
    at: Callable[[int], FrameData]
    steps_apart: bool = False  # whether each step is a picture of its own

    @cached_property
    def texts(self) -> tuple[str, str]:
        """Specification and data as JSON."""
        return json.dumps(self.spec), json.dumps(self.data)

    @classmethod
    def of(cls, name: str, chart: Any, last: int) -> LiveChart:
        """Take a chart apart; one over steps gets a rule at the step looked at, where that is not the ``last``."""
        spec, data, title, below = _apart(chart)
        across = next((x for x in charts.scaled(spec, "x") if x.get("field") == "step"), None)
        if across is None:
            return cls(name, spec, data, lambda step: FrameData(title, below))
        mark = {"type": "rule", "style": "soft", "strokeWidth": 1.5, "strokeOpacity": 0.8}
        rule = {"data": {"name": NOW}, "mark": mark, "encoding": {"x": across}}
        # What changed stands above the panels: beside its line there is no room for it here.
        layers = [layer for layer in spec["layer"] if layer.get("data", {}).get("name") not in charts.NAMED_CHANGES]
        spec["layer"] = [rule, *layers]
        data = {name: rows for name, rows in data.items() if name not in charts.NAMED_CHANGES}

        def at(step: int) -> FrameData:
            return FrameData(title, below, {NOW: {"step": [step] if step < last else []}})

        return cls(name, spec, {NOW: [], **data}, at)


def _apart(chart: Any) -> tuple[dict[str, Any], dict[str, list[dict[str, Any]]], str, str]:
    """Return specification, data, title and the line below it.

    Altair names data by a hash of what they are. Named by their place, two charts of the same form have the same
    specification, and the browser keeps its drawing.
    """
    spec = charts.specification(chart)
    title, data = spec.pop("title", {}), spec.pop("datasets", {})
    if not isinstance(chart, charts.ChartTemplate):
        text = json.dumps(spec)
        for number, old in enumerate(data):
            text = text.replace(f'"{old}"', f'"d{number}"')
        spec, data = json.loads(text), {f"d{number}": rows for number, rows in enumerate(data.values())}
    fluid = {"width": "container", "autosize": {"type": "fit-x", "contains": "padding"}}
    return {**spec, **fluid}, data, title.get("text", ""), title.get("subtitle", "")


def alike(pictures: Sequence[LiveChart]) -> list[LiveChart]:
    """Return pictures of the same kind, of several worlds, on the same scales and with the same colours."""
    specs = [copy.deepcopy(picture.spec) for picture in pictures]
    for name in ("x", "y", "color", "size"):
        channels = [channel for spec in specs for channel in charts.scaled(spec, name)]
        domains = [channel["scale"]["domain"] for channel in channels]
        if not domains:
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
        _fit(spec)
    found = []
    for picture, spec in zip(pictures, specs, strict=True):
        found.append(replace(picture, spec=spec, data=_named_apart(spec, picture.data)))
    return found


def _fit(spec: dict[str, Any]) -> None:
    """Give a chart with a row for each bar its height in pixels: a browser can stretch the width of no other."""
    rows = next(
        (y["scale"]["domain"] for y in charts.scaled(spec, "y") if isinstance(y["scale"]["domain"][0], str)), None
    )
    if rows is not None:
        spec["height"] = BAR * ORIGINS * len(rows)


def _named_apart(spec: dict[str, Any], data: dict[str, list[dict[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
    """Move the names beside a plot apart again, after its scale has become another."""
    rows = [row for one in data.values() for row in one if row.keys() == {"place", "population"}]
    scale = next((y["scale"] for y in charts.scaled(spec, "y")), None)
    if not rows or scale is None:
        return data
    places = [row["place"] for row in rows]
    log = scale.get("type") == "log"
    moved = dict(zip(map(id, rows), charts.spread(places, scale["domain"], spec["height"], log), strict=True))
    return {name: [{**r, "place": moved[id(r)]} if id(r) in moved else r for r in one] for name, one in data.items()}


def web(view: RunView) -> LiveChart:
    """Draw the site graph: area is documents, colour their synthetic share, an outline a curated site."""
    nodes = view.sites(view.last).drop("site").rename({"name": "site"})
    outlined = int(nodes["curated"].sum())
    chart = charts.site_graph(
        nodes if outlined else nodes.drop("curated"), view.links, ChartLabels("", "", "", ".0%"), 1
    )
    spec, data, _, _ = _apart(chart)
    largest = min(MOST[1], max(MOST[0], 60_000 / nodes.height))
    for size in charts.scaled(spec, "size"):
        size["scale"]["range"] = [min(LEAST[1], max(LEAST[0], largest / 10)), largest]
    for layer in spec["layer"]:
        if layer["mark"].get("style") == "halo" and nodes.height > CROWDED:
            layer["mark"]["strokeWidth"] = 0  # it would leave little of a small dot
    mine = next(name for name, rows in data.items() if rows and "documents" in rows[0])
    shown = [
        f"{nodes.height:,} sites, {len(view.links):,} links drawn" if len(view.links) else f"{nodes.height:,} sites"
    ]
    shown += ["area: documents"] + (["outlined: looked after by a curator"] if outlined else [])
    below = "; ".join(shown)

    def at(step: int) -> FrameData:
        now = view.sites(step)
        columns = {"documents": now["documents"].to_list(), "value": now["value"].round(4).to_list()}
        return FrameData(f"The web at step {step}", below, {mine: columns})

    data[mine] = [{k: v for k, v in row.items() if k not in ("documents", "value")} for row in data[mine]]
    return _scaled(LiveChart("web", spec, data, at, steps_apart=True), view.scale)


def _scaled(picture: LiveChart, most: float) -> LiveChart:
    """Return a site graph on which the largest dot has ``most`` documents."""
    spec = copy.deepcopy(picture.spec)
    for size in charts.scaled(spec, "size"):
        size["scale"]["domain"] = [0, most]
    return replace(picture, spec=spec)


def contamination(view: RunView, metric: str) -> Any:
    """Draw a key of ``run_charts.CONTAMINATION``."""
    return run_charts.contamination(view.report_data, metric)


def qualities(view: RunView) -> dict[str, str]:
    """Return the measures of quality that this run has, by name, with what each is called."""
    there = set(view.metrics.filter(pl.col("scope") == "trainer")["metric"].unique())
    if view.scenario.modality == "text":
        found = {metric: label for metric, (label, *_) in run_charts.QUALITY.items() if metric in there}
        return found | ({"change": "Change since the start"} if "cross_entropy" in there else {})
    return {metric: run_charts.called(metric) for metric in run_charts.parameters(view.report_data) if metric in there}


def quality(view: RunView, metric: str) -> Any:
    """Draw a key of :func:`qualities`."""
    if view.scenario.modality != "text":
        return run_charts.parameter(view.report_data, metric)
    return (
        run_charts.quality_change(view.report_data)
        if metric == "change"
        else run_charts.quality(view.report_data, metric)
    )


def diversities(view: RunView) -> dict[str, str]:
    """Return the measures of diversity and of tails that this run has, by name, with what each is called."""
    there = set(view.metrics.filter(pl.col("scope") == "trainer")["metric"].unique())
    if view.scenario.modality != "text":
        return qualities(view)
    named = run_charts.TEXT | run_charts.LATE | {metric: labels.title for metric, labels in run_charts.OTHERS.items()}
    found = {metric: label for metric, label in named.items() if metric in there}
    kept = "vocabulary_kept_1" in there
    return found | ({"vocabulary": "Human vocabulary kept, by frequency"} if kept else {})


def diversity(view: RunView, metric: str) -> Any:
    """Draw a key of :func:`diversities`."""
    if view.scenario.modality != "text":
        return run_charts.parameter(view.report_data, metric)
    if metric == "vocabulary":
        return run_charts.vocabulary(view.report_data)
    return (
        run_charts.diversity(view.report_data, metric)
        if metric in run_charts.TEXT
        else run_charts.tails(view.report_data).get(metric)
    )


def ledger(view: RunView) -> LiveChart | None:
    """Draw what each policy refused at a step, and what curators suspected, by true origin; None where nobody did.

    All steps have the same rows and the same scale.
    """
    refused = summaries.refusals(view.metrics, "step").with_columns(row=pl.format("{} · {}", "who", "what"))
    caught = summaries.detections(view.metrics, "step").with_columns(row=pl.format("{} (curators)", "who"))
    rows = pl.concat([refused, caught]).sort("step", maintain_order=True)
    if rows.is_empty():
        return None
    labels = ChartLabels("", "", "share refused or suspected")
    spec, data, _, _ = _apart(charts.rates(rows.drop("who", "what"), labels))
    order = rows["row"].unique(maintain_order=True).to_list()
    spec["autosize"]["resize"] = True  # the numbers beside the bars move with them
    for x in charts.scaled(spec, "x"):
        top = x["scale"]["domain"][1]
        every = next((t for t in (0.01, 0.02, 0.05, 0.1, 0.2) if top <= 5 * t), 0.25)
        x["scale"]["domain"] = [0, ROOM * top]  # for the number beside the longest bar
        x["axis"] = {**x["axis"], "values": [n * every for n in range(int(top / every + 1e-9) + 1)]}
    for layer in spec["layer"]:
        layer["encoding"]["y"]["scale"] = {"domain": order}
    _fit(spec)
    (mine,) = data
    steps: dict[int, list[dict[str, Any]]] = {}
    for row in data[mine]:
        steps.setdefault(row["step"], []).append(row)
    names = list(data[mine][0])
    explained = (
        "share of the documents that reached a policy or curator; grey: human, violet: synthetic; ± one standard error"
    )

    def at(step: int) -> FrameData:
        now = steps.get(step, [])
        return FrameData(
            f"Who refused what at step {step}, by true origin",
            explained if now else "nobody refused or suspected anything at this step",
            {mine: {name: [row[name] for row in now] for name in names}},
        )

    return LiveChart("ledger", spec, {mine: []}, at, steps_apart=True)


def differences(one: Scenario, other: Scenario) -> list[tuple[str, str, str]]:
    """Return the dotted paths at which two scenarios differ, with what stands there in each (– where nothing does).

    Of timed changes a path says from which step on, and what the other has at that step.
    """
    a, b = ({k: v for k, v in scenario.plain().items() if k not in UNTOLD} for scenario in (one, other))
    for plain, scenario in ((a, one), (b, other)):
        plain.pop("changes", None)
        for at, path in sorted({(c.at, path) for s in (one, other) for c in s.changes for path in c.set}):
            try:
                plain[f"{path} from step {at} on"] = scenario.at(at).value(path)
            except ScenarioError:
                continue  # the other has nothing of that name
    return [(path, _told(here), _told(there)) for path, here, there in _apart_at(a, b, "")]


def _apart_at(a: Any, b: Any, path: str) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(a, dict) and isinstance(b, dict):
        for key in dict.fromkeys([*a, *b]):
            yield from _apart_at(a.get(key), b.get(key), f"{path}.{key}" if path else str(key))
    elif a != b:
        yield path, a, b


def _told(value: Any) -> str:
    text = "–" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= LONG else text[: LONG - 1] + "…"


class ChartSet:
    """Pictures of the worlds of a page, drawn anew when one of them has a step more or another scenario."""

    def __init__(self, views: Sequence[RunView]) -> None:
        self.views = list(views)
        self._known: dict[tuple[Any, ...], list[LiveChart | None]] = {}
        self._graphs: dict[int, LiveChart] = {}
        self._at: list[tuple[int, int]] = []

    def pictures(self, draw: Callable[..., Any], *arguments: Any) -> list[LiveChart | None]:
        """Return ``draw(film, *arguments)`` of every film, on common scales; None where there is nothing to draw."""
        at = [(view.last, id(view.scenario)) for view in self.views]
        if at != self._at:
            self._known.clear()
            self._at = at
        key = draw.__name__, *arguments
        if key not in self._known:
            found = [self._one(number, draw, *arguments) for number in range(len(self.views))]
            there = [picture for picture in found if picture is not None]
            common = iter(alike(there) if len(there) > 1 else there)
            self._known[key] = [None if picture is None else next(common) for picture in found]
        return self._known[key]

    def _one(self, number: int, draw: Callable[..., Any], *arguments: Any) -> LiveChart | None:
        view = self.views[number]
        name = "-".join([view.called, draw.__name__, *map(str, arguments)])
        if draw is web:  # sites and links stay where they are; only the scale may change
            if number not in self._graphs:
                self._graphs[number] = replace(web(view), name=name)
            return _scaled(self._graphs[number], view.scale)
        drawn = draw(view, *arguments)
        if drawn is None:
            return None
        return replace(drawn, name=name) if isinstance(drawn, LiveChart) else LiveChart.of(name, drawn, view.last)
