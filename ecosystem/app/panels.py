"""The panels of the page, each a Solara component of a session or of a view and a step."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import solara

from ecosystem.app import LIBRARY
from ecosystem.app.charts import world_charts
from ecosystem.app.charts.animation import Animation
from ecosystem.app.charts.live_charts import LiveChart
from ecosystem.app.charts.world_charts import ChartSet
from ecosystem.app.differences import differences
from ecosystem.app.documents import Reading
from ecosystem.app.elements import table_row, text_element
from ecosystem.app.events import CHANGES, PROGRESS, listen, tell
from ecosystem.app.toolbar import Toolbar
from ecosystem.app.worlds.live_run import LiveRun
from ecosystem.app.worlds.run_view import RunView
from ecosystem.app.worlds.session_model import SessionModel
from ecosystem.report import charts

STYLE = Path(__file__).with_name("page.css")
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
def Panel(title: str, below: str = "", children: Sequence[Any] = (), classes: Sequence[str] = ()) -> None:
    """Show a framed panel; title and subtitle are always shown as text."""
    with solara.Div(classes=["eco-panel", *classes]):
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
    called: str,
    missing: str,
    canvas: bool = False,
    children: Sequence[Any] = (),
) -> None:
    """Show a chart at a step with ``children`` below it; without a chart, the sentence ``missing``."""
    if chart is None:
        Panel(called, missing)
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
    Panel(frame.title, frame.below, [drawing, *children])


@solara.component
def Worlds(session: SessionModel) -> None:
    """Show the worlds of the session side by side, at the same step and with the same measures."""
    listen(bool(session.live_runs))
    chosen, choose = solara.use_state({"diversity": "distinct_2"})
    error, _ = solara.use_exception()
    views = [view for view in session.views if view is not None]
    chart_set = solara.use_memo(lambda: ChartSet(views), [tuple(map(id, views))])
    if error is not None:
        solara.Error(
            f"The page could not be drawn ({type(error).__name__}: {error}). Committed steps are not affected."
        )
        return
    choices = _choices(views)
    metrics = _chosen_metrics(choices, chosen)
    if len({view.scenario.modality for view in views}) > 1:
        sorts = " and ".join(f"{view.scenario.name} has {view.scenario.modality} documents" for view in views)
        solara.Warning(
            f"{sorts}: the measures of their models cannot be compared, but the content of the web and refusals can."
        )
    with solara.Div(classes=["eco-bar"]):
        _step_slider(session)
        for key, options in choices.items():
            if len(options) > 1:
                _selector(key, options, metrics[key], lambda key, metric: choose({**chosen, key: metric}))
    if len(views) > 1:
        Differences(views, tuple(id(view.scenario) for view in views), bool(session.live_runs))
    with solara.Div(classes=["eco-worlds", *(["eco-two"] if len(session.views) > 1 else [])]):
        for number in range(len(session.views)):
            _world(session, number, chart_set, metrics)


def _world(session: SessionModel, number: int, chart_set: ChartSet, metrics: Mapping[str, str]) -> None:
    """Show one world of a session: its toolbar, its panels and its documents."""
    view, views = session.views[number], chart_set.views
    with solara.Div(classes=["eco-world"]):
        _top(session, number, len(views) > 1)
        if view is not None:
            with solara.Div(classes=["eco-below"]):
                step = min(session.step_shown, view.last)
                WorldCharts(chart_set, views.index(view), step, _news(views), metrics)
                Reading(view, step, view.last)


def _choices(views: Sequence[RunView]) -> dict[str, dict[str, str]]:
    """Return the measures that each panel offers (metric → name); worlds of different modalities share one panel."""
    choices = {"contamination": _together(world_charts.contaminations, views)}
    if len({view.scenario.modality for view in views}) < 2:
        choices["quality"] = _together(world_charts.qualities, views)
        choices["diversity"] = _together(world_charts.diversities, views)
    return choices


def _chosen_metrics(choices: Mapping[str, Mapping[str, str]], chosen: Mapping[str, str]) -> dict[str, str]:
    """Return the metric of each panel: the chosen one if available, else the first."""
    metrics = {
        key: chosen[key] if chosen.get(key) in options else next(iter(options), "") for key, options in choices.items()
    }
    if "diversity" in metrics and metrics["diversity"] == metrics["quality"]:
        # Without text, both panels offer the same measures.
        others = [key for key in choices["diversity"] if key != metrics["quality"]]
        metrics["diversity"] = next(iter(others), metrics["diversity"])
    return metrics


def _step_slider(session: SessionModel) -> None:
    """Show a slider of the step on display, once there are two steps."""
    if session.last <= 0:
        return

    def show(step: int) -> None:
        session.look(step)
        tell()

    title = f"Step {session.step_shown} of {session.last}"
    calendars = {view.scenario.calendar for view in session.views if view is not None}
    if len(calendars) == 1 and (calendar := calendars.pop()) is not None:
        title += f": {calendar.shown(session.step_shown)}"
    solara.SliderInt(title, session.step_shown, on_value=show, max=session.last)


def _selector(key: str, options: Mapping[str, str], metric: str, choose: Callable[[str, str], None]) -> None:
    """Let people choose the metric of a panel by its name."""
    names = {name: metric for metric, name in options.items()}
    solara.Select(key, list(names), value=options[metric], on_value=lambda name: choose(key, names[name]), dense=True)


def _top(session: SessionModel, number: int, several: bool) -> None:
    """Show the name, step, progress and toolbar of a world above its panels."""
    view = session.views[number]
    live_run = session.live_run(number)
    with solara.Div(classes=["eco-top"]):
        if view is not None and (several or (live_run is None and view.last < view.scenario.steps)):
            branch = live_run.branch.step if live_run is not None and live_run.branch else None
            place = f"{PLACES[number]}: " if several else ""
            Heading(view, place, min(session.step_shown, view.last), session.step_shown, branch)
        if live_run is not None:
            StepProgress(live_run)
        Toolbar(session, number, -1 if view is None else min(session.step_shown, view.last))


def _news(views: Sequence[RunView]) -> str:
    """Return a string that changes whenever a world has a new step or another scenario."""
    return " ".join(f"{view.last}:{id(view.scenario)}" for view in views)


def _together(of: Callable[[RunView], dict[str, str]], views: Sequence[RunView]) -> dict[str, str]:
    """Return the entries common to all views, in the order of the first."""
    names = [of(view) for view in views]
    return {key: name for key, name in names[0].items() if all(key in other for other in names)} if names else {}


@solara.component
def WorldCharts(chart_set: ChartSet, number: int, step: int, news: str, metrics: Mapping[str, str]) -> None:
    """Show the charts of one world at a step; a change of ``news`` redraws them."""
    view = chart_set.views[number]
    by_metric = [world_charts.contamination, world_charts.quality, world_charts.diversity]
    drawn: list[tuple[Callable[..., Any], tuple[str, ...]]] = [
        (world_charts.web, ()),
        *((draw, (metrics[draw.__name__],)) for draw in by_metric if draw.__name__ in metrics),
        (world_charts.ledger, ()),
    ]
    ended = view.last >= view.scenario.steps
    missing = "This was not measured." if ended else "Shown from the first step that measures it."
    with solara.Div(classes=["eco-grid"]):
        for draw, arguments in drawn:
            chart = chart_set.charts(draw, *arguments)[number] if "" not in arguments else None
            graph = draw is world_charts.web
            canvas = graph and view.places.height > world_charts.CROWDED
            below = [Animation(view, chart, view.last)] if graph and view.last > 0 else []
            title = draw.__name__.capitalize()
            Chart(chart, step, f"{step}/{view.last}", called=title, missing=missing, canvas=canvas, children=below)


@solara.component
def Heading(view: RunView, place: str, step: int, asked: int, branch: int | None) -> None:
    """Show the name of a world and its step."""
    text_element("h2", f"{place}{view.scenario.name}, seed {view.run.seed}", "eco-name")
    calendar, name = view.scenario.calendar, view.scenario.step_name
    date = "" if calendar is None else f" ({calendar.shown(view.last)})"
    progress = f"at step {view.last} of {view.scenario.steps}{date}" + (
        "" if branch is None else f", forked after {name(branch)}"
    )
    if step < asked:
        progress += f"; shown after {name(step)}, its last"
    text_element("p", progress, "eco-progress")


@solara.component
def Differences(views: Sequence[RunView], scenarios: tuple[int, ...], live: bool) -> None:
    """List the differences between the scenarios of two worlds."""
    rows = differences(*(view.scenario for view in views[:2]))
    if not rows:
        same = "the same seed" if views[0].run.seed == views[1].run.seed else "another seed"
        sentence = f"Both worlds have the same scenario and {same}."
        if live:
            sentence += " Turning a knob changes only the steered world."
        solara.Text(sentence, style="padding: 0 12px")
        return
    names = [f"{p}: {view.scenario.name}, seed {view.run.seed}" for p, view in zip(PLACES, views, strict=False)]
    with solara.v.Html(tag="table", class_="eco-differs", style_="margin-left: 12px"):
        table_row("th", ("Difference", *names))
        for row in rows[:DIFFERENT]:
            table_row("td", row)
    if len(rows) > DIFFERENT:
        solara.Text(f"and {len(rows) - DIFFERENT} more", style="padding: 0 12px")


@solara.component
def StepProgress(live_run: LiveRun) -> None:
    """Show the progress of a live world, with a button to pause inside a step.

    Only this component listens to progress inside a step, so that the rest of the page is not redrawn for it.
    """
    CHANGES.listen()
    PROGRESS.listen()
    state, progress, t, steps = live_run.state, live_run.progress, live_run.t, live_run.scenario.steps
    with solara.Div(classes=["eco-going"]):
        if state == "failed":
            solara.Error(live_run.error or "the world failed")
            return
        calendar = live_run.scenario.calendar
        date, upcoming = ("" if calendar is None else f" ({calendar.shown(max(0, n))})" for n in (t, t + 1))
        words = {
            "opening": "Opening the web",
            "ready": f"At step {t} of {steps}{date}, seed {live_run.scenario.seed}",
            "stepping": f"Step {t + 1} of {steps}{upcoming}",
            "paused": f"Paused inside step {t + 1} of {steps}{upcoming}",
            "finished": f"All {t} steps are done, seed {live_run.scenario.seed}",
        }.get(state, state)
        if waiting := live_run.waiting:
            words += f", then {waiting} more step" + ("s" if waiting > 1 else "")
        if state != "finished" and live_run.target == steps:
            words += ", the end of the run"
        share = 100 * progress.done / progress.total if progress.total else None
        solara.Text(f"{words} · {progress.what}" if progress.what else words)
        if state == "opening" or (state == "stepping" and share is not None):
            # During a step, only once it has reported: an indeterminate bar would take half the time of a quick step.
            solara.ProgressLinear(True if share is None else share)
        if state == "stepping":
            solara.Button("Pause inside the step", on_click=live_run.pause, text=True, small=True)
        if state == "paused":
            solara.Button("Resume", on_click=live_run.resume, color="primary", small=True)
        if waiting:
            solara.Button("Cancel the further steps", on_click=live_run.withdraw, text=True, small=True)
