"""What stands above the panels of a world: what was done to it, forks, previews, and what can be taken away."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import polars as pl
import solara

from ecosystem.app.actions import Errand, changes, choices, enforce, previewed, saved, template
from ecosystem.app.collapsible import Fold
from ecosystem.app.events import NEWS, PROGRESS, tell
from ecosystem.app.live_run import Progress, Recording
from ecosystem.app.run_view import Film
from ecosystem.app.session_model import Stage
from ecosystem.errors import EcosystemError
from ecosystem.runs.audit import MEASURES, cells


@solara.component
def Strip(stage: Stage, number: int, step: int) -> None:
    """Show what was done to a world and what happened in it at a step, with what can be done to it."""
    NEWS.listen()
    errand, send = solara.use_state(None)  # the run being kept
    refused, refuse = solara.use_state((step, ""))  # why a step cannot be forked
    solara.use_effect(lambda: errand.leave if errand is not None else None, [errand])
    film = stage.films[number]
    live = number - len(stage.stored)
    recording = stage.recordings[live] if live >= 0 else None
    now = None if recording is None else (recording, id(recording.scenario), recording.t)
    # Written when somebody asks for it; another function where it would be another file.
    file = solara.use_memo(lambda: lambda: "" if recording is None else saved(stage, recording), [now])

    def fork() -> None:
        try:
            stage.fork(number, step)
            refuse((step, ""))
        except EcosystemError as error:
            refuse((step, str(error)))

    def steer() -> None:
        stage.steered = live
        tell()

    # Its parts stay in their places, so that what people have typed in one outlives news in another.
    with solara.Div(classes=["eco-session"]):
        with solara.Div(classes=["eco-buttons"]):
            if film is not None:
                solara.Button(f"Fork here (step {step})", on_click=fork, outlined=True, small=True)
            if recording is not None and film is not None:
                if len(stage.recordings) > 1:
                    mine = stage.steered == live
                    words = "The knobs steer this world" if mine else "Let the knobs steer this world"
                    solara.Button(words, on_click=steer, disabled=mine, outlined=True, small=True)
                with solara.FileDownload(file, f"{recording.scenario.name}.toml"):
                    solara.Button("Save scenario", outlined=True, small=True)
                busy = errand is not None and not errand.done

                def keep() -> None:
                    send(Errand(lambda _: stage.keep(recording), stage.news))

                solara.Button("Keep this run", on_click=keep, disabled=busy, outlined=True, small=True)
        with solara.Div():
            if refused[1] and refused[0] == step:
                solara.Error(refused[1])
            if errand is not None:
                _Kept(errand, errand.done)
        with solara.Div():
            for line in _told(stage, film, recording, step):
                solara.v.Html(tag="p", children=[line])
        if film is not None:
            title = f"Preview a policy on this web, as it is after step {step}"
            Fold(title, lambda: Preview(stage, film, recording, step))


def _told(stage: Stage, film: Film | None, recording: Recording | None, step: int) -> list[str]:
    """Return what changes in a world, and what happened in it at a step, as lines."""
    if film is None:
        return []
    listed = changes(film.scenario, stage.play.scenario if recording is not None else None)
    origin = "in the scenario" if recording is not None else "in the run"
    lines = [f"From step {at} on: {what}" + ("" if new else f" ({origin})") for at, what, new in listed]
    return lines + [f"Step {t}: {event}" for t, event in film.events if t == step]


@solara.component
def _Kept(errand: Errand[Any], done: bool) -> None:
    """Show what became of a run that is to be kept."""
    if not done:
        solara.Text("This run is kept as soon as the step under way has ended.")
        solara.ProgressLinear(value=True)
    elif errand.error is not None:
        solara.Error(errand.error)
    elif errand.result is not None:
        solara.Success(f"Kept in {errand.result}")


@solara.component
def Preview(stage: Stage, film: Film, recording: Recording | None, step: int) -> None:
    """Let people apply a policy to the web of a step before it is enforced, and enforce it."""
    NEWS.listen()
    scenario = solara.use_memo(lambda: film.scenario.at(step), [id(film.scenario), step])
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
        ask((Errand(lambda report: previewed(film, step, choice, text, report), stage.news), step))

    def act() -> None:
        assert recording is not None
        try:
            first = recording.upcoming
            name = enforce(recording, choice, text, population)
            say("")
            told = f"From step {first} on, {name} stands first at the select gate of {population}."
            show((told, recording.scenario, first))
        except EcosystemError as error:
            say(str(error))

    busy = asked is not None and not asked[0].done
    with solara.Div(classes=["eco-preview"]):
        solara.Select("policy", there, value=choice if choice in there else there[0], on_value=chosen, dense=True)
        solara.InputText("as TOML (empty it for the named policy)", text, on_value=typed, continuous_update=True)
        with solara.Div(classes=["eco-buttons"]):
            solara.Button("Preview", on_click=preview, disabled=busy, color="primary", small=True)
            if recording is not None and scenario.trainers and recording.upcoming <= recording.scenario.steps:
                _Enforce(recording, act)
                if len(scenario.trainers) > 1:
                    solara.Select("for", list(scenario.trainers), value=population, on_value=pick, dense=True)
        if enforced and recording is not None and by is recording.scenario and recording.t < first:
            solara.Success(enforced)
        if refused:
            solara.Error(refused)
        if asked is not None:
            _Found(asked[0], asked[0].done, asked[0].progress, asked[1])


@solara.component
def _Enforce(recording: Recording, act: Callable[[], None]) -> None:
    """Offer to enforce a policy, and say from when on."""
    PROGRESS.listen()
    solara.Button(f"Enforce from step {recording.upcoming} on", on_click=act, outlined=True, small=True)


@solara.component
def _Found(errand: Errand[pl.DataFrame], done: bool, progress: Progress, step: int) -> None:
    """Show what an audit found, as a table by true origin and depth."""
    if errand.error is not None:
        solara.Error(errand.error)
    elif not done:
        solara.Text(f"The web of step {step} is looked through" + (f" · {progress.what}" if progress.what else ""))
        solara.ProgressLinear(value=True)
    elif errand.result is not None:
        rows = errand.result.filter(pl.col("by") != "author")
        shown = [measure for measure in MEASURES if measure in rows["measure"]]
        title = f"{rows['policy'][0]} ({rows['kind'][0]}) on the web after step {step}"
        with solara.Div(classes=["eco-found"]), solara.v.Html(tag="table"):
            solara.v.Html(tag="caption", children=[title])
            with solara.v.Html(tag="tr"):
                for head in ("documents by", "", *(MEASURES[measure] for measure in shown)):
                    solara.v.Html(tag="th", children=[head])
            for (by, group), figures in rows.group_by("by", "group", maintain_order=True):
                known = {row["measure"]: row for row in figures.iter_rows(named=True)}
                with solara.v.Html(tag="tr"):
                    for cell in (str(by), "" if by == "all" else str(group), *cells(known, shown)):
                        solara.v.Html(tag="td", children=[cell])
