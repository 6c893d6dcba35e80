"""What stands above the panels of a world: what was done to it, forks, previews, and what can be taken away."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import polars as pl
import solara

from ecosystem.app.actions import BackgroundTask, changes, choices, enforce, previewed, saved, template
from ecosystem.app.collapsible import Collapsible
from ecosystem.app.events import CHANGES, PROGRESS, tell
from ecosystem.app.live_run import LiveRun, Progress
from ecosystem.app.run_view import RunView
from ecosystem.app.session_model import SessionModel
from ecosystem.errors import EcosystemError
from ecosystem.runs.audit import MEASURES, cells


@solara.component
def Toolbar(session: SessionModel, number: int, step: int) -> None:
    """Show what was done to a world and what happened in it at a step, with what can be done to it."""
    CHANGES.listen()
    task, send = solara.use_state(None)  # the run being kept
    refused, refuse = solara.use_state((step, ""))  # why a step cannot be forked
    solara.use_effect(lambda: task.leave if task is not None else None, [task])
    view = session.views[number]
    live = number - len(session.stored)
    live_run = session.live_runs[live] if live >= 0 else None
    now = None if live_run is None else (live_run, id(live_run.scenario), live_run.t)
    # Written when somebody asks for it; another function where it would be another file.
    file = solara.use_memo(lambda: lambda: "" if live_run is None else saved(session, live_run), [now])

    def fork() -> None:
        try:
            session.fork(number, step)
            refuse((step, ""))
        except EcosystemError as error:
            refuse((step, str(error)))

    # Its parts stay in their places, so that what people have typed in one outlives changes in another.
    with solara.Div(classes=["eco-session"]):
        with solara.Div(classes=["eco-buttons"]):
            if view is not None:
                solara.Button(f"Fork here (step {step})", on_click=fork, outlined=True, small=True)
            if live_run is not None and view is not None:
                if len(session.live_runs) > 1:
                    _steer_button(session, live)
                with solara.FileDownload(file, f"{live_run.scenario.name}.toml"):
                    solara.Button("Save scenario", outlined=True, small=True)
                busy = task is not None and not task.done

                def keep() -> None:
                    send(BackgroundTask(lambda _: session.keep(live_run), session.news))

                solara.Button("Keep this run", on_click=keep, disabled=busy, outlined=True, small=True)
        with solara.Div():
            if refused[1] and refused[0] == step:
                solara.Error(refused[1])
            if task is not None:
                _Kept(task, task.done)
        with solara.Div():
            for line in _told(session, view, live_run, step):
                solara.v.Html(tag="p", children=[line])
        if view is not None:
            title = f"Preview a policy on this web, as it is after step {step}"
            Collapsible(title, lambda: Preview(session, view, live_run, step))


def _steer_button(session: SessionModel, live: int) -> None:
    """Let the knobs steer this live world, where there are several."""

    def steer() -> None:
        session.steered = live
        tell()

    steered = session.steered == live
    words = "The knobs steer this world" if steered else "Let the knobs steer this world"
    solara.Button(words, on_click=steer, disabled=steered, outlined=True, small=True)


def _told(session: SessionModel, view: RunView | None, live_run: LiveRun | None, step: int) -> list[str]:
    """Return what changes in a world, and what happened in it at a step, as lines."""
    if view is None:
        return []
    listed = changes(view.scenario, session.play.scenario if live_run is not None else None)
    origin = "in the scenario" if live_run is not None else "in the run"
    lines = [f"From step {at} on: {what}" + ("" if new else f" ({origin})") for at, what, new in listed]
    return lines + [f"Step {t}: {event}" for t, event in view.events if t == step]


@solara.component
def _Kept(task: BackgroundTask[Any], done: bool) -> None:
    """Show what became of a run that is to be kept."""
    if not done:
        solara.Text("This run is kept as soon as the step under way has ended.")
        solara.ProgressLinear(value=True)
    elif task.error is not None:
        solara.Error(task.error)
    elif task.result is not None:
        solara.Success(f"Kept in {task.result}")


@solara.component
def Preview(session: SessionModel, view: RunView, live_run: LiveRun | None, step: int) -> None:
    """Let people apply a policy to the web of a step before it is enforced, and enforce it."""
    CHANGES.listen()
    scenario = solara.use_memo(lambda: view.scenario.at(step), [id(view.scenario), step])
    there = choices(scenario)
    choice, choose = solara.use_state(there[0])
    text, write = solara.use_state(solara.use_memo(lambda: template(scenario, there[0]), []))
    asked, ask = solara.use_state(None)  # the errand under way or done, and what it was about
    population, pick = solara.use_state(next(iter(scenario.trainers), ""))
    refused, say = solara.use_state("")
    (enforced, by, first), show = solara.use_state(("", None, 0))  # what was, in which scenario, and from when on
    solara.use_effect(lambda: asked[0].leave if asked is not None else None, [asked])

    def chosen(name: str) -> None:
        choose(name)
        write(template(scenario, name))

    def typed(value: str) -> None:
        write(value if value.strip() else template(scenario, choice))  # emptied: the named policy again

    def preview() -> None:
        say("")
        ask((BackgroundTask(lambda report: previewed(view, step, choice, text, report), session.news), step))

    def act() -> None:
        assert live_run is not None
        try:
            first = live_run.upcoming
            name = enforce(live_run, choice, text, population)
            say("")
            told = f"From step {first} on, {name} stands first at the select gate of {population}."
            show((told, live_run.scenario, first))
        except EcosystemError as error:
            say(str(error))

    busy = asked is not None and not asked[0].done
    with solara.Div(classes=["eco-preview"]):
        solara.Select("policy", there, value=choice if choice in there else there[0], on_value=chosen, dense=True)
        solara.InputText("as TOML (empty it for the named policy)", text, on_value=typed, continuous_update=True)
        with solara.Div(classes=["eco-buttons"]):
            solara.Button("Preview", on_click=preview, disabled=busy, color="primary", small=True)
            if live_run is not None and scenario.trainers and live_run.upcoming <= live_run.scenario.steps:
                _Enforce(live_run, act)
                if len(scenario.trainers) > 1:
                    solara.Select("for", list(scenario.trainers), value=population, on_value=pick, dense=True)
        if enforced and live_run is not None and by is live_run.scenario and live_run.t < first:
            solara.Success(enforced)
        if refused:
            solara.Error(refused)
        if asked is not None:
            _Found(asked[0], asked[0].done, asked[0].progress, asked[1])


@solara.component
def _Enforce(live_run: LiveRun, act: Callable[[], None]) -> None:
    """Offer to enforce a policy, and say from when on."""
    PROGRESS.listen()
    solara.Button(f"Enforce from step {live_run.upcoming} on", on_click=act, outlined=True, small=True)


@solara.component
def _Found(task: BackgroundTask[pl.DataFrame], done: bool, progress: Progress, step: int) -> None:
    """Show what an audit found, as a table by true origin and depth."""
    if task.error is not None:
        solara.Error(task.error)
    elif not done:
        solara.Text(f"The web of step {step} is looked through" + (f" · {progress.what}" if progress.what else ""))
        solara.ProgressLinear(value=True)
    elif task.result is not None:
        _audit_table(task.result.filter(pl.col("by") != "author"), step)


def _audit_table(rows: pl.DataFrame, step: int) -> None:
    """Show the rows of an audit of one policy as a table."""
    shown = [measure for measure in MEASURES if measure in rows["measure"]]
    title = f"{rows['policy'][0]} ({rows['kind'][0]}) on the web after step {step}"
    with solara.Div(classes=["eco-found"]), solara.v.Html(tag="table"):
        solara.v.Html(tag="caption", children=[title])
        table_row("th", ("documents by", "", *(MEASURES[measure] for measure in shown)))
        for (by, group), figures in rows.group_by("by", "group", maintain_order=True):
            values = {row["measure"]: row for row in figures.iter_rows(named=True)}
            table_row("td", (str(by), "" if by == "all" else str(group), *cells(values, shown)))


def table_row(tag: str, cells: Iterable[str]) -> None:
    """Show one row of a table; ``tag`` is th or td. Cells are text, whatever is in them."""
    with solara.v.Html(tag="tr"):
        for cell in cells:
            solara.v.Html(tag=tag, children=[cell])
