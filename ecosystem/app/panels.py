"""The panels of the page, each a Solara component of a session or of a view and a step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import solara

from ecosystem.app.address import MEASURES, PANEL, Address
from ecosystem.app.chart_panels import WorldCharts, choices_of, chosen_metrics, news, wrong_measures
from ecosystem.app.charts.world_charts import ChartSet
from ecosystem.app.differences import differences
from ecosystem.app.documents import Reading
from ecosystem.app.elements import table_row, text_element
from ecosystem.app.events import listen, tell
from ecosystem.app.explorer import Explorer, wrong_columns
from ecosystem.app.progress import StepProgress
from ecosystem.app.toolbar import Toolbar
from ecosystem.app.worlds.run_view import RunView
from ecosystem.app.worlds.session_model import SessionModel

STYLE = Path(__file__).with_name("page.css")
PLACES = ("First", "Second")
DIFFERENT = 10  # differences between two scenarios, at most


@solara.component
def Worlds(session: SessionModel, address: Address) -> None:
    """Show the worlds of the session side by side, at the same step and with the same measures."""
    listen(bool(session.live_runs))
    error, _ = solara.use_exception()
    views = [view for view in session.views if view is not None]
    chart_set = solara.use_memo(lambda: ChartSet(views), [tuple(map(id, views))])
    if error is not None:
        solara.Error(
            f"The page could not be drawn ({type(error).__name__}: {error}). Committed steps are not affected."
        )
        return
    choices = choices_of(views)
    asked = {key: address[key] for key in MEASURES if address[key]}
    metrics = chosen_metrics(choices, {"diversity": "distinct_2", **asked})
    with solara.Div():  # always there, as below
        if views:
            for sentence in (
                *wrong_measures(choices, asked, growing=bool(session.live_runs)),
                *wrong_columns(views[0], address),
            ):
                solara.Warning(sentence)
    if len({view.scenario.modality for view in views}) > 1:
        sorts = " and ".join(f"{view.scenario.name} has {view.scenario.modality} documents" for view in views)
        solara.Warning(
            f"{sorts}: the measures of their models cannot be compared, but the content of the web and refusals can."
        )
    with solara.Div(classes=["eco-steps"]):  # always there, or what follows would be made again when it appears
        _step_slider(session)
    with solara.Div(classes=["eco-bar"]):
        for key, options in choices.items():
            if len(options) > 1 and key in metrics:
                _selector(key, options, metrics[key], lambda key, metric: address.set(**{key: metric}))
    if len(views) > 1:
        Differences(views, tuple(id(view.scenario) for view in views), bool(session.live_runs))
    with solara.Div(classes=["eco-worlds", *(["eco-two"] if len(session.views) > 1 else [])]):
        for number in range(len(session.views)):
            _world(session, number, chart_set, metrics, address)


def _world(
    session: SessionModel, number: int, chart_set: ChartSet, metrics: Mapping[str, str], address: Address
) -> None:
    """Show one world of a session: its toolbar, its panels and its documents."""
    view, views = session.views[number], chart_set.views
    with solara.Div(classes=["eco-world"]):
        _top(session, number, len(views) > 1, address[PANEL] == "preview")
        if view is not None:
            with solara.Div(classes=["eco-below"]):
                step = min(session.step_shown, view.last)
                WorldCharts(chart_set, views.index(view), step, news(views), metrics)
                Explorer(view, address, step, view.last)
                Reading(view, step, view.last, address[PANEL] == "reading")


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


def _top(session: SessionModel, number: int, several: bool, previewing: bool) -> None:
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
        Toolbar(session, number, -1 if view is None else min(session.step_shown, view.last), previewing)


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
