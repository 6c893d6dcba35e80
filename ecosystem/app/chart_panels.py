"""The charts of a world in their panels. A panel that can have nothing to show in this world is left out."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import solara

from ecosystem.app import LIBRARY
from ecosystem.app.charts import world_charts
from ecosystem.app.charts.animation import Animation
from ecosystem.app.charts.live_charts import LiveChart
from ecosystem.app.charts.world_charts import ChartSet
from ecosystem.app.elements import framed, text_element
from ecosystem.app.worlds.run_view import RunView
from ecosystem.errors import nearest
from ecosystem.metrics.catalogue import definitions
from ecosystem.policies.base import Adder
from ecosystem.report import charts
from ecosystem.scenario.scenario import Scenario

LOOKS = json.dumps({"light": charts.configuration(charts.LIGHT), "dark": charts.configuration(charts.DARK)})
PLACES = ("First", "Second")
DIFFERENT = 10  # differences between two scenarios, at most


@solara.component_vue("vega.vue")
def _Vega(
    spec: str,
    rows: str,
    columns: str,
    looks: str,
    source: str,
    title: str,
    below: str,
    name: str,
    stamp: str,
    canvas: bool = False,
) -> None: ...


@solara.component
def Panel(name: str, title: str, below: str = "", children: Sequence[Any] = ()) -> None:
    """Show a framed panel; title and subtitle are always shown as text."""
    with framed(name) if name else solara.Div():  # a chart may be inside another panel
        text_element("h3", title)
        if below:
            text_element("p", below)
        solara.Div(children=list(children))


@solara.component
def Chart(
    chart: LiveChart | None,
    step: int,
    stamp: str,
    *,
    panel: str = "",
    called: str,
    missing: str,
    canvas: bool = False,
    children: Sequence[Any] = (),
) -> None:
    """Show a chart at a step with ``children`` below it, in a frame of the name ``panel``.

    Without a chart, show the sentence ``missing``.
    """
    if chart is None:
        Panel(panel, called, missing)
        return
    frame = chart.at(step)
    drawing = _Vega(
        spec=chart.texts[0],
        rows=chart.texts[1],
        columns=json.dumps(frame.columns),
        looks=LOOKS,
        source=LIBRARY,
        title=frame.title,
        below=frame.below,
        name=f"{chart.name}-step-{step}" if chart.steps_apart else chart.name,
        stamp=stamp,
        canvas=canvas,
    )
    Panel(panel, frame.title, frame.below, [drawing, *children])


@solara.component
def WorldCharts(chart_set: ChartSet, number: int, step: int, news: str, metrics: Mapping[str, str]) -> None:
    """Show the charts of one world at a step; a change of ``news`` redraws them."""
    view = chart_set.views[number]
    ended = all(view.last >= view.scenario.steps for view in chart_set.views)
    with solara.Div(classes=["eco-grid"]):
        for name, draw, arguments in panels_of(chart_set.views, metrics):
            drawn = chart_set.charts(draw, *arguments) if "" not in arguments else [None] * len(chart_set.views)
            if ended and not any(drawn):
                continue  # it was not measured, and never will be
            graph = draw is world_charts.web
            Chart(
                drawn[number],
                step,
                f"{step}/{view.last}",
                panel=name,
                called=arguments[0] if name == "instruments" else name.capitalize(),
                missing="This was not measured." if ended else "Shown from the first step that measures it.",
                canvas=graph and view.places.height > world_charts.CROWDED,
                children=[Animation(view, drawn[number], view.last)] if graph and view.last > 0 else [],
            ).key(f"{name} {arguments[0] if name == 'instruments' else ''}")


def panels_of(
    views: Sequence[RunView], metrics: Mapping[str, str]
) -> list[tuple[str, Callable[..., Any], tuple[str, ...]]]:
    """Return the panels of worlds side by side, without those that have nothing to show in any of them.

    Each is its name in an address, and a function of ``world_charts`` with its arguments.
    """
    scenarios = [view.scenario for view in views]
    drawn: list[tuple[str, Callable[..., Any], tuple[str, ...]]] = []
    if any(view.places.height > 1 for view in views):
        drawn.append(("web", world_charts.web, ()))
    trained = any(scenario.trainers for scenario in scenarios)
    by_metric = [world_charts.contamination, *([world_charts.quality, world_charts.diversity] if trained else [])]
    drawn += [(d.__name__, d, (metrics[d.__name__],)) for d in by_metric if d.__name__ in metrics]
    if any(map(_judges, scenarios)):
        drawn.append(("ledger", world_charts.ledger, ()))
    names = dict.fromkeys(name for scenario in scenarios for name in scenario.instruments)
    common = [name for name in names if all(name in scenario.instruments for scenario in scenarios)]
    drawn += [("instruments", world_charts.instrument, (name,)) for name in common]
    if all(map(world_charts.has_readers, views)):
        drawn.append(("reach", world_charts.reach, ()))
    return drawn


def _judges(scenario: Scenario) -> bool:
    """Return whether a policy or a curator may refuse documents at some step."""
    changed = {path.split(".")[0] for change in scenario.changes for path in change.set}
    gates = [scenario.web.publish, *(trainer.select for trainer in scenario.trainers.values())]
    judges = any(not isinstance(scenario.policies[name], Adder) for gate in gates for name in gate)
    return judges or bool(scenario.curators or changed & {"policies", "trainers", "web"})


def choices_of(views: Sequence[RunView]) -> dict[str, dict[str, str]]:
    """Return the measures that each panel offers (metric → name); worlds of different modalities share one panel."""
    choices = {"contamination": _together(world_charts.contaminations, views)}
    if len({view.scenario.modality for view in views}) < 2:
        choices["quality"] = _together(world_charts.qualities, views)
        choices["diversity"] = _together(world_charts.diversities, views)
    return choices


def chosen_metrics(choices: Mapping[str, Mapping[str, str]], chosen: Mapping[str, str]) -> dict[str, str]:
    """Return the metric of each panel: the chosen one if available, else the first."""
    metrics = {
        key: chosen[key] if chosen.get(key) in options else next(iter(options), "") for key, options in choices.items()
    }
    if metrics.get("diversity") and metrics["diversity"] == metrics["quality"]:
        # Without text, both panels offer the same measures.
        others = [key for key in choices["diversity"] if key != metrics["quality"]]
        if not others:
            del metrics["diversity"]  # the other panel shows it already
        else:
            metrics["diversity"] = others[0]
    return metrics


def wrong_measures(
    choices: Mapping[str, Mapping[str, str]], chosen: Mapping[str, str], *, growing: bool
) -> Iterator[str]:
    """Yield a sentence for each chosen metric that its panel does not offer.

    ``growing``: whether the worlds may still measure a metric that is defined.
    """
    derived = ("change", world_charts.REFERENCES, "vocabulary")
    for key, metric in chosen.items():
        options = choices.get(key, {})
        if metric in options or (growing and (metric in definitions() or metric in derived)):
            continue
        offered = f"choose from {', '.join(options)}" if options else "there is none yet"
        yield f'The address names {key} "{metric}", which is not shown here{nearest(metric, options)}; {offered}.'


def news(views: Sequence[RunView]) -> str:
    """Return a string that changes whenever a world has a new step or another scenario."""
    return " ".join(f"{view.last}:{id(view.scenario)}" for view in views)


def _together(of: Callable[[RunView], dict[str, str]], views: Sequence[RunView]) -> dict[str, str]:
    """Return the entries common to all views, in the order of the first."""
    names = [of(view) for view in views]
    return {key: name for key, name in names[0].items() if all(key in other for other in names)} if names else {}
